//! How runners say that a run ended.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use job_engine::store::Outcome;
use job_engine::worker::Ended;
use job_engine::{Due, ErrorText};
use job_tokio::to_timestamp;

use crate::backend::{Backend, DefaultBackend};

/// How a run ended, unless by an error.
///
/// The variants with a transaction (`...WithTx`) or operation (`...WithOp`)
/// record the end in it and commit it: the caller's writes and the end of the
/// run happen together or not at all. If the lease is lost by then, it is
/// rolled back.
///
/// A reschedule sets the attempt back to 1 and keeps the execution state. When the next run
/// is due is judged by the clock of the database, or by the artificial clock of the service.
/// Times are kept to the microsecond, in the years 1 to 9999: a wait is rounded up, a point
/// in time down, and what lies outside is moved to the nearest end.
///
/// What has no variant is made by a function: [`JobCompletion::fail`],
/// [`JobCompletion::snooze_in`]; and each end can be put into a transaction by
/// [`JobCompletion::in_tx`].
pub enum JobCompletion<B: Backend = DefaultBackend> {
    /// The job is done.
    Complete,
    /// The job is done, together with this transaction.
    CompleteWithTx(B::Transaction),
    /// The job is done, together with this operation.
    #[cfg(feature = "es-entity")]
    CompleteWithOp(B::Operation),
    /// Run again at once.
    RescheduleNow,
    /// Run again at once, together with this transaction.
    RescheduleNowWithTx(B::Transaction),
    /// Run again at once, together with this operation.
    #[cfg(feature = "es-entity")]
    RescheduleNowWithOp(B::Operation),
    /// Run again after this time, which begins when the end of the run is recorded.
    RescheduleIn(Duration),
    /// Run again after this time, together with this transaction.
    RescheduleInWithTx(B::Transaction, Duration),
    /// Run again after this time, together with this operation.
    #[cfg(feature = "es-entity")]
    RescheduleInWithOp(B::Operation, Duration),
    /// Run again at this time; one in the past is at once.
    RescheduleAt(DateTime<Utc>),
    /// Run again at this time, together with this transaction.
    RescheduleAtWithTx(B::Transaction, DateTime<Utc>),
    /// Run again at this time, together with this operation.
    #[cfg(feature = "es-entity")]
    RescheduleAtWithOp(B::Operation, DateTime<Utc>),
    /// An end that a function of this type made, and that has no variant of its own.
    Ended(Ending<B>),
}

/// An end that has no variant in [`JobCompletion`].
pub struct Ending<B: Backend = DefaultBackend> {
    end: End,
    within: Option<Within<B>>,
}

/// What becomes of the job.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum End {
    Complete,
    Reschedule(When),
    Snooze(When),
    Fail(String),
}

/// When a job runs again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum When {
    Now,
    In(Duration),
    At(DateTime<Utc>),
}

/// In what the end is recorded, and committed with.
pub(crate) enum Within<B: Backend> {
    Tx(B::Transaction),
    #[cfg(feature = "es-entity")]
    Op(B::Operation),
}

impl<B: Backend> JobCompletion<B> {
    /// The job is done: [`JobCompletion::Complete`].
    pub fn complete() -> Self {
        Self::Complete
    }

    /// The job has failed, for this reason, and is not tried again whatever attempts it has
    /// left: it ends as [`JobState::Errored`](crate::JobState::Errored) at once. The reason is
    /// kept up to 16 KiB.
    ///
    /// # Examples
    ///
    /// ```
    /// use job::{JobCompletion, Memory};
    ///
    /// let declined: JobCompletion<Memory> = JobCompletion::fail("the card has expired");
    /// assert_eq!(declined.failure(), Some("the card has expired"));
    /// ```
    pub fn fail(reason: impl fmt::Display) -> Self {
        Self::made(End::Fail(reason.to_string()))
    }

    /// Run again after this time, which begins when the end of the run is recorded, at the
    /// same attempt: the run counts for nothing, as if its job had not been due yet. For what
    /// is not ready, and is no failure. The execution state is kept, and crashes before it are
    /// forgotten, as are interruptions. There is no limit to how often.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use job::{JobCompletion, Memory};
    ///
    /// let not_yet: JobCompletion<Memory> = JobCompletion::snooze_in(Duration::from_secs(60));
    /// assert_eq!(not_yet.failure(), None);
    /// ```
    pub fn snooze_in(delay: Duration) -> Self {
        Self::made(End::Snooze(When::In(delay)))
    }

