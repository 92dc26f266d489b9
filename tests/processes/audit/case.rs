//! What belongs together: the runs of each job, which fence each of them had,
//! and when its process was able to act.

use std::collections::BTreeMap;

use job_engine::lifecycle::RunEnd;
use uuid::Uuid;

use super::{End, Evidence, Findings, Process, Spec, Terms};
use crate::processes::books::{Line, Meant, Micros, State};
use crate::processes::workload::Kind;

/// Times of SQLite are whole milliseconds.
const ROUNDING: Micros = 1_000;

pub struct Case<'a> {
    pub evidence: &'a Evidence,
    pub terms: Terms,
    pub jobs: BTreeMap<Uuid, JobCase<'a>>,
    pub processes: BTreeMap<Uuid, &'a Process>,
    /// When each process was stopped or starved, in order.
    standstills: BTreeMap<Uuid, Vec<(Micros, Micros)>>,
    /// When each could not renew its leases, and said so.
    troubles: BTreeMap<Uuid, Vec<Micros>>,
    /// When each had a runner that blocks its thread.
    blocked: BTreeMap<Uuid, Vec<(Micros, Micros)>>,
    /// Since when each worker has polled.
    polls: BTreeMap<Uuid, Micros>,
}

pub struct JobCase<'a> {
    pub spec: &'a Spec,
    pub kind: Kind,
    /// In the order of their fences.
    pub runs: Vec<RunCase<'a>>,
}

/// A claim of a job: how it ended, and what its runner wrote, if it came to that.
pub struct RunCase<'a> {
    pub end: &'a End,
    pub seen: Option<Seen>,
}

/// A run as its runner saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub id: Uuid,
    pub worker: Uuid,
    pub attempt: u32,
    place: u64,
    pub started_at: Micros,
    pub found: Option<State>,
    pub told_at: Option<Micros>,
    pub kept: Option<u32>,
    pub ending: Option<(Micros, Meant)>,
    pub dropped_at: Option<Micros>,
}

impl<'a> Case<'a> {
    pub fn new(evidence: &'a Evidence, terms: Terms, findings: &mut Findings) -> Self {
        let processes = evidence.processes.iter();
        let processes: BTreeMap<_, _> =
            processes.map(|process| (process.worker, process)).collect();
        let standstills = standstills(evidence, terms);
        let mut case = Self {
            evidence,
            terms,
            jobs: BTreeMap::new(),
            processes,
            standstills,
            troubles: troubles(evidence),
            blocked: BTreeMap::new(),
            polls: polls(evidence),
        };
        let mut seen = seen(evidence);
        let mut ends = by_job(evidence);
        for spec in &evidence.specs {
            let Some(kind) = Kind::of(&spec.job_type) else {
                let (id, job_type) = (spec.id, &spec.job_type);
                findings.add("spawn.unasked", format!("job {id} of the type {job_type}"));
                continue;
            };
            let ends = ends.remove(&spec.id).unwrap_or_default();
            let seen = seen.remove(&spec.id).unwrap_or_default();
            let runs = matched(&ends, seen, findings);
            if kind == Kind::Blocking {
                for seen in runs.iter().filter_map(|run| run.seen.as_ref()) {
                    let until = seen.ending.map_or(Micros::MAX, |(at, _)| at);
                    let blocked = case.blocked.entry(seen.worker).or_default();
                    blocked.push((seen.started_at, until));
                }
            }
            case.jobs.insert(spec.id, JobCase { spec, kind, runs });
        }
        for job in ends.keys() {
            findings.add("history.orphan", format!("there is no job {job}"));
        }
        for job in seen.keys() {
            findings.add("history.orphan", format!("job {job} ran and is not there"));
        }
        case
    }

    /// Whether the worker was dead or stood still at some time between these.
    pub fn was_disturbed(&self, worker: Uuid, from: Micros, to: Micros) -> bool {
        let process = self.processes.get(&worker);
        let ended = process.is_some_and(|process| process.ended_at.0 <= to);
        ended || self.stood_still(worker, from, to)
    }

