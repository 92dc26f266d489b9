//! What must exist: the jobs that were spawned and no others, each ended as its
//! type demands, with what its work left behind.

use std::collections::{BTreeMap, BTreeSet};

use job_engine::lifecycle::RunEnd;
use uuid::Uuid;

use super::case::{Case, JobCase};
use super::{Counts, Evidence, Findings};
use crate::processes::books::{Line, Micros};
use crate::processes::workload::Kind;

/// By job: the run and the turn.
type Entries = BTreeMap<Uuid, Vec<(Uuid, u32)>>;

/// What is known of a spawn.
#[derive(Default)]
pub struct Spawn {
    in_op: bool,
    pub due_at: Option<Micros>,
    stands: bool,
    confirmed: bool,
    rolled_back: bool,
}

pub fn spawns(evidence: &Evidence) -> BTreeMap<Uuid, Spawn> {
    let mut spawns = BTreeMap::<Uuid, Spawn>::new();
    for (_, line) in &evidence.diary {
        match line {
            Line::Asked { job, in_op, due_at } => {
                let spawn = spawns.entry(*job).or_default();
                (spawn.in_op, spawn.due_at) = (*in_op, *due_at);
            }
            Line::Stands { job } => spawns.entry(*job).or_default().stands = true,
            Line::Confirmed { job } => spawns.entry(*job).or_default().confirmed = true,
            Line::RolledBack { job } => spawns.entry(*job).or_default().rolled_back = true,
            Line::Polls { .. }
            | Line::Started { .. }
            | Line::Told { .. }
            | Line::Kept { .. }
            | Line::Ending { .. }
            | Line::Dropped { .. }
            | Line::Unique { .. }
            | Line::BeginCut
            | Line::NotRenewed { .. }
            | Line::Gap { .. } => {}
        }
    }
    spawns
}

/// The entries of each job: by which run, for which turn.
pub fn by_job(evidence: &Evidence) -> Entries {
    let mut by_job = Entries::new();
    for entry in &evidence.ledger {
        let of_job = by_job.entry(entry.job).or_default();
        of_job.push((entry.run, entry.turn));
    }
    by_job
}

pub fn judge_spawns(
    case: &Case<'_>,
    spawns: &BTreeMap<Uuid, Spawn>,
    findings: &mut Findings,
    counts: &mut Counts,
) {
    for (job, spawn) in spawns {
        let exists = case.jobs.contains_key(job);
        if spawn.confirmed && !exists {
            findings.add("spawn.lost", format!("job {job} was confirmed"));
        }
        if spawn.rolled_back && exists {
            findings.add("spawn.rolled_back", format!("job {job} exists"));
        }
        if spawn.in_op && spawn.stands != exists {
            let text = format!(
                "job {job} exists: {exists}; its transaction: {}",
                spawn.stands
            );
            findings.add("spawn.torn", text);
        }
        if !spawn.confirmed && !spawn.rolled_back {
            counts.add(if exists {
                "unanswered spawns that happened"
            } else {
                "unanswered spawns that did not happen"
            });
        }
    }
    let mut unique = BTreeMap::<&str, u32>::new();
    let mut children = BTreeMap::<Uuid, u32>::new();
    for (id, job) in &case.jobs {
        if job.kind == Kind::Unique {
            *unique.entry(&job.spec.job_type).or_default() += 1;
        } else if let Some(parent) = job.spec.order.parent {
            *children.entry(parent).or_default() += 1;
        } else if !spawns.contains_key(id) {
            findings.add("spawn.unasked", format!("job {id}"));
        }
    }
    for (job_type, n) in &unique {
        if *n > 1 {
            findings.add("spawn.unique", format!("there are {n} of {job_type}"));
        }
    }
    for (_, line) in &case.evidence.diary {
        if let Line::Unique { job_type } = line
            && !unique.contains_key(job_type.as_str())
        {
            findings.add("spawn.lost", format!("there is no {job_type}"));
        }
    }
    for (id, job) in &case.jobs {
        let children = children.remove(id).unwrap_or(0);
        let completed = job
            .last_end()
            .is_some_and(|end| end.end == RunEnd::Completed);
        let due = if completed {
            job.spec.order.children
        } else {
            0
        };
        if children != due {
            let text = format!("job {id} has {children} children, {due} are due");
            findings.add("effect.children", text);
        }
    }
    for parent in children.keys() {
        findings.add("effect.children", format!("there is no parent {parent}"));
    }
}

/// Nothing is lost, and nothing ends otherwise than its type demands.
pub fn judge_end(job: &JobCase<'_>, findings: &mut Findings) {
    let id = job.spec.id;
    let end = job.last_end().map(|end| end.end);
    if job.spec.live || !end.is_some_and(RunEnd::is_final) {
        let text = format!("job {id} ({:?}), last {end:?}", job.kind);
        findings.add("end.missing", text);
        return;
    }
    let fits = match (job.kind, end) {
        (Kind::Erroring, end) => end != Some(RunEnd::Completed),
        (Kind::Fragile, end) => end != Some(RunEnd::Errored),
        (_, end) => end == Some(RunEnd::Completed),
    };
    findings.demand(fits, "end.wrong", || {
        let error = job.last_end().and_then(|end| end.error.clone());
        format!("job {id} ({:?}) ended as {end:?}: {error:?}", job.kind)
    });
}

/// Work in a transaction happened exactly once, by the run that the history
/// says; work outside of one at least once.
pub fn judge_ledger(job: &JobCase<'_>, entries: &Entries, findings: &mut Findings) {
    let id = job.spec.id;
    let none = Vec::new();
    let entries = entries.get(&id).unwrap_or(&none);
    let completed = job
        .last_end()
        .is_some_and(|end| end.end == RunEnd::Completed);
    if job.kind == Kind::Outside {
        let last = job.runs.last().and_then(|run| run.seen.as_ref());
        let by_last = entries
            .iter()
            .any(|(run, _)| last.is_some_and(|seen| seen.id == *run));
        findings.demand(by_last || !completed, "ledger.outside", || {
            format!("job {id} completed without an entry of its last run")
        });
        return;
    }
    let due: BTreeSet<u32> = match job.kind {
        _ if !completed => BTreeSet::new(),
        Kind::Turning => (1..=job.spec.order.turns + 1).collect(),
        Kind::Erroring => BTreeSet::new(),
        _ => [0].into(),
    };
    let mut turns: Vec<_> = entries.iter().map(|(_, turn)| *turn).collect();
    turns.sort_unstable();
    if !turns.iter().eq(due.iter()) {
        let text = format!("job {id} ({:?}) has {turns:?}, {due:?} are due", job.kind);
        findings.add("ledger.count", text);
    }
    for (run, turn) in entries {
        let end = job.run(*run).map(|run| run.end.end);
        let last = *turn == 0 || *turn > job.spec.order.turns;
        let fits = match end {
            Some(RunEnd::Completed) => last,
            Some(RunEnd::Rescheduled | RunEnd::Snoozed) => !last,
            _ => false,
        };
        findings.demand(fits, "ledger.foreign", || {
            format!("job {id}: turn {turn} is of the run {run}, which ended as {end:?}")
        });
    }
}
