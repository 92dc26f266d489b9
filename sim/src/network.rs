//! What becomes of messages between processes and the store.

use std::collections::BTreeMap;

use crate::event::{Call, Who};
use crate::scenario::{Direction, Draws, Fault, MessageEffect, Scenario, StoreTrouble, Topic};

/// Decides the fate of every message, from the faults of a scenario.
///
/// It is a function of the time, the call and the seed: at every level of the
/// simulation the same call at the same time suffers the same.
#[derive(Clone, Debug)]
pub struct Network {
    draws: Draws,
    latency_us: (u64, u64),
    calm_from_us: u64,
    windows: Vec<Window>,
    /// The windows that are open until `changes_at`, by place.
    open: Vec<usize>,
    changes_at: u64,
    messages: BTreeMap<Call, Vec<MessageEffect>>,
    /// What befell single messages, for whoever wants to say it so.
    befell: Option<Vec<Fault>>,
    /// Nothing befalls the messages of whoever is outside.
    spares_outside: bool,
}

#[derive(Clone, Debug)]
struct Window {
    from_us: u64,
    to_us: u64,
    fault: Fault,
}

impl Window {
    /// How long it stays open, in milliseconds, rounded up.
    fn left_ms(&self, now_us: u64) -> u64 {
        (self.to_us - now_us).div_ceil(1_000)
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// How long it travels, in microseconds; `None` if it is lost.
    pub travels_us: Option<u64>,
    /// How long a copy of it travels, if there is one.
    pub copy_us: Option<u64>,
    /// Whether this is out of the ordinary.
    pub disturbed: bool,
}

/// What the store does with a request that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Carries it out, and answers.
    Served,
    /// Does not carry it out, and says so.
    Failed,
    /// Carries it out, and says that it does not know.
    UnknownDone,
    /// Does not carry it out, and says that it does not know.
    UnknownUndone,
    /// Refuses what is in it, now and later.
    Refused,
    /// Neither carries it out nor answers.
    Ignored,
}

/// What becomes of a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// How long it travels, in microseconds; `None` if it is lost.
    pub travels_us: Option<u64>,
    /// Whether this is out of the ordinary.
    pub disturbed: bool,
}

impl Network {
    /// The network of a scenario.
    pub fn new(scenario: &Scenario) -> Self {
        let calm_from_us = scenario.calm_from_ms * 1_000;
        let mut windows = Vec::new();
        let mut messages: BTreeMap<Call, Vec<MessageEffect>> = BTreeMap::new();
        for fault in &scenario.faults {
            match fault {
                Fault::Message {
                    worker,
                    incarnation,
                    op,
                    effect,
                } => {
                    let who = Who {
                        worker: *worker,
                        incarnation: *incarnation,
                    };
                    let call = Call { who, op: *op };
                    messages.entry(call).or_default().push(*effect);
                }
                Fault::Net { at_ms, for_ms, .. }
                | Fault::Partition { at_ms, for_ms, .. }
                | Fault::Store { at_ms, for_ms, .. }
                | Fault::StoreRestart { at_ms, for_ms }
                | Fault::Deaf { at_ms, for_ms, .. }
                | Fault::Announcements { at_ms, for_ms, .. } => windows.push(Window {
                    from_us: at_ms * 1_000,
                    to_us: (at_ms.saturating_add(*for_ms) * 1_000).min(calm_from_us),
                    fault: fault.clone(),
                }),
                Fault::Crash { .. }
                | Fault::CrashAt { .. }
                | Fault::Pause { .. }
                | Fault::Lag { .. }
                | Fault::ClockJump { .. }
                | Fault::StoreClockJump { .. }
                | Fault::Restart { .. } => {}
            }
        }
        Self {
            draws: scenario.draws(),
            latency_us: scenario.latency_us,
            calm_from_us,
            windows,
            open: Vec::new(),
            changes_at: 0,
            messages,
            befell: None,
            spares_outside: false,
        }
    }

    /// Also notes what befell single messages, as faults that do the same.
    pub fn noting(mut self) -> Self {
        self.befell = Some(Vec::new());
        self
    }

    /// Lets nothing befall the messages of whoever is outside of all workers.
    pub fn sparing_outside(mut self) -> Self {
        self.spares_outside = true;
        self
    }

    fn spares(&self, call: Call, now_us: u64) -> bool {
        now_us >= self.calm_from_us || self.spares_outside && call.who == Who::OUTSIDE
    }

    /// What was noted.
    pub fn take_befell(&mut self) -> Vec<Fault> {
        self.befell.take().unwrap_or_default()
    }

