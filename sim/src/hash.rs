//! One number for all that happened so far.

use std::fmt;

use job_engine::lifecycle::RunEnd;
use job_engine::store::{Outcome, Spawned, Written};
use job_engine::worker::{Ended, StopReason};
use job_engine::{Command, JobId, Reply, Run, StoreError};
use job_tokio::fault::POINTS;
use serde::{Deserialize, Serialize};

use crate::event::{Call, Event, Moment, Who};
use crate::scenario::{job_key, type_place};
use job_engine::draw::mix;

/// The rolling hash of a simulation: two runs that differ in one event differ in
/// it from there on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct TraceHash(u64);

impl fmt::Display for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<TraceHash> for String {
    fn from(hash: TraceHash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for TraceHash {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = u64::from_str_radix(&text, 16)
            .ok()
            .filter(|_| text.len() == 16);
        number
            .map(Self)
            .ok_or_else(|| format!("a trace hash has 16 hexadecimal digits, not {text:?}"))
    }
}

impl TraceHash {
    /// The hash that is this number.
    pub(crate) const fn of(number: u64) -> Self {
        Self(number)
    }

    /// Takes in one event.
    pub fn feed(&mut self, now: Moment, event: &Event<'_>) {
        self.word(now.true_us);
        self.word(now.store.as_micros().cast_unsigned());
        match *event {
            Event::Up { who, id } => {
                self.who(1, who);
                self.word(id.0.as_u128() as u64);
            }
            Event::Configured { who, knobs } => {
                self.who(24, who);
                self.word(knobs.lease_ms << 8 | u64::from(knobs.edition));
            }
            Event::Point { who, point } => {
                self.who(25, who);
                let place = POINTS.iter().position(|known| *known == point);
                self.word(place.map_or(u64::MAX, |place| place as u64));
            }
            Event::Crashed { who } => self.who(2, who),
            Event::ShutdownAsked { who } => self.who(3, who),
            Event::Stopped { who } => self.who(4, who),
            Event::Paused { who } => self.who(5, who),
            Event::Resumed { who } => self.who(6, who),
            Event::Disturbed { who, until_us, .. } => {
                self.who(7, who.unwrap_or(Who::OUTSIDE));
                self.word(until_us);
            }
            Event::Sent { call, command } => {
                self.call(8, call);
                self.command(command);
            }
            Event::Applied { call, reply, .. } => {
                self.call(9, call);
                self.reply(reply);
            }
            Event::Answered { call, result } => {
                self.call(10, call);
                match result {
                    Ok(reply) => self.reply(reply),
                    Err(StoreError::Rejected(_)) => self.word(1),
                    Err(StoreError::Failed(_)) => self.word(2),
                    Err(StoreError::Unknown(_)) => self.word(3),
                }
            }
            Event::Unheard { call } => self.call(11, call),
            Event::Started { who, job } => {
                self.who(12, who);
                self.run(job.run);
                self.word(job.attempt.into());
            }
            Event::Told { who, run, reason } => {
                self.who(13, who);
                self.run(run);
                self.word(u64::from(reason == StopReason::LeaseLost));
            }
            Event::Aborted { who, run } => {
                self.who(14, who);
                self.run(run);
            }
            Event::Kept { who, run, written } => {
                self.who(15, who);
                self.run(run);
                self.word(written.map_or(2, |w| u64::from(w == Written::Applied)));
            }
            Event::Committing { who, run } => {
                self.who(16, who);
                self.run(run);
            }
            Event::Committed { who, run } => {
                self.who(17, who);
                self.run(run);
            }
            Event::Ended { who, run, ended } => {
                self.who(18, who);
                self.run(run);
                self.word(match ended {
                    Ended::Completed => 0,
                    Ended::Rescheduled(_) => 1,
                    Ended::Failed(_) => 2,
                    Ended::Settled(outcome) => 8 + outcome.end().code() as u64,
                    Ended::Snoozed(_) => 6,
                    Ended::Errored(_) => 7,
                    Ended::LeaseLost => 3,
                    Ended::Aborted => 4,
                    Ended::Undecodable(_) => 5,
                });
            }
            Event::Woken { who, job_type } => {
                self.who(19, who);
                self.word(type_place(job_type).into());
            }
            Event::Listening { who, listening } => {
                self.who(20, who);
                self.word(listening.into());
            }
            Event::Spawning { who, job } => {
                self.who(28, who);
                self.word(job.into());
            }
            Event::Spawned {
                who,
                job,
                again,
                spawned,
            } => {
                self.who(21, who);
                self.word(u64::from(job) << 8 | u64::from(again));
                self.word(spawned.map_or(9, spawned_word));
            }
            Event::Fault { place } => {
                self.word(22);
                self.word(place as u64);
            }
            Event::Calm => self.word(23),
            // All that it says is said by other events, too.
            Event::Logged { who, .. } => self.who(27, who),
            Event::Noted { who, run, text } => {
                self.who(26, who.unwrap_or(Who::OUTSIDE));
                run.into_iter().for_each(|run| self.run(run));
                self.text(text);
            }
        }
    }

