//! The judge: what the tables hold and what befell the processes, against what
//! is promised. A pure function, so that each kind of violation can be shown to
//! it; `tests` does.

mod case;
mod counts;
mod effects;
mod history;
mod leases;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use job::{Job, JobEventKind};
use job_engine::lifecycle::RunEnd;
use uuid::Uuid;

pub use counts::Counts;

use super::books::{Entry, Line, Micros};
use super::workload::Order;
use case::Case;

/// Everything there is to judge by.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The jobs.
    pub specs: Vec<Spec>,
    /// Their history, in the order of their fences.
    pub ends: Vec<End>,
    /// What was written down, the oldest first.
    pub diary: Vec<(Micros, Line)>,
    /// What the work left behind.
    pub ledger: Vec<Entry>,
    /// When each worker last showed that it was alive.
    pub pulses: BTreeMap<Uuid, Micros>,
    /// What befell the worker processes. All of them have ended.
    pub processes: Vec<Process>,
}

/// A job, as it was spawned.
#[derive(Clone, Debug)]
pub struct Spec {
    pub id: Uuid,
    pub job_type: String,
    pub order: Order,
    pub spawned_at: Micros,
    /// It has not ended.
    pub live: bool,
}

/// A row of the history: how a run ended.
#[derive(Clone, Debug)]
pub struct End {
    pub job: Uuid,
    pub fence: i64,
    pub attempt: u32,
    pub worker: Uuid,
    pub claimed_at: Micros,
    pub ended_at: Micros,
    pub end: RunEnd,
    pub error: Option<String>,
    pub next_due_at: Option<Micros>,
}

/// What the harness did to a process.
#[derive(Clone, Debug)]
pub struct Process {
    pub worker: Uuid,
    pub started_at: Micros,
    /// When it was asked to shut down.
    pub asked_at: Option<Micros>,
    /// Between when and when it was stopped. From before the signal to after
    /// the one that continued it.
    pub stops: Vec<(Micros, Micros)>,
    /// It ended between these times.
    pub ended_at: (Micros, Micros),
    pub killed: bool,
}

/// What is promised, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub lease: Micros,
    pub shutdown_timeout: Micros,
    /// A process that stood still for longer may have missed heartbeats.
    pub still_max: Micros,
    /// How long a runner may go on without being told that its lease is lost,
    /// once its process is able to tell.
    pub told_within: Micros,
    /// For what has a limit that the machine may be late for.
    pub slack: Micros,
    /// One process at a time uses the database: what one leaves running that is
    /// killed is taken back by the next, before that works.
    pub one_process: bool,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub rule: &'static str,
    /// How.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.text)
    }
}

/// Where judges report to.
#[derive(Debug, Default)]
struct Findings(Vec<Violation>);

impl Findings {
    fn add(&mut self, rule: &'static str, text: String) {
        self.0.push(Violation { rule, text });
    }

    /// Objects unless `kept`.
    fn demand(&mut self, kept: bool, rule: &'static str, text: impl FnOnce() -> String) {
        if !kept {
            self.add(rule, text());
        }
    }
}

/// All violations, and what there was to judge.
pub fn audit(evidence: &Evidence, terms: Terms) -> (Vec<Violation>, Counts) {
    let mut findings = Findings::default();
    let mut counts = Counts::default();
    let case = Case::new(evidence, terms, &mut findings);
    let (spawns, ledger) = (effects::spawns(evidence), effects::by_job(evidence));
    effects::judge_spawns(&case, &spawns, &mut findings, &mut counts);
    for job in case.jobs.values() {
        effects::judge_end(job, &mut findings);
        effects::judge_ledger(job, &ledger, &mut findings);
        let due_at = spawns.get(&job.spec.id).and_then(|spawn| spawn.due_at);
        history::judge(&case, job, due_at, &mut findings);
        state::judge(job, &mut findings);
        leases::judge(&case, job, &mut findings, &mut counts);
    }
    counts.count(&case);
    (findings.0, counts)
}

/// What [`Job::events`] says must be what the rows say.
pub fn audit_events(job: &Job, spec: &Spec, ends: &[&End]) -> Option<Violation> {
    let mut expected = vec![(spec.spawned_at, JobEventKind::Spawned)];
    for end in ends {
        let (attempt, worker) = (end.attempt, end.worker);
        expected.push((end.claimed_at, JobEventKind::Started { attempt, worker }));
        let error = end.error.clone().unwrap_or_default();
        let next = chrono::DateTime::from_timestamp_micros(end.next_due_at.unwrap_or(0));
        let next = next.expect("the store writes times");
        let kind = match end.end {
            RunEnd::Completed => JobEventKind::Completed,
            RunEnd::Rescheduled => JobEventKind::Rescheduled { due_at: next },
            RunEnd::Snoozed => JobEventKind::Snoozed { due_at: next },
            RunEnd::Retried => JobEventKind::Failed {
                attempt,
                error,
                retry_at: next,
            },
            RunEnd::Errored | RunEnd::Abandoned => JobEventKind::Errored { attempt, error },
            RunEnd::Interrupted => JobEventKind::Aborted,
            RunEnd::Released => JobEventKind::Released,
            RunEnd::Undecodable => JobEventKind::Undecodable {
                error,
                retry_at: next,
            },
            RunEnd::Lost => JobEventKind::LeaseLost { attempt },
        };
        expected.push((end.ended_at, kind));
    }
    let events = job.events().iter();
    let events: Vec<_> = events
        .map(|event| (event.at.timestamp_micros(), event.kind.clone()))
        .collect();
    (events != expected).then(|| Violation {
        rule: "history.events",
        text: format!(
            "job {}: {events:?} are told, {expected:?} happened",
            spec.id
        ),
    })
}