    /// As [`JobCompletion::snooze_in`], at this time; one in the past is at once.
    pub fn snooze_at(at: DateTime<Utc>) -> Self {
        Self::made(End::Snooze(When::At(at)))
    }

    /// The same end, together with this transaction. One that it had before is rolled back.
    /// If the lease is lost by then, or the commit fails, nothing of it has happened.
    ///
    /// # Examples
    ///
    /// ```
    /// use job::{Backend, CurrentJob, JobCompletion, JobError};
    ///
    /// async fn decline<B: Backend>(job: CurrentJob<B>) -> Result<JobCompletion<B>, JobError> {
    ///     let tx = job.begin().await?;
    ///     // What is written here is committed with the end, or not at all.
    ///     Ok(JobCompletion::fail("the card has expired").in_tx(tx))
    /// }
    /// ```
    #[must_use]
    pub fn in_tx(self, transaction: B::Transaction) -> Self {
        Self::of(self.apart().0, Some(Within::Tx(transaction)))
    }

    /// The same end, together with this operation. One that it had before is rolled back.
    #[cfg(feature = "es-entity")]
    #[must_use]
    pub fn in_op(self, operation: B::Operation) -> Self {
        Self::of(self.apart().0, Some(Within::Op(operation)))
    }

    /// Why the job fails for good, if it does.
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::Ended(Ending {
                end: End::Fail(reason),
                ..
            }) => Some(reason),
            _ => None,
        }
    }

    fn made(end: End) -> Self {
        Self::of(end, None)
    }

    /// By its variant, if it has one.
    pub(crate) fn of(end: End, within: Option<Within<B>>) -> Self {
        match (end, within) {
            (End::Complete, None) => Self::Complete,
            (End::Reschedule(When::Now), None) => Self::RescheduleNow,
            (End::Reschedule(When::In(delay)), None) => Self::RescheduleIn(delay),
            (End::Reschedule(When::At(at)), None) => Self::RescheduleAt(at),
            (End::Complete, Some(Within::Tx(tx))) => Self::CompleteWithTx(tx),
            (End::Reschedule(When::Now), Some(Within::Tx(tx))) => Self::RescheduleNowWithTx(tx),
            (End::Reschedule(When::In(delay)), Some(Within::Tx(tx))) => {
                Self::RescheduleInWithTx(tx, delay)
            }
            (End::Reschedule(When::At(at)), Some(Within::Tx(tx))) => {
                Self::RescheduleAtWithTx(tx, at)
            }
            #[cfg(feature = "es-entity")]
            (End::Complete, Some(Within::Op(op))) => Self::CompleteWithOp(op),
            #[cfg(feature = "es-entity")]
            (End::Reschedule(When::Now), Some(Within::Op(op))) => Self::RescheduleNowWithOp(op),
            #[cfg(feature = "es-entity")]
            (End::Reschedule(When::In(delay)), Some(Within::Op(op))) => {
                Self::RescheduleInWithOp(op, delay)
            }
            #[cfg(feature = "es-entity")]
            (End::Reschedule(When::At(at)), Some(Within::Op(op))) => {
                Self::RescheduleAtWithOp(op, at)
            }
            (end @ (End::Snooze(_) | End::Fail(_)), within) => Self::Ended(Ending { end, within }),
        }
    }

    /// What becomes of the job, and in what that is recorded.
    pub(crate) fn apart(self) -> (End, Option<Within<B>>) {
        let again = |when| End::Reschedule(when);
        match self {
            Self::Complete => (End::Complete, None),
            Self::RescheduleNow => (again(When::Now), None),
            Self::RescheduleIn(delay) => (again(When::In(delay)), None),
            Self::RescheduleAt(at) => (again(When::At(at)), None),
            Self::CompleteWithTx(tx) => (End::Complete, Some(Within::Tx(tx))),
            Self::RescheduleNowWithTx(tx) => (again(When::Now), Some(Within::Tx(tx))),
            Self::RescheduleInWithTx(tx, delay) => (again(When::In(delay)), Some(Within::Tx(tx))),
            Self::RescheduleAtWithTx(tx, at) => (again(When::At(at)), Some(Within::Tx(tx))),
            #[cfg(feature = "es-entity")]
            Self::CompleteWithOp(op) => (End::Complete, Some(Within::Op(op))),
            #[cfg(feature = "es-entity")]
            Self::RescheduleNowWithOp(op) => (again(When::Now), Some(Within::Op(op))),
            #[cfg(feature = "es-entity")]
            Self::RescheduleInWithOp(op, delay) => (again(When::In(delay)), Some(Within::Op(op))),
            #[cfg(feature = "es-entity")]
            Self::RescheduleAtWithOp(op, at) => (again(When::At(at)), Some(Within::Op(op))),
            Self::Ended(Ending { end, within }) => (end, within),
        }
    }

    /// Whether it is recorded in a transaction of the runner.
    #[cfg(feature = "testing")]
    pub(crate) fn is_in_transaction(&self) -> bool {
        match self {
            Self::Complete
            | Self::RescheduleNow
            | Self::RescheduleIn(_)
            | Self::RescheduleAt(_) => false,
            Self::Ended(ending) => ending.within.is_some(),
            _ => true,
        }
    }

    /// The name of the variant, or of the function that made it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Complete => "Complete",
            Self::CompleteWithTx(_) => "CompleteWithTx",
            #[cfg(feature = "es-entity")]
            Self::CompleteWithOp(_) => "CompleteWithOp",
            Self::RescheduleNow => "RescheduleNow",
            Self::RescheduleNowWithTx(_) => "RescheduleNowWithTx",
            #[cfg(feature = "es-entity")]
            Self::RescheduleNowWithOp(_) => "RescheduleNowWithOp",
            Self::RescheduleIn(_) => "RescheduleIn",
            Self::RescheduleInWithTx(..) => "RescheduleInWithTx",
            #[cfg(feature = "es-entity")]
            Self::RescheduleInWithOp(..) => "RescheduleInWithOp",
            Self::RescheduleAt(_) => "RescheduleAt",
            Self::RescheduleAtWithTx(..) => "RescheduleAtWithTx",
            #[cfg(feature = "es-entity")]
            Self::RescheduleAtWithOp(..) => "RescheduleAtWithOp",
            Self::Ended(ending) => ending.name(),
        }
    }
}

