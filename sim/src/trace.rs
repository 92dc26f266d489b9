//! What happened, kept for a person to read.

mod chain;
mod words;

use std::collections::BTreeMap;
use std::time::Duration;

use job_engine::store::{Outcome, Spawned, Written};
use job_engine::worker::{Ended, StopReason};
use job_engine::{Command, Reply, Run, StoreError};

use crate::event::{Call, Event, Moment, Who};
use crate::scenario::{START, Scenario, job_key};
pub(crate) use words::fault_text;
use words::{command_text, ended_text, logged_text, reply_text, run_text};

/// All events of a simulation, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The events.
    pub entries: Vec<Entry>,
    sent: BTreeMap<Call, usize>,
    applied: BTreeMap<Call, usize>,
    by_run: BTreeMap<Run, usize>,
    by_job: BTreeMap<u32, usize>,
    by_who: BTreeMap<(Who, &'static str), usize>,
    fault: Option<usize>,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When, in microseconds of true time.
    pub at_us: u64,
    /// Where; `None` is the store, or the world.
    pub who: Option<Who>,
    /// What kind of event it is.
    pub kind: Kind,
    /// What happened, for people.
    pub text: String,
    /// The jobs that it is about, by key.
    pub jobs: Vec<u32>,
    /// The run that it is about: the key of its job, and its fence.
    pub run: Option<(u32, i64)>,
    /// What led to it, by place.
    pub cause: Option<usize>,
    /// What happened to its job in the store before, by place.
    pub before: Option<usize>,
    /// How far the store's clock is ahead of the true time, in microseconds.
    pub store_ahead_us: i64,
    /// What became of leases: the key of the job, the fence, and what.
    pub leases: Vec<(u32, i64, Hold)>,
    /// How the runner ended, if it did.
    pub fate: Option<Fate>,
    /// It is one of the many that changed nothing: a heartbeat that renewed all
    /// that it named, a claim or a reclaim that found nothing, an announcement,
    /// an answer that everything is done.
    pub quiet: bool,
}

/// What becomes of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It is granted or renewed until then: microseconds since
    /// [`START`], by the store's clock.
    Until(i64),
    /// Its run is finished.
    Finished,
    /// The job is taken back.
    Reclaimed,
}

/// How a runner ended, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// The job is completed.
    Completed,
    /// The job is to run again, by choice.
    Rescheduled,
    /// It failed.
    Failed,
    /// It found its lease lost.
    LeaseLost,
    /// It was aborted.
    Aborted,
}

/// See [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "named as the events")]
pub enum Kind {
    Up,
    Configured,
    Crashed,
    ShutdownAsked,
    Stopped,
    Paused,
    Resumed,
    Disturbed,
    Sent,
    Applied,
    Answered,
    Failed,
    Unheard,
    Started,
    Told,
    Aborted,
    Kept,
    Committing,
    Committed,
    Ended,
    Woken,
    Listening,
    Spawning,
    Spawned,
    Noted,
    Logged,
    Fault,
    Calm,
}

