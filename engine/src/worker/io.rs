//! What goes into a worker and what comes out.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ids::{JobType, Run};
use crate::lifecycle::RunEnd;
use crate::payload::ErrorText;
use crate::store::{ClaimedJob, Command, Outcome, Reclaimed, Reply, StoreError};
use crate::time::Due;
use crate::worker::LaneKind;

/// Names one store command of a worker; its reply names it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The time of [`Worker::poll_timeout`](super::Worker::poll_timeout) came.
    TimerFired,
    /// Jobs of this type may be due.
    Woken(JobType),
    /// Announcements of other processes arrive from now on, or no longer.
    Listening(bool),
    /// A store command was answered, or failed.
    Replied {
        /// Which.
        op: OpId,
        /// The answer. An [`StoreError::Unknown`] is repeated.
        result: Result<Reply, StoreError>,
    },
    /// A runner ended.
    RunEnded {
        /// Which run.
        run: Run,
        /// How.
        ended: Ended,
    },
    /// Claim no more, let the runners end, then stop.
    ShutdownRequested,
}

/// How a runner ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its job is completed.
    Completed,
    /// Its job is to run again.
    Rescheduled(Due),
    /// Its job is to run again, and this was no attempt.
    Snoozed(Due),
    /// It failed, panicked, or could not be made.
    Failed(ErrorText),
    /// It failed, and no other attempt is to follow.
    Errored(ErrorText),
    /// It could not be made, because this program cannot decode the config: perhaps that
    /// of another version can.
    Undecodable(ErrorText),
    /// Its end is already recorded, as this: it was committed in a transaction of the
    /// caller.
    Settled(Outcome),
    /// The transaction that was to record its end found the lease lost, and was
    /// rolled back.
    LeaseLost,
    /// It was aborted, as [`Action::Abort`] asked.
    Aborted,
}

/// What the driver is to do. The order matters.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send a command to the store, and bring back the reply.
    Execute {
        /// Names the command.
        op: OpId,
        /// The command.
        command: Command,
    },
    /// Start a runner.
    Start(ClaimedJob),
    /// Ask a runner to end.
    Stop {
        /// Which.
        run: Run,
        /// Why.
        reason: StopReason,
    },
    /// End a runner by force, and say when it has ended.
    Abort(Run),
    /// Tell other workers that jobs of these types have become due.
    Announce(BTreeSet<JobType>),
    /// Something to log or count.
    Observe(Observation),
    /// The last action: the worker has stopped.
    Stopped,
}

/// Why a runner is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The worker shuts down.
    Shutdown,
    /// The lease is lost, or could not be renewed in time: another worker may
    /// run the job now, and what this runner writes outside of a fenced
    /// transaction may happen twice.
    LeaseLost,
}

/// What an operator wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// A runner has ended and this is about to be recorded.
    RunEnded {
        /// Which run.
        run: Run,
        /// Of which type.
        job_type: JobType,
        /// At which attempt.
        attempt: u32,
        /// What will be recorded.
        end: RunEnd,
        /// Why it failed, if it did.
        error: Option<ErrorText>,
        /// How long until the next attempt, if there is one after a failure.
        retry_in: Option<Duration>,
        /// Whether the failure is no more than a warning.
        warning: bool,
    },
    /// A run ended without effect: its lease was lost.
    RunLost {
        /// Which run.
        run: Run,
        /// Of which type.
        job_type: JobType,
    },
    /// A job was interrupted once more, and none of its runs has ended otherwise in
    /// between.
    OftenInterrupted {
        /// The run that was interrupted last.
        run: Run,
        /// Of which type.
        job_type: JobType,
        /// How often in a row.
        interruptions: u32,
    },
    /// A job was claimed that cannot be run, and is ended.
    SpecGone {
        /// Which run.
        run: Run,
        /// Of which type.
        job_type: JobType,
    },
    /// A job whose lease ran out was taken back, or ended.
    Reclaimed(Reclaimed),
    /// A store command failed.
    StoreFailed {
        /// Of which lane.
        lane: LaneKind,
        /// How.
        error: StoreError,
        /// How many errors in a row this is.
        failures: u32,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// The store refuses to record the end of a run. Its lease will run out.
    FinishRefused {
        /// Which run.
        run: Run,
        /// Why.
        error: StoreError,
    },
    /// The shutdown began; so many runners are at work.
    Draining {
        /// How many.
        executing: u32,
    },
    /// The shutdown is over; so many runs could not be settled in time, and
    /// will be reclaimed when their leases run out.
    Drained {
        /// How many.
        unsettled: usize,
    },
}