impl<B: Backend> Ending<B> {
    fn name(&self) -> &'static str {
        let within = match self.within {
            None => 0,
            Some(Within::Tx(_)) => 1,
            #[cfg(feature = "es-entity")]
            Some(Within::Op(_)) => 2,
        };
        let names = match self.end {
            End::Fail(_) => ["Fail", "FailWithTx", "FailWithOp"],
            End::Snooze(_) => ["Snooze", "SnoozeWithTx", "SnoozeWithOp"],
            End::Complete => ["Complete", "CompleteWithTx", "CompleteWithOp"],
            End::Reschedule(_) => ["Reschedule", "RescheduleWithTx", "RescheduleWithOp"],
        };
        names[within]
    }
}

impl<B: Backend> fmt::Debug for JobCompletion<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<B: Backend> fmt::Debug for Ending<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl End {
    /// What the engine is told, if the end is not recorded yet.
    pub(crate) fn ended(self) -> Ended {
        match self {
            Self::Complete => Ended::Completed,
            Self::Reschedule(when) => Ended::Rescheduled(when.due()),
            Self::Snooze(when) => Ended::Snoozed(when.due()),
            Self::Fail(reason) => Ended::Errored(ErrorText::new(&reason)),
        }
    }

    /// What is recorded.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Complete => Outcome::Completed,
            Self::Reschedule(when) => Outcome::Rescheduled { due: when.due() },
            Self::Snooze(when) => Outcome::Snoozed { due: when.due() },
            Self::Fail(reason) => Outcome::Errored {
                error: ErrorText::new(&reason),
            },
        }
    }
}

impl When {
    fn due(self) -> Due {
        match self {
            Self::Now => Due::Now,
            Self::In(delay) => Due::In(delay),
            Self::At(at) => Due::At(to_timestamp(at)),
        }
    }
}