impl Trace {
    /// Keeps an event.
    pub fn push(&mut self, scenario: &Scenario, now: Moment, event: &Event<'_>) {
        let place = self.entries.len();
        let mut entry = Entry {
            at_us: now.true_us,
            who: None,
            kind: Kind::Calm,
            text: String::new(),
            jobs: Vec::new(),
            run: None,
            cause: None,
            before: None,
            store_ahead_us: store_us(now) - i64::try_from(now.true_us).unwrap_or(i64::MAX),
            leases: Vec::new(),
            fate: None,
            quiet: false,
        };
        let of = |who: Who, kind, text: &str| (Some(who), kind, text.to_owned());
        let (who, kind, text) = match *event {
            Event::Up { who, .. } => of(who, Kind::Up, "starts"),
            Event::Configured { who, knobs } => {
                let text = format!(
                    "is configured: {} to {} jobs, lease {} ms, poll {} ms, edition {}",
                    knobs.jobs_min, knobs.jobs_max, knobs.lease_ms, knobs.poll_ms, knobs.edition
                );
                (Some(who), Kind::Configured, text)
            }
            Event::Point { who, point } => {
                self.fault = Some(place);
                (
                    Some(who),
                    Kind::Fault,
                    format!("FAULT at the point {point}"),
                )
            }
            Event::Crashed { who } => {
                entry.cause = self.fault;
                of(who, Kind::Crashed, "crashes")
            }
            Event::ShutdownAsked { who } => {
                entry.cause = self.fault;
                self.by_who.insert((who, "shutdown"), place);
                of(who, Kind::ShutdownAsked, "is asked to shut down")
            }
            Event::Stopped { who } => {
                entry.cause = self.by_who.get(&(who, "shutdown")).copied();
                of(who, Kind::Stopped, "has stopped")
            }
            Event::Paused { who } => {
                entry.cause = self.fault;
                of(who, Kind::Paused, "stands still")
            }
            Event::Resumed { who } => of(who, Kind::Resumed, "goes on"),
            Event::Disturbed { who, until_us, by } => {
                // What disturbs a process is for the checks of the engine to know.
                entry.quiet = scenario.is_of_application();
                let ms = until_us.saturating_sub(now.true_us) / 1_000;
                (
                    who,
                    Kind::Disturbed,
                    format!("is disturbed by {by} for {ms} ms"),
                )
            }
            Event::Sent { call, command } => {
                entry.jobs = jobs_of_command(command);
                entry.cause = self.cause_of_command(call.who, command);
                self.sent.insert(call, place);
                (
                    Some(call.who),
                    Kind::Sent,
                    format!("sends {}", command_text(command)),
                )
            }
            Event::Applied {
                call,
                command,
                reply,
            } => {
                entry.jobs = jobs_of(command, reply);
                entry.cause = self.sent.get(&call).copied();
                entry.before = entry
                    .jobs
                    .iter()
                    .filter_map(|job| self.by_job.get(job))
                    .max()
                    .copied();
                for job in &entry.jobs {
                    self.by_job.insert(*job, place);
                }
                self.applied.insert(call, place);
                entry.leases = leases_of(store_us(now), command, reply);
                entry.quiet = is_quiet(reply);
                if entry.quiet
                    && let Some(sent) = entry.cause
                {
                    self.entries[sent].quiet = true;
                }
                let text = format!(
                    "carries out {} of {}: {}",
                    command_text(command),
                    call.who,
                    reply_text(reply)
                );
                (None, Kind::Applied, text)
            }
            Event::Answered { call, result } => {
                let sent = self.sent.get(&call).copied();
                entry.jobs = sent
                    .map(|sent| self.entries[sent].jobs.clone())
                    .unwrap_or_default();
                entry.cause = self.applied.get(&call).copied().or(sent);
                match result {
                    Ok(reply) => {
                        entry.quiet = is_quiet(reply) || is_done(reply);
                        entry.jobs.extend(jobs_of_reply(reply));
                        self.by_who.insert((call.who, reply_kind(reply)), place);
                        (
                            Some(call.who),
                            Kind::Answered,
                            format!("learns: {}", reply_text(reply)),
                        )
                    }
                    Err(error) => {
                        for place in sent.into_iter().chain(entry.cause) {
                            self.entries[place].quiet = false;
                        }
                        let what = match error {
                            StoreError::Unknown(_) => "gets no answer",
                            StoreError::Failed(_) => "is told that the store failed",
                            StoreError::Rejected(_) => "is refused by the store",
                        };
                        let about = sent.map(|sent| self.entries[sent].text.clone());
                        let about = about.unwrap_or_default();
                        let about = about.trim_start_matches("sends ");
                        (Some(call.who), Kind::Failed, format!("{what} to {about}"))
                    }
                }
            }
            Event::Unheard { call } => {
                entry.cause = self.applied.get(&call).copied();
                of(call.who, Kind::Unheard, "is not there to hear the answer")
            }
            Event::Started { who, job } => {
                entry.run(job.run);
                entry.cause = self.by_who.get(&(who, "claim")).copied();
                self.by_run.insert(job.run, place);
                let text = format!(
                    "starts {} of {} at attempt {}",
                    run_text(job.run),
                    job.job_type,
                    job.attempt
                );
                (Some(who), Kind::Started, text)
            }
            Event::Told { who, run, reason } => {
                entry.run(run);
                let (cause, why) = match reason {
                    StopReason::Shutdown => ("shutdown", "the worker shuts down"),
                    StopReason::LeaseLost => ("heartbeat", "its lease may be lost"),
                };
                entry.cause = self.by_who.get(&(who, cause)).copied();
                self.by_run.insert(run, place);
                (
                    Some(who),
                    Kind::Told,
                    format!("tells {}: {why}", run_text(run)),
                )
            }
            Event::Aborted { who, run } => {
                entry.run(run);
                entry.cause = self.by_run.insert(run, place);
                (
                    Some(who),
                    Kind::Aborted,
                    format!("aborts {}", run_text(run)),
                )
            }
            Event::Kept { who, run, written } => {
                entry.run(run);
                entry.cause = self.by_run.get(&run).copied();
                let what = match written {
                    Some(Written::Applied) => "kept its state",
                    Some(Written::Stale) => "could not keep its state: the lease is lost",
                    None => "does not know whether its state is kept",
                };
                (Some(who), Kind::Kept, format!("{} {what}", run_text(run)))
            }
            Event::Committing { who, run } => {
                entry.run(run);
                entry.cause = self.by_run.insert(run, place);
                (
                    Some(who),
                    Kind::Committing,
                    format!("{} commits", run_text(run)),
                )
            }
            Event::Committed { who, run } => {
                entry.run(run);
                entry.cause = self.by_run.insert(run, place);
                let text = format!("the transaction of {} is committed", run_text(run));
                (Some(who), Kind::Committed, text)
            }
            Event::Ended { who, run, ended } => {
                entry.run(run);
                entry.cause = self.by_run.insert(run, place);
                entry.fate = Some(fate_of(ended));
                (
                    Some(who),
                    Kind::Ended,
                    format!("{} {}", run_text(run), ended_text(ended)),
                )
            }
            Event::Woken { who, job_type: of } => {
                self.by_who.insert((who, "woken"), place);
                entry.quiet = true;
                let text = format!("hears that jobs of {of} may be due");
                (Some(who), Kind::Woken, text)
            }
            Event::Listening { who, listening } => {
                let text = if listening {
                    "hears announcements"
                } else {
                    "knows that it hears no announcements"
                };
                of(who, Kind::Listening, text)
            }
            Event::Spawning { who, job } => {
                (entry.jobs, entry.quiet) = (vec![job], true);
                let who = (who != Who::OUTSIDE).then_some(who);
                (who, Kind::Spawning, format!("job {job} is to be spawned"))
            }
            Event::Spawned {
                who, job, spawned, ..
            } => {
                entry.jobs = vec![job];
                entry.cause = self.by_job.get(&job).copied();
                let what = match spawned {
                    Some(Spawned::Created) => "is spawned",
                    Some(Spawned::DuplicateId) => "is refused: its id is taken",
                    Some(Spawned::DuplicateUniqueType(_)) => {
                        "is refused: its type has its unique job"
                    }
                    None => "may be spawned: there was no answer",
                };
                let who = (who != Who::OUTSIDE).then_some(who);
                (who, Kind::Spawned, format!("job {job} {what}"))
            }
            Event::Logged { who, observation } => {
                entry.quiet = true;
                let (run, text) = logged_text(observation);
                run.into_iter().for_each(|run| entry.run(run));
                (Some(who), Kind::Logged, format!("tells operators: {text}"))
            }
            Event::Noted { who, run, text } => {
                if let Some(run) = run {
                    entry.run(run);
                    entry.cause = self.by_run.insert(run, place);
                }
                (who, Kind::Noted, text.to_owned())
            }
            Event::Fault { place: fault } => {
                self.fault = Some(place);
                let fault = scenario.faults.get(fault).map(fault_text);
                let text = format!("fault: {}", fault.unwrap_or_default());
                (None, Kind::Fault, text)
            }
            Event::Calm => (
                None,
                Kind::Calm,
                "from here on nothing goes wrong".to_owned(),
            ),
        };
        (entry.who, entry.kind, entry.text) = (who, kind, text);
        entry.jobs.sort_unstable();
        entry.jobs.dedup();
        self.entries.push(entry);
    }

