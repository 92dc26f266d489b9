//! What is on its way between processes and the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use job_engine::JobType;
use job_tokio::Wake;
use tokio::sync::Notify;

use super::call::{Ask, Changes, Done};
use super::state::{State, World};
use crate::event::{Call, Event, Who};

/// All messages, by when they arrive; those of one time in the order in which
/// they were sent.
pub(crate) struct Wire {
    messages: BTreeMap<(u64, u64), Message>,
    count: u64,
    /// Until when the wire waits.
    waits_until_us: u64,
    sooner: Arc<Notify>,
}

/// Something on its way.
pub(crate) enum Message {
    Request(Request),
    Reply(Call, Done),
    Wake(Who, JobType),
    /// A call of another service on its way there.
    ForService(Work),
    /// Its reply on the way back.
    FromService(Call, Deliver),
}

/// What another service is to do.
pub(crate) struct Work {
    pub(crate) call: Call,
    /// Its name, for people.
    pub(crate) name: String,
    /// Does it, and hands over the reply.
    pub(crate) perform: Box<dyn FnOnce() -> Deliver + Send>,
}

/// Delivers a reply.
pub(crate) type Deliver = Box<dyn FnOnce() + Send>;

/// A call of the store on its way there.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) call: Call,
    pub(crate) ask: Ask,
}

impl Wire {
    pub(crate) fn new(sooner: Arc<Notify>) -> Self {
        Self {
            messages: BTreeMap::new(),
            count: 0,
            waits_until_us: u64::MAX,
            sooner,
        }
    }

    pub(crate) fn send(&mut self, arrives_us: u64, message: Message) {
        self.count += 1;
        self.messages.insert((arrives_us, self.count), message);
        if arrives_us < self.waits_until_us {
            self.waits_until_us = arrives_us;
            self.sooner.notify_one();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Takes everything out.
    pub(crate) fn clear(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.messages).into_values().collect()
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
pub(crate) async fn carry(world: World) {
    loop {
        while let Some(message) = world.next_message() {
            world.arrives(message);
        }
        let next_us = world.state().wire.wait();
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

impl World {
    /// The next message that arrives by now.
    fn next_message(&self) -> Option<Message> {
        let mut state = self.state();
        let now_us = state.now_us;
        state.wire.take_due(now_us)
    }

    /// What an application does in it is done with nothing of the world held: it may
    /// call back.
    fn arrives(&self, message: Message) {
        match message {
            Message::ForService(work) => self.serves(work),
            Message::FromService(call, deliver) => {
                if self.state().is_up(call.who) {
                    deliver();
                }
            }
            message => {
                let (committed, released) = self.state().arrives(message);
                committed.into_iter().for_each(Changes::make);
                drop(released);
            }
        }
    }

    fn serves(&self, work: Work) {
        let Work {
            call,
            name,
            perform,
        } = work;
        self.note(None, format!("{name}, for {}", call.who));
        let mut reply = Some(Message::FromService(call, perform()));
        let mut state = self.state();
        let now_us = state.now_us;
        let answer = state.network.answer(call, now_us);
        if let Some(travels_us) = answer.travels_us
            && let Some(reply) = reply.take()
        {
            state.wire.send(now_us + travels_us, reply);
        }
        // What is lost is dropped when nothing is held any more.
        drop(state);
        drop(reply);
    }
}

impl State {
    /// Returns what was committed with it, and what is to be dropped.
    fn arrives(&mut self, message: Message) -> (Vec<Changes>, Vec<Changes>) {
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
                let sent = wakes.map(|wakes| wakes.try_send(Wake::JobType(job_type.clone())));
                if let Some(Ok(())) = sent {
                    let job_type = &job_type;
                    self.observe(&Event::Woken { who, job_type });
                }
            }
            Message::ForService(_) | Message::FromService(..) => {}
        }
        (
            std::mem::take(&mut self.committed),
            std::mem::take(&mut self.released),
        )
    }
}