    /// What becomes of a request that is sent at `now_us`.
    pub fn request(&mut self, call: Call, now_us: u64) -> Request {
        let mut request = Request {
            travels_us: Some(self.latency(Topic::RequestLatency, call)),
            copy_us: None,
            disturbed: false,
        };
        if self.spares(call, now_us) {
            return request;
        }
        self.look(now_us);
        let mut effects = Vec::new();
        let key = key(call);
        for place in &self.open {
            match &self.windows[*place].fault {
                Fault::Net {
                    worker,
                    lose_request_pct,
                    duplicate_pct,
                    delay_pct,
                    delay_ms,
                    ..
                } if worker.is_none_or(|worker| worker == call.who.worker) => {
                    if self
                        .draws
                        .happens(Topic::LoseRequest, key, *lose_request_pct)
                    {
                        effects.push(MessageEffect::LoseRequest);
                    }
                    if self.draws.happens(Topic::Duplicate, key, *duplicate_pct) {
                        effects.push(MessageEffect::DuplicateMs(self.delay(key, *delay_ms)));
                    }
                    if self.draws.happens(Topic::Delay, key, *delay_pct) {
                        effects.push(MessageEffect::DelayRequestMs(self.delay(key, *delay_ms)));
                    }
                }
                Fault::Partition {
                    worker,
                    direction: Direction::Both | Direction::ToStore,
                    hold,
                    ..
                } if *worker == call.who.worker => {
                    effects.push(if *hold {
                        MessageEffect::DelayRequestMs(self.windows[*place].left_ms(now_us))
                    } else {
                        MessageEffect::LoseRequest
                    });
                }
                _ => {}
            }
        }
        self.befalls(call, &mut effects);
        for effect in effects {
            match effect {
                MessageEffect::LoseRequest => request.travels_us = None,
                MessageEffect::DelayRequestMs(ms) => {
                    request.travels_us = request.travels_us.map(|us| us + ms * 1_000);
                }
                MessageEffect::DuplicateMs(ms) => {
                    request.copy_us = Some(self.latency(Topic::RequestLatency, call) + ms * 1_000);
                }
                _ => continue,
            }
            request.disturbed = true;
        }
        // Nothing of a fault is left behind in the calm.
        let latest = self.calm_from_us.saturating_sub(now_us) + self.latency_us.1;
        request.travels_us = request.travels_us.map(|us| us.min(latest));
        request.copy_us = request.copy_us.map(|us| us.min(latest + 1));
        request
    }

    /// What the store does with a request that arrives at `now_us`.
    pub fn fate(&mut self, call: Call, now_us: u64) -> Fate {
        if self.spares(call, now_us) {
            return Fate::Served;
        }
        self.look(now_us);
        let key = key(call);
        let mut fate = Fate::Served;
        let mut effects = Vec::new();
        for place in &self.open {
            match &self.windows[*place].fault {
                Fault::StoreRestart { .. } => fate = Fate::Ignored,
                Fault::Store { trouble, .. } => match trouble {
                    StoreTrouble::Refuses => effects.push(MessageEffect::Fail),
                    StoreTrouble::Hangs => fate = Fate::Ignored,
                    StoreTrouble::SlowMs(_) => {}
                    StoreTrouble::RejectsPct(pct) => {
                        if self.draws.happens(Topic::StoreError, key, *pct) {
                            effects.push(MessageEffect::Refuse);
                        }
                    }
                    StoreTrouble::ErrorsPct(pct) => {
                        if self.draws.happens(Topic::StoreError, key, *pct) {
                            let kind = self.draws.draw(Topic::StoreError, key) >> 32;
                            effects.push(match kind % 8 {
                                0 | 1 => MessageEffect::UnknownDone,
                                2 | 3 => MessageEffect::UnknownUndone,
                                _ => MessageEffect::Fail,
                            });
                        }
                    }
                },
                _ => {}
            }
        }
        if fate == Fate::Ignored {
            effects.push(MessageEffect::LoseRequest);
        }
        self.befalls(call, &mut effects);
        for effect in effects {
            match effect {
                MessageEffect::Fail => fate = Fate::Failed,
                MessageEffect::UnknownDone => fate = Fate::UnknownDone,
                MessageEffect::UnknownUndone => fate = Fate::UnknownUndone,
                MessageEffect::Refuse => fate = Fate::Refused,
                _ => {}
            }
        }
        fate
    }

