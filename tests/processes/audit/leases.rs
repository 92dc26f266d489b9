//! A lease is lost in time, and not without need. Two runs of one job are at work
//! at the same time only after the earlier one lost its lease; and who loses a
//! lease is told, and ended.

use job_engine::lifecycle::RunEnd;

use super::case::{Case, JobCase, RunCase, Seen};
use super::{Counts, End, Findings};
use crate::processes::books::Micros;

pub fn judge(case: &Case<'_>, job: &JobCase<'_>, findings: &mut Findings, counts: &mut Counts) {
    let is_lost = |run: &RunCase<'_>| matches!(run.end.end, RunEnd::Lost | RunEnd::Abandoned);
    for run in job.runs.iter().filter(|run| is_lost(run)) {
        judge_loss(case, run.end, findings);
    }
    for run in &job.runs {
        judge_left(case, run.end, findings);
        judge_telling(case, run, findings);
    }
    let runs = job.runs.iter();
    let seen = runs.filter_map(|run| Some((run, run.seen.as_ref()?)));
    let seen: Vec<_> = seen
        .map(|(run, seen)| (run, seen, case.active_until(run, seen)))
        .collect();
    for (n, (earlier, of_earlier, until)) in seen.iter().enumerate() {
        for (later, of_later, later_until) in &seen[n + 1..] {
            if of_later.started_at >= *until || of_earlier.started_at >= *later_until {
                continue;
            }
            counts.add("overlaps");
            findings.demand(
                earlier.end.end == RunEnd::Lost,
                "overlap.unexplained",
                || {
                    let (name, end) = (name(earlier.end), earlier.end.end);
                    let fence = later.end.fence;
                    format!("{name} overlaps with fence {fence}, and ended as {end:?}")
                },
            );
        }
        if is_lost(earlier) {
            judge_loser(case, earlier.end, of_earlier, *until, findings, counts);
        }
    }
}

/// A lease is lost when it ran out, because of what befell its worker, and soon.
fn judge_loss(case: &Case<'_>, end: &End, findings: &mut Findings) {
    let terms = case.terms;
    let held = end.ended_at - end.claimed_at;
    findings.demand(held >= terms.lease, "lost.early", || {
        format!("{} lost its lease {held} µs after its claim", name(end))
    });
    let from = end.ended_at - terms.lease;
    let needed = case.could_not_renew(end.worker, from, end.ended_at);
    findings.demand(needed, "lost.needless", || {
        let (name, worker) = (name(end), end.worker);
        format!("{name} lost its lease, and nothing befell its worker {worker}")
    });
    let Some(process) = case.processes.get(&end.worker) else {
        return;
    };
    if !process.killed {
        return;
    }
    // Somebody looks for what is lost every half of a lease.
    let lapsed_at = process.ended_at.1 + terms.lease;
    let by = lapsed_at + terms.lease / 2 + terms.slack;
    let mut others = case.processes.keys();
    let in_time = end.ended_at <= by || !others.any(|other| case.was_well(*other, lapsed_at, by));
    findings.demand(in_time, "lost.late", || {
        let late = end.ended_at - by;
        format!("{} was taken back {late} µs too late", name(end))
    });
}

/// What a killed process left is taken back before the next one works, and costs
/// neither an attempt nor a crash.
fn judge_left(case: &Case<'_>, end: &End, findings: &mut Findings) {
    if !case.was_left(end) {
        return;
    }
    findings.demand(end.end == RunEnd::Interrupted, "left.unlike", || {
        let (name, end) = (name(end), end.end);
        format!("{name} was left running by a process that was killed, and ended as {end:?}")
    });
    let died_at = case.processes[&end.worker].ended_at.1;
    let next = case.next_poll(died_at);
    findings.demand(
        next.is_none_or(|next| end.ended_at <= next),
        "left.late",
        || {
            let (name, at) = (name(end), end.ended_at);
            format!("{name} was taken back at {at}, and the next process worked at {next:?}")
        },
    );
}

/// Who kept its lease is told that it is lost only after it could not be renewed.
fn judge_telling(case: &Case<'_>, run: &RunCase<'_>, findings: &mut Findings) {
    let Some(seen) = &run.seen else {
        return;
    };
    let Some(at) = seen.told_at else {
        return;
    };
    let (lost_at, worker) = (run.end.ended_at, seen.worker);
    let is_lost = matches!(run.end.end, RunEnd::Lost | RunEnd::Abandoned) && at >= lost_at;
    let needed = is_lost || case.could_not_renew(worker, at - case.terms.lease, at);
    findings.demand(needed, "told.needless", || {
        let name = name(run.end);
        format!("{name} was told that its lease is lost, and nothing befell its worker {worker}")
    });
}

/// Who lost the lease of a run that goes on is told so, and then ended.
fn judge_loser(
    case: &Case<'_>,
    end: &End,
    seen: &Seen,
    until: Micros,
    findings: &mut Findings,
    counts: &mut Counts,
) {
    let terms = case.terms;
    let (worker, lost_at) = (seen.worker, end.ended_at);
    if until > lost_at {
        counts.add("losers at work");
        if seen.told_at.is_some() {
            counts.add("losers told");
        }
        if seen.dropped_at.is_some() {
            counts.add("losers dropped");
        }
    }
    // It may have begun only after its lease was lost.
    let from = lost_at.max(seen.started_at);
    let told_by = case.deadline(worker, from, terms.told_within + terms.slack);
    let told = seen.told_at.is_some_and(|at| at <= told_by);
    findings.demand(told || until <= told_by, "lost.untold", || {
        let (name, late) = (name(end), until - told_by);
        format!("{name} lost its lease at {lost_at} and went on untold, {late} µs too long")
    });
    let within = terms.told_within + terms.shutdown_timeout + terms.slack;
    let ended_by = case.deadline(worker, from, within);
    findings.demand(until <= ended_by, "lost.unended", || {
        let (name, late) = (name(end), until - ended_by);
        format!("{name} lost its lease at {lost_at} and was not ended, {late} µs too long")
    });
    // Ended by force, which is not how it should hear of it. A process that was
    // about to end, or could not act just before, says nothing.
    if let Some(at) = seen.dropped_at
        && seen.told_at.is_none()
    {
        let able = case.was_well(worker, at - terms.shutdown_timeout / 2, at);
        findings.demand(!able, "lost.untold", || {
            format!("{} was dropped without a word", name(end))
        });
    }
}

fn name(end: &End) -> String {
    format!("job {}, fence {}", end.job, end.fence)
}