    fn cause_of_command(&self, who: Who, command: &Command) -> Option<usize> {
        let by_run = |run: &Run| self.by_run.get(run).copied();
        match command {
            Command::Finish(finishes) => finishes.iter().filter_map(|f| by_run(&f.run)).max(),
            Command::Checkpoint(checkpoint) => by_run(&checkpoint.run),
            Command::Hold(run) => by_run(run),
            Command::Claim(_) => self.by_who.get(&(who, "woken")).copied(),
            Command::Heartbeat(heartbeat) => heartbeat.runs.iter().filter_map(by_run).max(),
            Command::Spawn(_) | Command::Reclaim(_) | Command::Find(_) | Command::History(_) => {
                None
            }
        }
    }
}

impl Entry {
    /// Who did it; nobody for what befalls the world.
    pub fn subject(&self) -> Option<String> {
        match self.kind {
            Kind::Applied => Some("store".to_owned()),
            _ => self.who.map(|who| who.to_string()),
        }
    }

    fn run(&mut self, run: Run) {
        let key = job_key(run.job);
        self.jobs = vec![key];
        self.run = Some((key, run.fence.0));
    }
}

fn jobs_of_command(command: &Command) -> Vec<u32> {
    match command {
        Command::Spawn(jobs) => jobs.iter().map(|job| job_key(job.id)).collect(),
        Command::Finish(finishes) => finishes.iter().map(|f| job_key(f.run.job)).collect(),
        Command::Heartbeat(heartbeat) => {
            heartbeat.runs.iter().map(|run| job_key(run.job)).collect()
        }
        Command::Checkpoint(checkpoint) => vec![job_key(checkpoint.run.job)],
        Command::Hold(run) => vec![job_key(run.job)],
        Command::Find(job) => vec![job_key(*job)],
        Command::History(history) => vec![job_key(history.job)],
        Command::Claim(_) | Command::Reclaim(_) => Vec::new(),
    }
}

