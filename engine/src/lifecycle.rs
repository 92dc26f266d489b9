//! The life of a job, as one table.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// Waits until it is due, and then for a worker to claim it.
    Pending,
    /// Claimed: a worker holds its lease.
    Running,
    /// Ended well. Final.
    Completed,
    /// Ended after its last attempt, or after too many crashes. Final.
    Errored,
}

/// What can happen to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Event {
    /// A worker took it.
    Claimed,
    /// A run ended, by one of these.
    Ended(RunEnd),
}

/// How one run of a job ended. The number is what the stores write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(i16)]
pub enum RunEnd {
    /// The runner completed the job.
    Completed = 1,
    /// The runner asked for another run; the count of attempts starts again.
    Rescheduled = 2,
    /// The runner failed, and another attempt follows.
    Retried = 3,
    /// The runner failed for the last time.
    Errored = 4,
    /// The worker put the job back before its runner began; the attempt does not count.
    Released = 5,
    /// The lease ran out: the worker died, hung or was cut off.
    Lost = 6,
    /// The lease ran out and the job has no attempt left, or has crashed its
    /// worker too often.
    Abandoned = 7,
    /// The worker shut down while the runner was at work, or its process is known to be
    /// gone; the attempt does not count.
    Interrupted = 8,
    /// The config could not be decoded by the program that took the job; the attempt does
    /// not count.
    Undecodable = 9,
    /// The runner asked for another run; the attempt does not count.
    Snoozed = 10,
}

impl RunEnd {
    /// All of them, for stores that read the number back.
    pub const ALL: [Self; 10] = [
        Self::Completed,
        Self::Rescheduled,
        Self::Retried,
        Self::Errored,
        Self::Released,
        Self::Lost,
        Self::Abandoned,
        Self::Interrupted,
        Self::Undecodable,
        Self::Snoozed,
    ];

    /// The number that the stores write.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// The end with this number, unless a newer version wrote it.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|end| end.code() == code)
    }

    /// Whether the runner failed.
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Retried | Self::Errored)
    }

    /// Whether the job is over with it.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Completed | Self::Errored | Self::Abandoned => true,
            Self::Rescheduled
            | Self::Retried
            | Self::Released
            | Self::Lost
            | Self::Interrupted
            | Self::Undecodable
            | Self::Snoozed => false,
        }
    }
}

/// An event that cannot happen in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a job that is {state:?} cannot have the event {event:?}")]
pub struct IllegalEvent {
    /// Where the job is.
    pub state: State,
    /// What was said to happen.
    pub event: Event,
}

impl State {
    /// The state after `event`.
    ///
    /// # Errors
    ///
    /// [`IllegalEvent`] for a pair that the table does not have.
    pub fn next(self, event: Event) -> Result<Self, IllegalEvent> {
        use RunEnd::{
            Abandoned, Completed, Errored, Interrupted, Lost, Released, Rescheduled, Retried,
            Snoozed, Undecodable,
        };
        match (self, event) {
            (State::Pending, Event::Claimed) => Ok(State::Running),
            (State::Running, Event::Ended(Completed)) => Ok(State::Completed),
            (State::Running, Event::Ended(Errored | Abandoned)) => Ok(State::Errored),
            (
                State::Running,
                Event::Ended(
                    Rescheduled | Retried | Released | Lost | Interrupted | Undecodable | Snoozed,
                ),
            ) => Ok(State::Pending),
            (State::Running, Event::Claimed)
            | (State::Pending, Event::Ended(_))
            | (State::Completed | State::Errored, Event::Claimed | Event::Ended(_)) => {
                Err(IllegalEvent { state: self, event })
            }
        }
    }

    /// Whether the job is over.
    pub const fn is_final(self) -> bool {
        match self {
            State::Pending | State::Running => false,
            State::Completed | State::Errored => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_ends_exactly_when_its_run_ends_it() {
        for end in RunEnd::ALL {
            let state = State::Running.next(Event::Ended(end)).unwrap();
            assert_eq!(state.is_final(), end.is_final(), "{end:?}");
            assert_eq!(RunEnd::from_code(end.code()), Some(end));
        }
        assert_eq!(RunEnd::from_code(11), None);
        let failures = RunEnd::ALL.into_iter().filter(|end| end.is_failure());
        assert_eq!(
            failures.collect::<Vec<_>>(),
            [RunEnd::Retried, RunEnd::Errored]
        );
    }

    #[test]
    fn nothing_happens_to_a_job_that_is_over() {
        for state in [State::Completed, State::Errored] {
            assert!(state.next(Event::Claimed).is_err());
            for end in RunEnd::ALL {
                assert!(state.next(Event::Ended(end)).is_err());
            }
        }
    }
}
