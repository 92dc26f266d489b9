//! Every claim has the next fence, and only the current one writes.

use job_engine::lifecycle::RunEnd;
use job_engine::store::{Outcome, Written};

use super::transition::{Change, Transition};
use super::{Verdict, ensure};

pub(super) fn transition(change: &Transition<'_>) -> Verdict {
    let Some((before, after)) = change.both() else {
        return Ok(());
    };
    match change.change {
        Change::Claim(_, job) => {
            let renewed = before.lease.is_some();
            let expected = if renewed {
                before.fence
            } else {
                before.fence.next()
            };
            ensure!(
                after.fence == expected && job.run.fence == expected && after.is_by(job.run),
                "fences.claim",
                "a claim gave the fence {}, and the row has {}, instead of {expected}",
                job.run.fence,
                after.fence
            );
        }
        Change::Finish(finish, written) => {
            let runs = change.row.map_or(&[][..], |row| &row.runs);
            // What ended it before, if this is a repeat.
            let end = finish.outcome.end();
            let earlier = &runs[..before.runs.min(runs.len())];
            let repeats = earlier
                .iter()
                .any(|run| run.run(change.job) == finish.run && run.end == end);
            let expected = change.ran(finish.run) || repeats;
            ensure!(
                (written == Written::Applied) == expected,
                "fences.finish",
                "the end {end:?} of run {} was {written:?} while {before:?}",
                finish.run.fence
            );
            ensure!(
                change.ran(finish.run) || before == after,
                "fences.finish",
                "the end {end:?} of run {} changed {before:?} to {after:?}",
                finish.run.fence
            );
            ensure!(
                !matches!(finish.outcome, Outcome::Completed)
                    || written == Written::Stale
                    || after.last_end == Some(RunEnd::Completed),
                "fences.finish",
                "a completed run is recorded as {:?}",
                after.last_end
            );
        }
        Change::Heartbeat(run, _, written) => {
            let expected = change.ran(run);
            ensure!(
                (written == Written::Applied) == expected,
                "fences.heartbeat",
                "a heartbeat of run {} was {written:?} while {before:?}",
                run.fence
            );
            ensure!(
                expected || before == after,
                "fences.heartbeat",
                "a stale heartbeat of run {} changed {before:?} to {after:?}",
                run.fence
            );
        }
        Change::Checkpoint(checkpoint, written) => ensure!(
            (written == Written::Applied) == change.ran(checkpoint.run),
            "fences.checkpoint",
            "a checkpoint of run {} was {written:?} while {before:?}",
            checkpoint.run.fence
        ),
        Change::Hold(run, written) => ensure!(
            (written == Written::Applied) == change.ran(run),
            "fences.hold",
            "a hold of run {} was {written:?} while {before:?}",
            run.fence
        ),
        Change::Left(_, left) => ensure!(
            change.ran(left.run),
            "fences.claim",
            "a claim names run {} while {before:?}",
            left.run.fence
        ),
        Change::Spawn(..) | Change::Reclaim(..) => ensure!(
            after.fence == before.fence,
            "fences.claim",
            "the fence went from {} to {} without a claim",
            before.fence,
            after.fence
        ),
    }
    Ok(())
}
