//! The execution state is what the last run kept that had the right to.

use job_engine::lifecycle::RunEnd;

use super::Findings;
use super::case::JobCase;
use crate::processes::books::State;
use crate::processes::workload::Kind;

pub fn judge(job: &JobCase<'_>, findings: &mut Findings) {
    match job.kind {
        Kind::Turning => judge_turning(job, findings),
        Kind::Keeping => judge_keeping(job, findings),
        Kind::InTx
        | Kind::Fragile
        | Kind::Slow
        | Kind::Blocking
        | Kind::Retrying
        | Kind::Unique
        | Kind::Outside
        | Kind::Erroring
        | Kind::Parent => {}
    }
}

/// Kept in the transaction of the reschedule: by that run, and by no other.
fn judge_turning(job: &JobCase<'_>, findings: &mut Findings) {
    let mut kept = None;
    let mut turn = 0;
    for run in &job.runs {
        let Some(seen) = &run.seen else { continue };
        if seen.found != kept {
            let found = seen.found;
            let text = format!(
                "job {}, fence {}: found {found:?}, {kept:?} was kept",
                job.spec.id, run.end.fence
            );
            findings.add("state.torn", text);
        }
        if matches!(run.end.end, RunEnd::Rescheduled | RunEnd::Snoozed) {
            turn += 1;
            let by = seen.id;
            kept = Some(State { turn, by });
        }
    }
}

/// Kept before the reschedule: a run that did not live to tell may have kept it.
fn judge_keeping(job: &JobCase<'_>, findings: &mut Findings) {
    let mut kept = None;
    for (n, run) in job.runs.iter().enumerate() {
        let Some(seen) = &run.seen else { continue };
        let mut earlier = job.runs[..n].iter().filter_map(|run| run.seen.as_ref());
        let may_have = |state: State| {
            let next = state.turn == kept.map_or(0, |kept: State| kept.turn) + 1;
            next && earlier.any(|seen| seen.id == state.by && seen.kept.is_none())
        };
        if seen.found != kept && !seen.found.is_some_and(may_have) {
            let found = seen.found;
            let text = format!(
                "job {}, fence {}: found {found:?}, {kept:?} was kept",
                job.spec.id, run.end.fence
            );
            findings.add("state.lost", text);
        }
        kept = seen.found;
        if let Some(turn) = seen.kept {
            let by = seen.id;
            kept = Some(State { turn, by });
        }
        let (turns, end) = (job.spec.order.turns, run.end.end);
        let turn = kept.map_or(0, |kept| kept.turn);
        let fits = match end {
            RunEnd::Completed => turn == turns,
            RunEnd::Rescheduled | RunEnd::Snoozed => seen.kept.is_some(),
            _ => turn <= turns,
        };
        findings.demand(fits, "state.lost", || {
            let (id, fence) = (job.spec.id, run.end.fence);
            format!("job {id}, fence {fence}: {end:?} at turn {turn} of {turns}")
        });
    }
}
