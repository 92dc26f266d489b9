//! What is on its way between processes and the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use job_engine::JobType;
use job_tokio::Wake;
use tokio::sync::Notify;

use super::call::{Ask, Done};
use super::state::{State, World};
use crate::event::{Call, Event, Who};
use crate::scenario::type_place;

/// All messages, by when they arrive; those of one time in the order in which
/// they were sent.
pub(super) struct Wire {
    messages: BTreeMap<(u64, u64), Message>,
    count: u64,
    /// Until when the wire waits.
    waits_until_us: u64,
    sooner: Arc<Notify>,
}

/// Something on its way.
pub(super) enum Message {
    Request(Request),
    Reply(Call, Done),
    Wake(Who, JobType),
}

/// A call of the store on its way there.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) call: Call,
    pub(super) ask: Ask,
}

impl Wire {
    pub(super) fn new(sooner: Arc<Notify>) -> Self {
        Self {
            messages: BTreeMap::new(),
            count: 0,
            waits_until_us: u64::MAX,
            sooner,
        }
    }

    pub(super) fn send(&mut self, arrives_us: u64, message: Message) {
        self.count += 1;
        self.messages.insert((arrives_us, self.count), message);
        if arrives_us < self.waits_until_us {
            self.waits_until_us = arrives_us;
            self.sooner.notify_one();
        }
    }

    fn take_due(&mut self, now_us: u64) -> Option<Message> {
        let first = self.messages.first_entry()?;
        (first.key().0 <= now_us).then(|| first.remove())
    }

    fn wait(&mut self) -> Option<u64> {
        let first = self.messages.first_key_value();
        let next_us = first.map(|((at_us, _), _)| *at_us);
        self.waits_until_us = next_us.unwrap_or(u64::MAX);
        next_us
    }
}

/// Lets messages arrive, for ever.
pub(super) async fn carry(world: World) {
    loop {
        let next_us = {
            let mut state = world.state();
            let now_us = state.now_us;
            while let Some(message) = state.wire.take_due(now_us) {
                state.arrives(message);
            }
            state.wire.wait()
        };
        match next_us {
            Some(at_us) => tokio::select! {
                biased;
                () = world.sleep_until(at_us) => {}
                () = world.sooner() => {}
            },
            None => world.sooner().await,
        }
    }
}

impl State {
    fn arrives(&mut self, message: Message) {
        match message {
            Message::Request(request) => self.requested(request),
            Message::Reply(call, done) => {
                let waiter = self.waiters.remove(&call).filter(|_| self.is_up(call.who));
                let unheard = match waiter {
                    Some(waiter) => waiter.send(done).is_err(),
                    None => true,
                };
                if unheard {
                    self.observe(&Event::Unheard { call });
                }
            }
            Message::Wake(who, job_type) => {
                let up = self.up.get(&who.worker).filter(|_| self.is_up(who));
                let wakes = up.and_then(|up| up.wakes.as_ref());
                let place = type_place(&job_type);
                let sent = wakes.map(|wakes| wakes.try_send(Wake::JobType(job_type)));
                if let Some(Ok(())) = sent {
                    self.observe(&Event::Woken {
                        who,
                        job_type: place,
                    });
                }
            }
        }
    }
}