    fn command(&mut self, command: &Command) {
        match command {
            Command::Spawn(jobs) => jobs.iter().for_each(|job| self.job(job.id)),
            Command::Claim(claim) => {
                self.word(claim.id.seq as u64 * 2 + u64::from(claim.repeat));
                for quota in &claim.quotas {
                    let place = type_place(&quota.job_type);
                    self.word(u64::from(place) << 32 | u64::from(quota.jobs_max));
                }
            }
            Command::Finish(finishes) => {
                for finish in finishes {
                    self.run(finish.run);
                    self.word(finish.outcome.end().code() as u64);
                    match &finish.outcome {
                        Outcome::Retried { delay, attempt, .. } => {
                            self.word(delay.as_nanos() as u64);
                            self.word((*attempt).into());
                        }
                        Outcome::Rescheduled { due } | Outcome::Snoozed { due } => {
                            let due = due.resolve(crate::scenario::START);
                            self.word(due.as_micros().cast_unsigned());
                        }
                        Outcome::Undecodable { delay, .. } => {
                            self.word(delay.as_nanos() as u64);
                        }
                        Outcome::Completed
                        | Outcome::Errored { .. }
                        | Outcome::Released
                        | Outcome::Interrupted => {}
                    }
                }
            }
            Command::Heartbeat(heartbeat) => heartbeat.runs.iter().for_each(|run| self.run(*run)),
            Command::Checkpoint(checkpoint) => self.run(checkpoint.run),
            Command::Hold(run) => self.run(*run),
            Command::Reclaim(reclaim) => self.word(reclaim.policies.len() as u64),
            Command::Find(job) => self.job(*job),
            Command::History(history) => self.job(history.job),
        }
    }

    fn reply(&mut self, reply: &Reply) {
        match reply {
            Reply::Spawned(spawned) => spawned.iter().for_each(|s| self.word(spawned_word(*s))),
            Reply::Claimed(claimed) => {
                for job in &claimed.jobs {
                    self.run(job.run);
                    self.word(job.attempt.into());
                }
                for left in &claimed.left {
                    self.run(left.run);
                }
                for (job_type, at) in &claimed.next_due {
                    self.word(u64::from(type_place(job_type)) ^ at.as_micros() as u64);
                }
            }
            Reply::Finished(written) | Reply::Heartbeat(written) => {
                written.iter().for_each(|w| self.word(*w as u64));
            }
            Reply::Checkpointed(written) | Reply::Held(written) => self.word(*written as u64),
            Reply::Reclaimed(reclaimed) => {
                for reclaimed in reclaimed {
                    self.run(reclaimed.run);
                    self.word(u64::from(reclaimed.end == RunEnd::Abandoned));
                    self.word(reclaimed.attempt.into());
                }
            }
            Reply::Found(found) => self.word(u64::from(found.is_some())),
            Reply::History(page) => self.word(page.runs.len() as u64),
        }
    }

    fn call(&mut self, kind: u64, call: Call) {
        self.who(kind, call.who);
        self.word(call.op);
    }

    fn who(&mut self, kind: u64, who: Who) {
        self.word(kind);
        self.word(u64::from(who.worker) << 32 | u64::from(who.incarnation));
    }

    fn run(&mut self, run: Run) {
        self.job(run.job);
        self.word(run.fence.0.cast_unsigned());
    }

    fn job(&mut self, job: JobId) {
        self.word(job_key(job).into());
    }

    fn text(&mut self, text: &str) {
        self.word(text.len() as u64);
        text.bytes().for_each(|byte| self.word(byte.into()));
    }

    fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(25) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// The same number, with its bits spread.
    #[must_use]
    pub fn finished(self) -> Self {
        Self(mix(self.0))
    }
}

fn spawned_word(spawned: Spawned) -> u64 {
    match spawned {
        Spawned::Created => 0,
        Spawned::DuplicateId => 1,
        Spawned::DuplicateUniqueType(existing) => 2 | u64::from(job_key(existing)) << 8,
    }
}
