//! Two runs of one job are at work at the same time only after the earlier one
//! lost its lease; and who loses a lease is told, and ended.

use job_engine::lifecycle::RunEnd;

use super::case::{Case, JobCase};
use super::{Counts, Findings};

pub fn judge(case: &Case<'_>, job: &JobCase<'_>, findings: &mut Findings, counts: &mut Counts) {
    let runs = job.runs.iter();
    let seen = runs.filter_map(|run| Some((run, run.seen.as_ref()?)));
    let seen: Vec<_> = seen
        .map(|(run, seen)| (run, seen, case.active_until(run, seen)))
        .collect();
    for (n, (earlier, of_earlier, until)) in seen.iter().enumerate() {
        let name = format!("job {}, fence {}", job.spec.id, earlier.end.fence);
        for (later, of_later, later_until) in &seen[n + 1..] {
            if of_later.started_at >= *until || of_earlier.started_at >= *later_until {
                continue;
            }
            counts.add("overlaps");
            findings.demand(
                earlier.end.end == RunEnd::Lost,
                "overlap.unexplained",
                || {
                    let fence = later.end.fence;
                    let end = earlier.end.end;
                    format!("{name} overlaps with fence {fence}, and ended as {end:?}")
                },
            );
        }
        if !matches!(earlier.end.end, RunEnd::Lost | RunEnd::Abandoned) {
            continue;
        }
        let (worker, lost_at) = (of_earlier.worker, earlier.end.ended_at);
        if *until > lost_at {
            counts.add("losers at work");
            if of_earlier.told_at.is_some() {
                counts.add("losers told");
            }
            if of_earlier.dropped_at.is_some() {
                counts.add("losers dropped");
            }
        }
        // It may have begun only after its lease was lost.
        let from = lost_at.max(of_earlier.started_at);
        let told_by = case.deadline(worker, from, case.terms.told_within);
        let told = of_earlier.told_at.is_some_and(|at| at <= told_by);
        findings.demand(told || *until <= told_by, "lost.untold", || {
            let late = until - told_by;
            format!("{name} lost its lease at {lost_at} and went on untold, {late} µs too long")
        });
        let within = case.terms.told_within + case.terms.shutdown_timeout;
        let ended_by = case.deadline(worker, from, within);
        findings.demand(*until <= ended_by, "lost.unended", || {
            let late = until - ended_by;
            format!("{name} lost its lease at {lost_at} and was not ended, {late} µs too long")
        });
    }
}
