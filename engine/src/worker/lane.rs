//! One kind of store command, at most one of it under way.

use std::time::Duration;

use crate::draw::{Entropy, Purpose};
use crate::planted::{Bug, planted};
use crate::retry::jitter;
use crate::store::StoreError;
use crate::time::Timestamp;
use crate::worker::{Observation, OpId};

/// The wait after the first error of a lane; it doubles with each further one.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest wait after an error.
const RETRY_MAX: Duration = Duration::from_secs(15);
/// Jitter of these waits, so that workers do not come back as a herd.
const RETRY_JITTER_PCT: u8 = 25;

/// What the commands of a lane do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneKind {
    /// Take jobs.
    Claim,
    /// Record how runs ended.
    Finish,
    /// Renew leases.
    Heartbeat,
    /// Take back lost jobs.
    Reclaim,
}

/// `work` is what the command is about; it is kept while the command is under
/// way, and after an error until it is tried again.
#[derive(Clone, Debug)]
pub(super) struct Lane<T> {
    kind: LaneKind,
    state: LaneState<T>,
    /// Errors since the last success.
    failures: u32,
    /// Errors ever: no two waits use the same draw.
    errors: u64,
}

#[derive(Clone, Debug)]
enum LaneState<T> {
    Idle,
    InFlight { op: OpId, work: T },
    Waiting { until: Timestamp, work: T },
}

impl<T> Lane<T> {
    pub(super) fn new(kind: LaneKind) -> Self {
        Self {
            kind,
            state: LaneState::Idle,
            failures: 0,
            errors: 0,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, LaneState::Idle)
    }

    /// The lane was idle, or gave its work back; now `op` is under way.
    pub(super) fn start(&mut self, op: OpId, work: T) {
        debug_assert!(self.is_idle(), "one command of a lane at a time");
        self.state = LaneState::InFlight { op, work };
    }

    /// Whether `op` is what is under way here.
    pub(super) fn awaits(&self, op: OpId) -> bool {
        matches!(self.state, LaneState::InFlight { op: current, .. } if current == op)
    }

    /// The reply arrived: the lane is idle.
    pub(super) fn take(&mut self) -> Option<T> {
        match std::mem::replace(&mut self.state, LaneState::Idle) {
            LaneState::Idle => None,
            LaneState::InFlight { work, .. } | LaneState::Waiting { work, .. } => Some(work),
        }
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The command failed with `error`: keep `work` and wait, at most
    /// `wait_max`. Returns what an operator wants to know of it.
    pub(super) fn failed(
        &mut self,
        now: Timestamp,
        work: T,
        error: StoreError,
        wait_max: Duration,
        entropy: &Entropy,
    ) -> Observation {
        self.errors += 1;
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let base = RETRY_MIN.saturating_mul(1 << doublings).min(RETRY_MAX);
        let draw = entropy.draw(Purpose::StoreRetry {
            lane: self.kind as u8,
            n: self.errors,
        });
        let mut wait = jitter(base, RETRY_JITTER_PCT, draw).min(wait_max);
        if planted(Bug::StoreErrorHammers) {
            wait = Duration::from_millis(1);
        }
        let until = now.saturating_add(wait);
        self.state = LaneState::Waiting { until, work };
        Observation::StoreFailed {
            lane: self.kind,
            error,
            failures: self.failures,
            retry_in: wait,
        }
    }

    /// When the wait ends, if the lane waits.
    pub(super) fn waits_until(&self) -> Option<Timestamp> {
        match self.state {
            LaneState::Waiting { until, .. } => Some(until),
            LaneState::Idle | LaneState::InFlight { .. } => None,
        }
    }

    /// The work whose wait is over; the lane is then idle.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Option<T> {
        match self.waits_until() {
            Some(until) if until <= now => self.take(),
            _ => None,
        }
    }
}
