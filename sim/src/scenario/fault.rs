//! What can go wrong, as data.

use serde::{Deserialize, Serialize};

use super::Knobs;

/// What goes wrong. Workers are named by their keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "fault", deny_unknown_fields)]
pub enum Fault {
    /// The process is gone at once. `back_ms` after that it starts anew, if at
    /// all before the calm.
    Crash {
        /// Whose.
        worker: u32,
        /// When.
        at_ms: u64,
        /// The pause before it starts again.
        back_ms: Option<u64>,
    },
    /// The process is gone when it comes to a fault point for the n-th time.
    CrashAt {
        /// Whose.
        worker: u32,
        /// Which; one of [`job_tokio::fault::POINTS`].
        point: String,
        /// From 1, over all incarnations.
        nth: u32,
        /// The pause before it starts again.
        back_ms: u64,
    },
    /// The process stands still and goes on later, unaware.
    Pause {
        /// Whose.
        worker: u32,
        /// When.
        at_ms: u64,
        /// How long.
        for_ms: u64,
    },
    /// Everything that the process does is late: timers and replies.
    Lag {
        /// Whose.
        worker: u32,
        /// When.
        at_ms: u64,
        /// How long.
        for_ms: u64,
        /// By how much.
        lag_ms: u64,
    },
    /// Messages between a worker (or all) and the store suffer.
    Net {
        /// Whose; all if none.
        worker: Option<u32>,
        /// When.
        at_ms: u64,
        /// How long.
        for_ms: u64,
        /// How often a request is lost.
        lose_request_pct: u8,
        /// How often a reply is lost after its command was carried out.
        lose_reply_pct: u8,
        /// How often a request arrives a second time, later.
        duplicate_pct: u8,
        /// How often a message is delayed.
        delay_pct: u8,
        /// By how much at most.
        delay_ms: u64,
    },
    /// Messages do not arrive.
    Partition {
        /// Whose.
        worker: u32,
        /// When.
        at_ms: u64,
        /// How long.
        for_ms: u64,
        /// In which direction.
        direction: Direction,
        /// Whether they arrive when it is over, instead of being lost.
        hold: bool,
    },
    /// One message suffers: what shrinking makes of the others.
    Message {
        /// Whose.
        worker: u32,
        /// Of which start of the process, from 1.
        incarnation: u32,
        /// Which command of that process.
        op: u64,
        /// How.
        effect: MessageEffect,
    },
    /// The store suffers.
    Store {
        /// When.
        at_ms: u64,
        /// How long.
        for_ms: u64,
        /// How.
        trouble: StoreTrouble,
    },
    /// The store stops and starts: whatever is under way has an unknown outcome.
    StoreRestart {
        /// When.
        at_ms: u64,
        /// How long it is away.
        for_ms: u64,
    },
    /// The clock of a worker is set.
    ClockJump {
        /// Whose.
        worker: u32,
        /// When.
        at_ms: u64,
        /// Forward, or back.
        by_ms: i64,
    },
    /// The clock of the store is set.
    StoreClockJump {
        /// When.
        at_ms: u64,
        /// Forward, or back.
        by_ms: i64,
    },
    /// Announcements do not arrive at a worker.
    Deaf {
        /// Whose.
        worker: u32,
        /// When.
        at_ms: u64,
        /// How long.
        for_ms: u64,
        /// The worker does not notice.
        silent: bool,
    },
    /// Announcements are lost, or arrive twice.
    Announcements {
        /// When.
        at_ms: u64,
        /// How long.
        for_ms: u64,
        /// How often one is lost.
        lose_pct: u8,
        /// How often one arrives twice.
        double_pct: u8,
    },
    /// The worker is asked to shut down, and started again: a deploy.
    Restart {
        /// Whose.
        worker: u32,
        /// When.
        at_ms: u64,
        /// The pause before it starts again; `None` for never.
        back_ms: Option<u64>,
        /// How it is configured then, if otherwise.
        knobs: Option<Knobs>,
    },
}

/// Which messages do not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// None.
    Both,
    /// No request.
    ToStore,
    /// No reply.
    FromStore,
}

/// What happens to one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageEffect {
    /// The request does not arrive.
    LoseRequest,
    /// The reply does not.
    LoseReply,
    /// The request arrives so much later.
    DelayRequestMs(u64),
    /// The reply does.
    DelayReplyMs(u64),
    /// The request arrives again so much later.
    DuplicateMs(u64),
    /// The store says that nothing changed, and nothing did.
    Fail,
    /// The store refuses what is in it.
    Refuse,
    /// The store says that it does not know, and carried it out.
    UnknownDone,
    /// The store says that it does not know, and did not.
    UnknownUndone,
}

/// How the store suffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreTrouble {
    /// It says at once that it failed.
    Refuses,
    /// It does not answer.
    Hangs,
    /// It takes so much longer.
    SlowMs(u64),
    /// It fails in so many of a hundred cases, half of them with an unknown
    /// outcome.
    ErrorsPct(u8),
    /// It refuses what is in so many of a hundred commands.
    RejectsPct(u8),
}

impl Fault {
    /// The worker that it is about, if it is about one.
    pub fn worker(&self) -> Option<u32> {
        match self {
            Fault::Crash { worker, .. }
            | Fault::CrashAt { worker, .. }
            | Fault::Pause { worker, .. }
            | Fault::Lag { worker, .. }
            | Fault::Partition { worker, .. }
            | Fault::Message { worker, .. }
            | Fault::ClockJump { worker, .. }
            | Fault::Deaf { worker, .. }
            | Fault::Restart { worker, .. } => Some(*worker),
            Fault::Net { worker, .. } => *worker,
            Fault::Store { .. }
            | Fault::StoreRestart { .. }
            | Fault::StoreClockJump { .. }
            | Fault::Announcements { .. } => None,
        }
    }

    /// From when to when it acts, if that is a matter of time.
    pub fn span_ms(&self) -> Option<(u64, u64)> {
        match self {
            Fault::Pause { at_ms, for_ms, .. }
            | Fault::Lag { at_ms, for_ms, .. }
            | Fault::Net { at_ms, for_ms, .. }
            | Fault::Partition { at_ms, for_ms, .. }
            | Fault::Store { at_ms, for_ms, .. }
            | Fault::StoreRestart { at_ms, for_ms }
            | Fault::Deaf { at_ms, for_ms, .. }
            | Fault::Announcements { at_ms, for_ms, .. } => {
                Some((*at_ms, at_ms.saturating_add(*for_ms)))
            }
            Fault::Crash { at_ms, .. }
            | Fault::ClockJump { at_ms, .. }
            | Fault::StoreClockJump { at_ms, .. }
            | Fault::Restart { at_ms, .. } => Some((*at_ms, *at_ms)),
            Fault::CrashAt { .. } | Fault::Message { .. } => None,
        }
    }
}