    /// Whether something kept the worker from renewing its leases at some time
    /// between these: it was killed, which no shutdown is, or stood still, or got no
    /// answer, or a runner that blocked its thread may have kept that from the
    /// driver.
    pub fn could_not_renew(&self, worker: Uuid, from: Micros, to: Micros) -> bool {
        let process = self.processes.get(&worker);
        let killed = process.is_some_and(|process| process.killed && process.ended_at.0 <= to);
        let mut blocked = self.blocked.get(&worker).into_iter().flatten();
        let blocked = blocked.any(|(since, until)| *since <= to && *until >= from);
        // A lease is taken back some time after it has run out.
        let from_earlier = from - self.terms.lease;
        let mut troubles = self.troubles.get(&worker).into_iter().flatten();
        let unanswered = troubles.any(|at| (from_earlier..=to).contains(at));
        killed || blocked || unanswered || self.stood_still(worker, from, to)
    }

    fn stood_still(&self, worker: Uuid, from: Micros, to: Micros) -> bool {
        let mut still = self.standstills.get(&worker).into_iter().flatten();
        still.any(|(since, until)| *since <= to && *until >= from)
    }

    /// Whether the worker was there and able to act all the time between these.
    pub fn was_well(&self, worker: Uuid, from: Micros, to: Micros) -> bool {
        let process = self.processes.get(&worker);
        let asked = process.and_then(|process| process.asked_at);
        self.polls.get(&worker).is_some_and(|since| *since <= from)
            && asked.is_none_or(|asked| asked > to)
            && !self.was_disturbed(worker, from, to)
    }

    /// When what takes a worker `within` is done at the latest, if it begins at
    /// `from` and the worker can only get on with it while it does not stand
    /// still.
    pub fn deadline(&self, worker: Uuid, from: Micros, within: Micros) -> Micros {
        let still = self.standstills.get(&worker).into_iter().flatten();
        still.fold(from + within, |deadline, (since, until)| {
            if *since <= deadline && *until > from {
                deadline.max(until + within)
            } else {
                deadline
            }
        })
    }

    /// Whether the run was still recorded as running when its process was killed,
    /// which the next process of its database knows.
    pub fn was_left(&self, end: &End) -> bool {
        let process = self.processes.get(&end.worker);
        let killed = process.filter(|process| process.killed && self.terms.one_process);
        killed.is_some_and(|process| end.ended_at > process.ended_at.1 + ROUNDING)
    }

    /// When a worker first polled after this time.
    pub fn next_poll(&self, from: Micros) -> Option<Micros> {
        let polls = self.polls.values().copied();
        polls.filter(|at| *at > from).min()
    }

    /// Until when the runner was at work: it ended, was dropped, or died with
    /// its process.
    pub fn active_until(&self, run: &RunCase<'_>, seen: &Seen) -> Micros {
        let died = self.processes.get(&seen.worker);
        let died = died.map_or(Micros::MAX, |process| process.ended_at.1);
        // What was dropped so that its job could be put back, and then its
        // process died before that was written down.
        let put_back = (run.end.end == RunEnd::Interrupted).then_some(run.end.ended_at);
        let ended = seen.ending.map(|(at, _)| at);
        let ended = [ended, seen.dropped_at].into_iter().flatten().min();
        ended.or(put_back).unwrap_or(died).min(died)
    }
}

impl JobCase<'_> {
    pub fn last_end(&self) -> Option<&End> {
        self.runs.last().map(|run| run.end)
    }

    /// The claim under which this run was at work.
    pub fn run(&self, id: Uuid) -> Option<&RunCase<'_>> {
        let mut runs = self.runs.iter();
        runs.find(|run| run.seen.as_ref().is_some_and(|seen| seen.id == id))
    }
}

