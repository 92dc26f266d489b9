//! What a worker is up to while events go by.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::trace::{Entry, Kind};

/// The state of the process of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// There is none.
    #[default]
    Down,
    /// It works.
    Up,
    /// It stands still.
    Paused,
    /// It has been asked to shut down, and waits for its runs.
    Draining,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Process {
    pub(super) state: State,
    /// The runs that its runners work at.
    pub(super) at_work: BTreeSet<(u32, i64)>,
    draining: bool,
}

impl Process {
    /// Takes in what this worker does, or what is done to it.
    pub(super) fn take_in(&mut self, entry: &Entry) {
        let up = if self.draining {
            State::Draining
        } else {
            State::Up
        };
        match entry.kind {
            Kind::Up => {
                *self = Self {
                    state: State::Up,
                    ..Self::default()
                }
            }
            Kind::Crashed | Kind::Stopped => *self = Self::default(),
            Kind::Paused => self.state = State::Paused,
            Kind::Resumed => self.state = up,
            Kind::ShutdownAsked => {
                self.draining = true;
                if self.state != State::Paused {
                    self.state = State::Draining;
                }
            }
            Kind::Started => self.at_work.extend(entry.run),
            Kind::Ended => {
                if let Some(run) = &entry.run {
                    self.at_work.remove(run);
                }
            }
            Kind::Configured
            | Kind::Disturbed
            | Kind::Sent
            | Kind::Applied
            | Kind::Answered
            | Kind::Failed
            | Kind::Unheard
            | Kind::Told
            | Kind::Aborted
            | Kind::Kept
            | Kind::Committing
            | Kind::Committed
            | Kind::Woken
            | Kind::Listening
            | Kind::Spawning
            | Kind::Spawned
            | Kind::Noted
            | Kind::Logged
            | Kind::Fault
            | Kind::Calm => {}
        }
    }
}
