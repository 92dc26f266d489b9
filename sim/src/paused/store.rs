//! The store: carries out what arrives, and answers.

use std::collections::{BTreeMap, BTreeSet};

use job_engine::model::Entry;
use job_engine::store::{Spawned, Written};
use job_engine::{Command, JobId, JobType, Rejection, Reply, Run, StoreError};

use super::call::{Ask, Done};
use super::state::State;
use super::wire::{Message, Request};
use crate::check::Violation;
use crate::event::{Call, Disturbance, Event, Who};
use crate::network::Fate;
use crate::scenario::{long_reply_us, type_place};

impl State {
    /// A request arrives.
    pub(super) fn requested(&mut self, request: Request) {
        if let Ask::Commit { changes, .. } = &request.ask {
            // They are dropped where nothing is held, whatever becomes of them.
            self.released.push(changes.clone());
        }
        if self.is_blocked(&request.ask) {
            self.blocked.push(request);
            return;
        }
        let Request { call, ask } = request;
        let now_us = self.now_us;
        let fate = self.network.fate(call, now_us);
        if fate != Fate::Served {
            self.disturb(Some(call.who), now_us, Disturbance::Store);
        }
        let done = match fate {
            Fate::Served => self.carry_out(call, ask),
            Fate::UnknownDone => self.carry_out(call, ask).and_then(|_| Err(broken())),
            Fate::UnknownUndone => Err(broken()),
            Fate::Refused => Err(Rejection::Data("as planned".to_owned()).into()),
            Fate::Failed => Err(StoreError::Failed("it is away".to_owned())),
            Fate::Ignored => return,
        };
        let plan = self.network.answer(call, now_us);
        if plan.disturbed {
            self.disturb(Some(call.who), now_us, Disturbance::Network);
        }
        let reply = done.as_ref().ok().and_then(Option::as_ref);
        let long_us = long_reply_us(self.claimed_job_us, reply);
        if long_us > 0 {
            self.disturb(Some(call.who), now_us + long_us, Disturbance::LongReply);
        }
        if let Some(travels_us) = plan.travels_us.map(|us| us + long_us) {
            self.wire
                .send(now_us + travels_us, Message::Reply(call, done));
        }
    }

    /// Whether a transaction holds a row that this needs. A reclaim passes such
    /// rows over instead, and a heartbeat does not wait for them either.
    fn is_blocked(&self, ask: &Ask) -> bool {
        if self.locks.is_empty() {
            return false;
        }
        match ask {
            Ask::Execute(command) => self.is_held(0, command),
            Ask::Statement {
                transaction,
                command,
                ..
            } => self.is_held(*transaction, command),
            Ask::Commit {
                transaction,
                writes,
                ..
            } => {
                let mut writes = writes.iter();
                writes.any(|(_, command)| self.is_held(*transaction, command))
            }
            Ask::Announce(_) => false,
        }
    }

    fn is_held(&self, by_other_than: u64, command: &Command) -> bool {
        if matches!(command, Command::Heartbeat(_)) {
            return false;
        }
        let held = |job: &JobId| {
            let holder = self.locks.get(job);
            holder.is_some_and(|holder| *holder != by_other_than)
        };
        jobs_of(command).iter().any(held)
    }

    /// A transaction is over: whoever waited for its rows goes on.
    pub(super) fn unlock(&mut self, transaction: u64) {
        self.holders.remove(&transaction);
        self.locks.retain(|_, holder| *holder != transaction);
        for request in std::mem::take(&mut self.blocked) {
            self.wire.send(self.now_us, Message::Request(request));
        }
    }

    fn carry_out(&mut self, call: Call, ask: Ask) -> Done {
        if let Ask::Statement { transaction, .. } | Ask::Commit { transaction, .. } = &ask
            && *transaction <= self.transactions_ended
            && call.who != Who::OUTSIDE
        {
            let text = "the store was restarted, and the transaction ended with that";
            return Err(StoreError::Failed(text.to_owned()));
        }
        match ask {
            Ask::Execute(command) => self.execute(call, &command).map(Some),
            Ask::Statement {
                transaction,
                before,
                command,
            } => {
                let reply = self.statement(call, transaction, &before, &command);
                reply.map(Some)
            }
            Ask::Commit {
                transaction,
                run,
                writes,
                changes,
            } => {
                let committed = self.commit(call, run, &writes);
                if committed.is_ok() {
                    self.committed.push(changes);
                }
                self.unlock(transaction);
                committed.map(|()| None)
            }
            Ask::Announce(types) => {
                for job_type in &types {
                    self.announce(call.who, job_type);
                }
                Ok(None)
            }
        }
    }

    fn execute(&mut self, call: Call, command: &Command) -> Result<Reply, StoreError> {
        let store_now = self.store_now();
        let hidden = match command {
            Command::Reclaim(_) => self.hide(),
            _ => BTreeMap::new(),
        };
        let applied = self.model.apply(store_now, command);
        self.put_back(hidden);
        match applied {
            Ok(reply) => {
                self.observe(&Event::Applied {
                    call,
                    command,
                    reply: &reply,
                });
                Ok(reply)
            }
            Err(rejection) => Err(self.refused(call, command, rejection)),
        }
    }

