//! What happens in a simulation, as the checkers, the hash and the timeline see
//! it.

use std::fmt;

use job_engine::store::{ClaimedJob, Written};
use job_engine::worker::{Ended, Observation, StopReason};
use job_engine::{Command, JobType, Reply, Run, StoreError, WorkerId};

/// One start of the process of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    /// The key of the worker.
    pub worker: u32,
    /// Counts the starts of its process, from 1.
    pub incarnation: u32,
}

impl Who {
    /// Whoever spawns jobs from outside of all workers.
    pub const OUTSIDE: Self = Self {
        worker: u32::MAX,
        incarnation: 1,
    };
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::OUTSIDE {
            return f.write_str("outside");
        }
        write!(f, "w{}.{}", self.worker, self.incarnation)
    }
}

/// Names one call of the store by a process. The commands of the engine have
/// its numbers; those of runners and spawners have numbers of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// Who calls.
    pub who: Who,
    /// Which of its calls.
    pub op: u64,
}

impl Call {
    /// Whether the engine of the process calls, and no runner or spawner.
    pub fn is_of_engine(self) -> bool {
        self.op < RUNNER_OPS
    }

    /// Whether another service is called, and not the store.
    pub fn is_of_service(self) -> bool {
        self.op >= SERVICE_OPS
    }
}

/// Calls of the runner of a run have numbers from here on.
pub const RUNNER_OPS: u64 = 1 << 40;
/// Calls of other services have numbers from here on.
pub const SERVICE_OPS: u64 = 1 << 43;
/// Spawns have numbers from here on.
pub const SPAWN_OPS: u64 = 1 << 41;

/// When something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Microseconds since the start of the simulation, true time.
    pub true_us: u64,
    /// What the clock of the store shows.
    pub store: job_engine::Timestamp,
}

/// What happens.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A process starts; its engine has this id.
    Up {
        /// Which.
        who: Who,
        /// The id under which it claims.
        id: WorkerId,
    },
    /// A process is about to start with this configuration.
    Configured {
        /// Which.
        who: Who,
        /// How it is configured.
        knobs: &'a crate::scenario::Knobs,
    },
    /// A process comes to a fault point, and dies there.
    Point {
        /// Which process.
        who: Who,
        /// Which point; one of [`job_tokio::fault::POINTS`].
        point: &'static str,
    },
    /// A process is gone, without a word.
    Crashed {
        /// Which.
        who: Who,
    },
    /// A worker is asked to shut down.
    ShutdownAsked {
        /// Which.
        who: Who,
    },
    /// A worker says that it has stopped.
    Stopped {
        /// Which.
        who: Who,
    },
    /// A process stands still.
    Paused {
        /// Which.
        who: Who,
    },
    /// It goes on.
    Resumed {
        /// Which.
        who: Who,
    },
    /// Something goes wrong that is not the fault of this process: until then,
    /// it may lose leases.
    Disturbed {
        /// Which; all if none.
        who: Option<Who>,
        /// Until when, true time.
        until_us: u64,
        /// By what.
        by: Disturbance,
    },
    /// A process sends a command.
    Sent {
        /// Which call.
        call: Call,
        /// The command.
        command: &'a Command,
    },
    /// The store carries a command out. Several in one transaction come one
    /// after the other.
    Applied {
        /// Which call; one that arrives twice is carried out twice.
        call: Call,
        /// The command.
        command: &'a Command,
        /// The answer.
        reply: &'a Reply,
    },
    /// A process takes in the answer, or that there is none.
    Answered {
        /// Which call.
        call: Call,
        /// The answer.
        result: &'a Result<Reply, StoreError>,
    },
    /// The answer arrives at nobody: the process that asked is gone, or has
    /// given up.
    Unheard {
        /// Which call.
        call: Call,
    },
    /// A runner starts.
    Started {
        /// In which process.
        who: Who,
        /// With what.
        job: &'a ClaimedJob,
    },
    /// A runner is asked to stop.
    Told {
        /// In which process.
        who: Who,
        /// Which.
        run: Run,
        /// Why.
        reason: StopReason,
    },
    /// A runner is aborted.
    Aborted {
        /// In which process.
        who: Who,
        /// Which.
        run: Run,
    },
    /// A checkpoint of a runner is answered.
    Kept {
        /// In which process.
        who: Who,
        /// Which.
        run: Run,
        /// The answer; `None` if there is none.
        written: Option<Written>,
    },
    /// A runner is about to commit a transaction that ends its run.
    Committing {
        /// In which process.
        who: Who,
        /// Which.
        run: Run,
    },
    /// The transaction of a runner is committed, and so is what else it wrote.
    Committed {
        /// In which process.
        who: Who,
        /// Which.
        run: Run,
    },
    /// A runner has ended, whether the engine hears of it or not.
    Ended {
        /// In which process.
        who: Who,
        /// Which.
        run: Run,
        /// How.
        ended: &'a Ended,
    },
    /// An announcement arrives.
    Woken {
        /// At which process.
        who: Who,
        /// Of which type.
        job_type: &'a JobType,
    },
    /// Announcements arrive from now on, or no longer, as far as the process
    /// knows.
    Listening {
        /// At which process.
        who: Who,
        /// Whether they do.
        listening: bool,
    },
    /// A caller asks for a job that may share a commit with others.
    Spawning {
        /// Whose.
        who: Who,
        /// The key of the job.
        job: u32,
    },
    /// A spawn returned to its caller.
    Spawned {
        /// Whose.
        who: Who,
        /// The key of the job.
        job: u32,
        /// It was the second spawn with that id.
        again: bool,
        /// What the caller was told; `None` if nothing is known.
        spawned: Option<job_engine::store::Spawned>,
    },
    /// Operators are told something.
    Logged {
        /// By which process.
        who: Who,
        /// What.
        observation: &'a Observation,
    },
    /// Something that a test, or what stands in for another service, wants to be seen.
    Noted {
        /// In which process; `None` outside of all.
        who: Option<Who>,
        /// By the runner of which run.
        run: Option<Run>,
        /// What.
        text: &'a str,
    },
    /// A fault begins to act.
    Fault {
        /// Which, by its place in the scenario.
        place: usize,
    },
    /// From here on nothing goes wrong.
    Calm,
}

/// What disturbs a process, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their texts say what they are")]
pub enum Disturbance {
    StandingStill,
    Lag,
    OwnClock,
    StoreClock,
    Network,
    Partition,
    Store,
    StoreRestart,
    LongReply,
    Anything,
}

impl Disturbance {
    /// Whether the process itself acts late, whatever it needs the store for.
    pub const fn holds_up(self) -> bool {
        match self {
            Self::StandingStill | Self::Lag | Self::OwnClock | Self::Anything => true,
            Self::StoreClock
            | Self::Network
            | Self::Partition
            | Self::Store
            | Self::StoreRestart
            | Self::LongReply => false,
        }
    }
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StandingStill => "standing still",
            Self::Lag => "lag",
            Self::OwnClock => "its clock",
            Self::StoreClock => "the clock of the store",
            Self::Network => "the network",
            Self::Partition => "a partition",
            Self::Store => "the store",
            Self::StoreRestart => "a restart of the store",
            Self::LongReply => "a long reply",
            Self::Anything => "anything",
        })
    }
}