fn standstills(evidence: &Evidence, terms: Terms) -> BTreeMap<Uuid, Vec<(Micros, Micros)>> {
    let mut standstills = BTreeMap::<_, Vec<_>>::new();
    for process in &evidence.processes {
        let mut still = process.stops.clone();
        // One that it did not live to write down.
        if let Some(last) = evidence.pulses.get(&process.worker)
            && process.ended_at.1 - last > terms.still_max
        {
            still.push((*last, process.ended_at.1));
        }
        standstills.insert(process.worker, still);
    }
    for (_, line) in &evidence.diary {
        if let Line::Gap {
            worker,
            since,
            until,
        } = line
        {
            standstills
                .entry(*worker)
                .or_default()
                .push((*since, *until));
        }
    }
    standstills
        .values_mut()
        .for_each(|still| still.sort_unstable());
    standstills
}

fn troubles(evidence: &Evidence) -> BTreeMap<Uuid, Vec<Micros>> {
    let mut troubles = BTreeMap::<_, Vec<_>>::new();
    for (_, line) in &evidence.diary {
        if let Line::NotRenewed { worker, at } = line {
            troubles.entry(*worker).or_default().push(*at);
        }
    }
    troubles
}

fn polls(evidence: &Evidence) -> BTreeMap<Uuid, Micros> {
    let lines = evidence.diary.iter();
    lines
        .filter_map(|(at, line)| match line {
            Line::Polls { worker } => Some((*worker, *at)),
            _ => None,
        })
        .collect()
}

fn by_job(evidence: &Evidence) -> BTreeMap<Uuid, Vec<&End>> {
    let mut by_job = BTreeMap::<_, Vec<_>>::new();
    for end in &evidence.ends {
        by_job.entry(end.job).or_default().push(end);
    }
    by_job
}

/// The runs that were written down, by job.
fn seen(evidence: &Evidence) -> BTreeMap<Uuid, Vec<Seen>> {
    let mut runs = BTreeMap::new();
    for (at, line) in &evidence.diary {
        if let Line::Started {
            run,
            job,
            attempt,
            worker,
            place,
            found,
        } = line
        {
            let seen = Seen {
                id: *run,
                worker: *worker,
                attempt: *attempt,
                place: *place,
                started_at: *at,
                found: *found,
                told_at: None,
                kept: None,
                ending: None,
                dropped_at: None,
            };
            runs.insert(*run, (*job, seen));
        }
    }
    for (at, line) in &evidence.diary {
        let (Line::Told { run }
        | Line::Kept { run, .. }
        | Line::Ending { run, .. }
        | Line::Dropped { run, .. }) = line
        else {
            continue;
        };
        // A run that was dropped while it wrote that it began is none.
        let Some((_, seen)) = runs.get_mut(run) else {
            continue;
        };
        match line {
            Line::Told { .. } => {
                seen.told_at.get_or_insert(*at);
            }
            Line::Kept { turn, .. } => seen.kept = Some(*turn),
            Line::Ending { how, .. } => seen.ending = Some((*at, *how)),
            Line::Dropped { at, .. } => seen.dropped_at = Some(*at),
            _ => unreachable!("it is one of those above"),
        }
    }
    let mut by_job = BTreeMap::<_, Vec<_>>::new();
    for (job, seen) in runs.into_values() {
        by_job.entry(job).or_default().push(seen);
    }
    by_job
}

/// Finds the fence of each run. A runner does not know it; but the runs of one
/// attempt in one process have their order, and so have the fences.
fn matched<'a>(ends: &[&'a End], mut seen: Vec<Seen>, findings: &mut Findings) -> Vec<RunCase<'a>> {
    let mut runs: Vec<_> = ends.iter().map(|end| RunCase { end, seen: None }).collect();
    seen.sort_by_key(|seen| seen.place);
    // From the last one: a claim that never came to a run has none, and then it
    // must not take that of its successor.
    for seen in seen.into_iter().rev() {
        let fits = |run: &RunCase<'_>| {
            let same = (run.end.worker, run.end.attempt) == (seen.worker, seen.attempt);
            same && run.seen.is_none() && run.end.claimed_at <= seen.started_at
        };
        match runs.iter_mut().rev().find(|run| fits(run)) {
            Some(run) => run.seen = Some(seen),
            None => findings.add(
                "history.unclaimed",
                format!("no claim in the history explains {seen:?}"),
            ),
        }
    }
    runs
}