    fn refused(&mut self, call: Call, command: &Command, rejection: Rejection) -> StoreError {
        let text = format!(
            "{} sent {command:?}, which is refused: {rejection}",
            call.who
        );
        // An application may ask for what is refused.
        if !self.of_application {
            self.violated(Violation::new("store.rejected", text).of(call.who));
        }
        StoreError::Rejected(rejection)
    }

    /// Takes the rows out that transactions hold.
    fn hide(&mut self) -> BTreeMap<JobId, Option<Entry>> {
        let held = self.locks.keys();
        let hidden = held.map(|job| (*job, self.model.save(*job)));
        let hidden: BTreeMap<_, _> = hidden.collect();
        for job in hidden.keys() {
            self.model.restore(*job, None);
        }
        hidden
    }

    fn put_back(&mut self, hidden: BTreeMap<JobId, Option<Entry>>) {
        for (job, entry) in hidden {
            self.model.restore(job, entry);
        }
    }

    /// Says what a command would do after those that the transaction has, and holds the
    /// row of a run that it ends.
    fn statement(
        &mut self,
        call: Call,
        transaction: u64,
        before: &[Command],
        command: &Command,
    ) -> Result<Reply, StoreError> {
        let replies = self.try_out(before.iter().chain([command]));
        let reply = replies.and_then(|mut replies| replies.pop().ok_or_else(nothing));
        let reply = reply.map_err(|rejection| self.refused(call, command, rejection))?;
        if !takes_effect(&reply) {
            self.observe(&Event::Applied {
                call,
                command,
                reply: &reply,
            });
            return Ok(reply);
        }
        if !self.waiters.contains_key(&call) {
            return Ok(reply);
        }
        if let Command::Hold(run) = command {
            self.locks.insert(run.job, transaction);
            self.holders.insert(transaction, call.who);
            let (who, run) = (call.who, *run);
            self.observe(&Event::Committing { who, run });
        }
        if let Command::Finish(finishes) = command {
            for finish in finishes {
                let run = finish.run;
                self.locks.insert(run.job, transaction);
                self.holders.insert(transaction, call.who);
                self.observe(&Event::Committing { who: call.who, run });
            }
        }
        Ok(reply)
    }

    /// Writes all that a transaction has to write, or nothing. A run of which
    /// it holds no row any more may have become stale.
    fn commit(
        &mut self,
        call: Call,
        run: Option<Run>,
        writes: &[(Call, Command)],
    ) -> Result<(), StoreError> {
        let commands = writes.iter().map(|(_, command)| command);
        let replies = self.try_out(commands).unwrap_or_default();
        if replies.len() < writes.len() || !replies.iter().all(takes_effect) {
            return Err(StoreError::Failed("the transaction was ended".to_owned()));
        }
        for (call, command) in writes {
            self.execute(*call, command)?;
        }
        if let Some(run) = run {
            self.observe(&Event::Committed { who: call.who, run });
        }
        Ok(())
    }

    /// What these commands would be answered one after the other.
    fn try_out<'a>(
        &mut self,
        commands: impl Iterator<Item = &'a Command>,
    ) -> Result<Vec<Reply>, Rejection> {
        let store_now = self.store_now();
        let mut before = BTreeMap::new();
        let model = &mut self.model;
        let replies = commands.map(|command| {
            for job in jobs_of(command) {
                before.entry(job).or_insert_with(|| model.save(job));
            }
            model.apply(store_now, command)
        });
        let replies = replies.collect();
        self.put_back(before);
        replies
    }

    fn announce(&mut self, from: Who, job_type: &JobType) {
        self.announcements += 1;
        let (n, now_us, place) = (self.announcements, self.now_us, type_place(job_type));
        for (worker, up) in &self.up {
            let to = Who {
                worker: *worker,
                incarnation: up.incarnation,
            };
            if to == from || up.wakes.is_none() {
                continue;
            }
            let copies = self.network.announcement(to, place, n, now_us);
            for travels_us in copies.into_iter().flatten() {
                let message = Message::Wake(to, job_type.clone());
                self.wire.send(now_us + travels_us, message);
            }
        }
    }
}

/// Whether a command of a transaction changes, or has changed, what it is about.
pub(super) fn takes_effect(reply: &Reply) -> bool {
    match reply {
        Reply::Finished(written) => written.iter().all(|w| *w == Written::Applied),
        Reply::Checkpointed(written) | Reply::Held(written) => *written == Written::Applied,
        Reply::Spawned(spawned) => spawned.iter().all(|s| *s == Spawned::Created),
        _ => true,
    }
}

/// The jobs whose rows a command writes.
fn jobs_of(command: &Command) -> BTreeSet<JobId> {
    match command {
        Command::Spawn(jobs) => jobs.iter().map(|job| job.id).collect(),
        Command::Finish(finishes) => finishes.iter().map(|f| f.run.job).collect(),
        Command::Heartbeat(heartbeat) => heartbeat.runs.iter().map(|run| run.job).collect(),
        Command::Checkpoint(checkpoint) => [checkpoint.run.job].into(),
        Command::Hold(run) => [run.job].into(),
        Command::Find(_) | Command::History(_) | Command::Claim(_) | Command::Reclaim(_) => {
            BTreeSet::new()
        }
    }
}

fn broken() -> StoreError {
    StoreError::Unknown("the connection broke".to_owned())
}

fn nothing() -> Rejection {
    Rejection::NotInTransaction
}