    /// What becomes of a reply that is sent at `now_us`.
    pub fn answer(&mut self, call: Call, now_us: u64) -> Answer {
        let mut answer = Answer {
            travels_us: Some(self.latency(Topic::ReplyLatency, call)),
            disturbed: false,
        };
        if self.spares(call, now_us) {
            return answer;
        }
        self.look(now_us);
        let mut effects = Vec::new();
        let key = key(call);
        for place in &self.open {
            match &self.windows[*place].fault {
                Fault::Net {
                    worker,
                    lose_reply_pct,
                    delay_pct,
                    delay_ms,
                    ..
                } if worker.is_none_or(|worker| worker == call.who.worker) => {
                    if self.draws.happens(Topic::LoseReply, key, *lose_reply_pct) {
                        effects.push(MessageEffect::LoseReply);
                    }
                    let again = [key[0], key[1], !key[2]];
                    if self.draws.happens(Topic::Delay, again, *delay_pct) {
                        effects.push(MessageEffect::DelayReplyMs(self.delay(again, *delay_ms)));
                    }
                }
                Fault::Partition {
                    worker,
                    direction: Direction::Both | Direction::FromStore,
                    hold,
                    ..
                } if *worker == call.who.worker => {
                    effects.push(if *hold {
                        MessageEffect::DelayReplyMs(self.windows[*place].left_ms(now_us))
                    } else {
                        MessageEffect::LoseReply
                    });
                }
                Fault::Store {
                    trouble: StoreTrouble::SlowMs(ms),
                    ..
                } if !call.is_of_service() => effects.push(MessageEffect::DelayReplyMs(*ms)),
                _ => {}
            }
        }
        self.befalls(call, &mut effects);
        for effect in effects {
            match effect {
                MessageEffect::LoseReply => answer.travels_us = None,
                MessageEffect::DelayReplyMs(ms) => {
                    answer.travels_us = answer.travels_us.map(|us| us + ms * 1_000);
                }
                _ => continue,
            }
            answer.disturbed = true;
        }
        let latest = self.calm_from_us.saturating_sub(now_us) + self.latency_us.1;
        answer.travels_us = answer.travels_us.map(|us| us.min(latest));
        answer
    }

    /// When copies of an announcement of a type arrive at `to` that is sent at
    /// `now_us` as the `n`-th: none, one or two travel times, in microseconds.
    pub fn announcement(
        &mut self,
        to: Who,
        job_type: u32,
        n: u64,
        now_us: u64,
    ) -> [Option<u64>; 2] {
        let key = [u64::from(to.worker), u64::from(job_type), n];
        let travels = self.draws.within(Topic::Announce, key, self.latency_us);
        let mut copies = [Some(travels), None];
        if now_us >= self.calm_from_us {
            return copies;
        }
        self.look(now_us);
        for place in &self.open {
            match &self.windows[*place].fault {
                Fault::Announcements {
                    lose_pct,
                    double_pct,
                    ..
                } => {
                    if self.draws.happens(Topic::LoseAnnouncement, key, *lose_pct) {
                        copies[0] = None;
                    }
                    if self
                        .draws
                        .happens(Topic::DoubleAnnouncement, key, *double_pct)
                    {
                        copies[1] = Some(travels * 2);
                    }
                }
                Fault::Deaf { worker, .. } if *worker == to.worker => return [None, None],
                Fault::Partition {
                    worker,
                    direction: Direction::Both | Direction::FromStore,
                    ..
                } if *worker == to.worker => return [None, None],
                _ => {}
            }
        }
        copies
    }

    /// Whether a worker could listen at `now_us`.
    pub fn hears(&mut self, worker: u32, now_us: u64) -> bool {
        self.look(now_us);
        !self
            .open
            .iter()
            .any(|place| match &self.windows[*place].fault {
                Fault::Deaf { worker: deaf, .. } => *deaf == worker,
                Fault::Partition { worker: cut, .. } => *cut == worker,
                Fault::StoreRestart { .. } => true,
                _ => false,
            })
    }

    fn latency(&self, topic: Topic, call: Call) -> u64 {
        self.draws.within(topic, key(call), self.latency_us)
    }

    fn delay(&self, key: [u64; 3], max_ms: u64) -> u64 {
        let key = [key[0] ^ 0x5555, key[1], key[2]];
        self.draws.within(Topic::Delay, key, (1, max_ms.max(1)))
    }

    /// Notes what befalls a message, and adds what is planned for it alone.
    fn befalls(&mut self, call: Call, effects: &mut Vec<MessageEffect>) {
        if let Some(befell) = &mut self.befell {
            befell.extend(effects.iter().map(|effect| Fault::Message {
                worker: call.who.worker,
                incarnation: call.who.incarnation,
                op: call.op,
                effect: *effect,
            }));
        }
        effects.extend(self.messages.get(&call).into_iter().flatten());
    }

    /// Sees to it that `open` is right for `now_us`, which never goes back.
    fn look(&mut self, now_us: u64) {
        if now_us < self.changes_at {
            return;
        }
        let windows = self.windows.iter().enumerate();
        self.open.clear();
        self.changes_at = u64::MAX;
        for (place, window) in windows {
            if now_us < window.from_us {
                self.changes_at = self.changes_at.min(window.from_us);
            } else if now_us < window.to_us {
                self.changes_at = self.changes_at.min(window.to_us);
                self.open.push(place);
            }
        }
    }
}

fn key(call: Call) -> [u64; 3] {
    [
        u64::from(call.who.worker),
        u64::from(call.who.incarnation),
        call.op,
    ]
}
