//! Calls of the store: on their way, carried out, answered.

use std::time::Duration;

use job_engine::store::{NewJob, Written};
use job_engine::worker::{Input, OpId};
use job_engine::{Command, Rejection, Reply, StoreError};

use super::process::{Request, Waiting};
use super::{Task, World};
use crate::check::Violation;
use crate::event::{Call, Disturbance, Event};
use crate::network::Fate;
use crate::scenario::long_reply_us;

impl World<'_> {
    pub(super) fn send(
        &mut self,
        process: usize,
        call: Call,
        command: Command,
        children: Vec<NewJob>,
        waiting: Waiting,
        limit: Duration,
    ) {
        let now_us = self.now_us;
        let until_us = now_us + limit.as_micros() as u64;
        self.observe(&Event::Sent {
            call,
            command: &command,
        });
        let plan = self.network.request(call, now_us);
        if plan.disturbed {
            self.disturb(Some(call.who), now_us, Disturbance::Network);
        }
        let transaction = matches!(waiting, Waiting::Commit(..));
        self.processes[process].calls.push((call.op, waiting));
        let request = Box::new(Request {
            process,
            call,
            command,
            children,
            until_us,
        });
        // A transaction cannot be committed twice.
        if let Some(copy_us) = plan.copy_us.filter(|_| !transaction) {
            let copy = Task::Request(request.clone());
            self.queue.push(now_us + copy_us, copy);
        }
        let arrives_us = plan.travels_us.map(|us| now_us + us);
        if arrives_us.is_none_or(|at_us| at_us >= until_us) {
            self.give_up(process, call, until_us);
        }
        if let Some(at_us) = arrives_us {
            self.queue.push(at_us, Task::Request(request));
        }
    }

    fn give_up(&mut self, process: usize, call: Call, at_us: u64) {
        let at_us = self.processes[process].late(at_us.max(self.now_us));
        self.queue.push(at_us, Task::GiveUp(process, call));
    }

    /// A request arrives.
    pub(super) fn request(&mut self, request: Request) {
        let Request {
            process,
            call,
            until_us,
            ..
        } = request;
        let fate = self.network.fate(call, self.now_us);
        let late = self.now_us >= until_us;
        if late || fate != Fate::Served {
            self.disturb(Some(call.who), self.now_us, Disturbance::Store);
        }
        let result = match fate {
            Fate::Served => self.carry_out(&request),
            Fate::UnknownDone => self.carry_out(&request).and_then(|_| Err(unknown())),
            Fate::UnknownUndone => Err(unknown()),
            Fate::Refused => Err(Rejection::Data("as planned".to_owned()).into()),
            Fate::Failed => Err(StoreError::Failed("it is away".to_owned())),
            Fate::Ignored => {
                self.give_up(process, call, until_us);
                return;
            }
        };
        if self.recorder.is_over() {
            return;
        }
        let plan = self.network.answer(call, self.now_us);
        if plan.disturbed {
            self.disturb(Some(call.who), self.now_us, Disturbance::Network);
        }
        let claimed_job_us = self.scenario.claimed_job_ms * 1_000;
        let long_us = long_reply_us(claimed_job_us, result.as_ref().ok());
        if long_us > 0 {
            let until_us = until_us.min(self.now_us + long_us);
            self.disturb(Some(call.who), until_us, Disturbance::LongReply);
        }
        let arrives_us = plan.travels_us.map(|us| self.now_us + us + long_us);
        if arrives_us.is_none_or(|at_us| at_us >= until_us) {
            self.give_up(process, call, until_us);
        }
        if let Some(at_us) = arrives_us {
            let at_us = self.processes[process].late(at_us);
            self.queue
                .push(at_us, Task::Answer(process, call, Box::new(result)));
        }
    }

    fn carry_out(&mut self, request: &Request) -> Result<Reply, StoreError> {
        let (call, command) = (request.call, &request.command);
        let store_now = self.store_now();
        let reply = match self.model.apply(store_now, command) {
            Ok(reply) => reply,
            Err(rejection) => {
                let text = format!(
                    "{} sent {command:?}, which is refused: {rejection}",
                    call.who
                );
                self.recorder
                    .violated(Violation::new("store.rejected", text));
                return Err(StoreError::Rejected(rejection));
            }
        };
        self.observe(&Event::Applied {
            call,
            command,
            reply: &reply,
        });
        let commits = matches!(&reply, Reply::Finished(written) if written == &[Written::Applied]);
        if !call.is_of_engine()
            && let (Command::Finish(finishes), true) = (command, commits)
        {
            if !request.children.is_empty() {
                let spawn = Command::Spawn(request.children.clone());
                if let Ok(reply) = self.model.apply(store_now, &spawn) {
                    self.observe(&Event::Applied {
                        call,
                        command: &spawn,
                        reply: &reply,
                    });
                }
            }
            let run = finishes[0].run;
            self.observe(&Event::Committed { who: call.who, run });
        }
        Ok(reply)
    }

    /// Whether somebody still waits for this call.
    pub(super) fn waits(&self, process: usize, call: Call) -> bool {
        let process = &self.processes[process];
        process.is(call.who) && process.calls.iter().any(|(op, _)| *op == call.op)
    }

    /// An answer arrives, or the wait for it is over.
    pub(super) fn answer(&mut self, process: usize, call: Call, result: Result<Reply, StoreError>) {
        if !self.waits(process, call) {
            self.observe(&Event::Unheard { call });
            return;
        }
        let point = match &result {
            Ok(Reply::Claimed(_)) => Some("after_claim"),
            Ok(Reply::Finished(_)) if call.is_of_engine() => Some("after_finish"),
            Ok(Reply::Heartbeat(_)) => Some("after_heartbeat"),
            Ok(Reply::Reclaimed(_)) => Some("after_reclaim"),
            Ok(Reply::Spawned(_)) => Some("after_spawn"),
            Ok(Reply::Finished(_)) => Some("after_commit"),
            _ => None,
        };
        if point.is_some_and(|point| self.dies_at(process, point)) {
            return;
        }
        let Some(waiting) = self.processes[process].take_call(call.op) else {
            return;
        };
        self.observe(&Event::Answered {
            call,
            result: &result,
        });
        match waiting {
            Waiting::Engine => {
                let op = OpId(call.op);
                self.input(process, Input::Replied { op, result });
            }
            Waiting::Checkpoint(run) => self.checkpointed(process, run, &result),
            Waiting::Commit(run, outcome) => self.commit_answered(process, run, outcome, &result),
            Waiting::Spawn(job, again, tries) => {
                self.spawn_answered(process, job, again, tries, &result);
            }
        }
    }
}

fn unknown() -> StoreError {
    StoreError::Unknown("the connection broke".to_owned())
}