fn jobs_of_reply(reply: &Reply) -> Vec<u32> {
    match reply {
        Reply::Claimed(claimed) => claimed
            .jobs
            .iter()
            .map(|job| job.run)
            .chain(claimed.left.iter().map(|left| left.run))
            .map(|run| job_key(run.job))
            .collect(),
        Reply::Reclaimed(reclaimed) => reclaimed.iter().map(|r| job_key(r.run.job)).collect(),
        _ => Vec::new(),
    }
}

fn jobs_of(command: &Command, reply: &Reply) -> Vec<u32> {
    let mut jobs = jobs_of_command(command);
    jobs.extend(jobs_of_reply(reply));
    jobs
}

fn reply_kind(reply: &Reply) -> &'static str {
    match reply {
        Reply::Spawned(_) => "spawn",
        Reply::Claimed(_) => "claim",
        Reply::Finished(_) => "finish",
        Reply::Heartbeat(_) => "heartbeat",
        Reply::Checkpointed(_) => "checkpoint",
        Reply::Held(_) => "hold",
        Reply::Reclaimed(_) => "reclaim",
        Reply::Found(_) => "find",
        Reply::History(_) => "history",
    }
}

fn store_us(now: Moment) -> i64 {
    now.store.as_micros() - START.as_micros()
}

/// Pinned by `leases_end_when_the_clock_of_the_store_says_so`.
fn leases_of(now_us: i64, command: &Command, reply: &Reply) -> Vec<(u32, i64, Hold)> {
    let hold = |run: Run, hold| (job_key(run.job), run.fence.0, hold);
    let until = |lease: Duration| {
        let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX);
        Hold::Until(now_us.saturating_add(lease))
    };
    match (command, reply) {
        (Command::Claim(claim), Reply::Claimed(claimed)) => {
            let jobs = claimed.jobs.iter().map(|job| job.run);
            let runs = jobs.chain(claimed.left.iter().map(|left| left.run));
            runs.map(|run| hold(run, until(claim.lease))).collect()
        }
        (Command::Heartbeat(heartbeat), Reply::Heartbeat(written)) => {
            let runs = heartbeat.runs.iter().zip(written);
            let renewed = runs.filter(|(_, written)| **written == Written::Applied);
            renewed
                .map(|(run, _)| hold(*run, until(heartbeat.lease)))
                .collect()
        }
        (Command::Finish(finishes), Reply::Finished(written)) => {
            let runs = finishes.iter().zip(written);
            let done = runs.filter(|(_, written)| **written == Written::Applied);
            done.map(|(finish, _)| hold(finish.run, Hold::Finished))
                .collect()
        }
        (_, Reply::Reclaimed(reclaimed)) => {
            let runs = reclaimed.iter();
            runs.map(|lost| hold(lost.run, Hold::Reclaimed)).collect()
        }
        _ => Vec::new(),
    }
}

fn is_quiet(reply: &Reply) -> bool {
    match reply {
        Reply::Claimed(claimed) => claimed.is_empty(),
        Reply::Heartbeat(written) => written.iter().all(|w| *w == Written::Applied),
        Reply::Reclaimed(reclaimed) => reclaimed.is_empty(),
        Reply::Held(written) => *written == Written::Applied,
        Reply::Spawned(_)
        | Reply::Finished(_)
        | Reply::Checkpointed(_)
        | Reply::Found(_)
        | Reply::History(_) => false,
    }
}

fn is_done(reply: &Reply) -> bool {
    match reply {
        Reply::Spawned(spawned) => spawned.iter().all(|s| *s == Spawned::Created),
        Reply::Finished(written) => written.iter().all(|w| *w == Written::Applied),
        Reply::Checkpointed(written) | Reply::Held(written) => *written == Written::Applied,
        Reply::Claimed(_)
        | Reply::Heartbeat(_)
        | Reply::Reclaimed(_)
        | Reply::Found(_)
        | Reply::History(_) => false,
    }
}

fn fate_of(ended: &Ended) -> Fate {
    match ended {
        Ended::Completed | Ended::Settled(Outcome::Completed) => Fate::Completed,
        Ended::Rescheduled(_)
        | Ended::Snoozed(_)
        | Ended::Settled(
            Outcome::Rescheduled { .. }
            | Outcome::Snoozed { .. }
            | Outcome::Released
            | Outcome::Interrupted,
        ) => Fate::Rescheduled,
        Ended::Failed(_)
        | Ended::Errored(_)
        | Ended::Undecodable(_)
        | Ended::Settled(
            Outcome::Retried { .. } | Outcome::Errored { .. } | Outcome::Undecodable { .. },
        ) => Fate::Failed,
        Ended::LeaseLost => Fate::LeaseLost,
        Ended::Aborted => Fate::Aborted,
    }
}
