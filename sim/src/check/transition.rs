//! What one command does to one job.

use std::time::Duration;

use job_engine::history::Snapshot;
use job_engine::store::{
    Checkpoint, Claim, ClaimedJob, Finish, Left, NewJob, Reclaimed, Spawned, TypePolicy, Written,
};
use job_engine::{Command, JobId, ModelStore, Reply, Run};

use super::books::{Books, RunBook, Seen};
use super::{Verdict, Violation};
use crate::event::{Call, Moment, Who};

/// One job before and after a command that names it, or its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transition<'a> {
    pub(super) now: Moment,
    pub(super) call: Call,
    pub(super) job: JobId,
    pub(super) before: Option<Seen>,
    pub(super) after: Option<Seen>,
    pub(super) row: Option<&'a Snapshot>,
    pub(super) change: Change<'a>,
}

/// Why the job is named.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change<'a> {
    Spawn(&'a NewJob, Spawned),
    Claim(&'a Claim, &'a ClaimedJob),
    Left(&'a Claim, &'a Left),
    Finish(&'a Finish, Written),
    Heartbeat(Run, Duration, Written),
    Checkpoint(&'a Checkpoint, Written),
    Hold(Run, Written),
    Reclaim(Option<&'a TypePolicy>, &'a Reclaimed),
}

impl Transition<'_> {
    /// Both sides of a job that was there before and still is.
    pub(super) fn both(&self) -> Option<(Seen, Seen)> {
        Some((self.before?, self.after?))
    }

    /// Whether the run of this fence is what runs before the command.
    pub(super) fn ran(&self, run: Run) -> bool {
        let before = self.before;
        before
            .is_some_and(|seen| seen.lease.is_some() && seen.fence == run.fence && seen.is_by(run))
    }

    /// Whether this command, and not an earlier one, ended the run.
    pub(super) fn ended_now(&self) -> bool {
        matches!(self.both(), Some((before, after)) if after.runs > before.runs)
    }
}

/// Calls `check` for each job that the command or its answer names, in their
/// order, and takes in what the job has become.
pub(super) fn each<'a>(
    books: &mut Books,
    model: &'a ModelStore,
    call: Call,
    command: &'a Command,
    reply: &'a Reply,
    mut check: impl FnMut(&Books, &Transition<'a>) -> Verdict,
) -> Verdict {
    books.commands += 1;
    let mut one = |books: &mut Books, job: JobId, change: Change<'a>| {
        let row = model.find(job);
        let transition = Transition {
            now: books.now,
            call,
            job,
            before: books.job(job).and_then(|book| book.seen),
            after: row.map(Seen::of),
            row,
            change,
        };
        check(books, &transition)?;
        take_in(books, &transition);
        Ok(())
    };
    match (command, reply) {
        (Command::Spawn(jobs), Reply::Spawned(spawned)) => {
            same_length(jobs.len(), spawned.len())?;
            let mut jobs = jobs.iter().zip(spawned);
            jobs.try_for_each(|(new, spawned)| one(books, new.id, Change::Spawn(new, *spawned)))
        }
        (Command::Claim(claim), Reply::Claimed(claimed)) => {
            let mut jobs = claimed.jobs.iter();
            jobs.try_for_each(|job| one(books, job.run.job, Change::Claim(claim, job)))?;
            let mut left = claimed.left.iter();
            left.try_for_each(|left| one(books, left.run.job, Change::Left(claim, left)))
        }
        (Command::Finish(finishes), Reply::Finished(written)) => {
            same_length(finishes.len(), written.len())?;
            let runs: Vec<Run> = finishes.iter().map(|finish| finish.run).collect();
            let mut finishes = finishes.iter().zip(written);
            finishes.try_for_each(|(finish, written)| {
                if is_outdated(books, &runs, finish.run) {
                    // Its end may have been recorded before, and the reply lost.
                    let recorded = books.run(finish.run).and_then(|run| run.recorded);
                    let repeats = recorded == Some(finish.outcome.end());
                    return outdated(finish.run, repeats, *written);
                }
                one(books, finish.run.job, Change::Finish(finish, *written))
            })
        }
        (Command::Heartbeat(heartbeat), Reply::Heartbeat(written)) => {
            same_length(heartbeat.runs.len(), written.len())?;
            let mut runs = heartbeat.runs.iter().zip(written);
            runs.try_for_each(|(run, written)| {
                if is_outdated(books, &heartbeat.runs, *run) {
                    return outdated(*run, false, *written);
                }
                let change = Change::Heartbeat(*run, heartbeat.lease, *written);
                one(books, run.job, change)
            })
        }
        (Command::Checkpoint(checkpoint), Reply::Checkpointed(written)) => {
            let change = Change::Checkpoint(checkpoint, *written);
            one(books, checkpoint.run.job, change)
        }
        (Command::Hold(run), Reply::Held(written)) => {
            one(books, run.job, Change::Hold(*run, *written))
        }
        (Command::Reclaim(reclaim), Reply::Reclaimed(reclaimed)) => {
            reclaimed.iter().try_for_each(|reclaimed| {
                let mut policies = reclaim.policies.iter();
                let policy = policies.find(|policy| policy.job_type == reclaimed.job_type);
                one(books, reclaimed.run.job, Change::Reclaim(policy, reclaimed))
            })
        }
        (Command::Find(_), Reply::Found(_)) | (Command::History(_), Reply::History(_)) => Ok(()),
        _ => Err(Violation::new(
            "store.reply",
            format!("the answer to {command:?} is {reply:?}"),
        )),
    }
}

/// Whether the command names a later run of the same job, too: a worker can be
/// at an old run that has lost its lease and at the current one. What the job
/// has become is then the work of the other.
fn is_outdated(books: &Books, runs: &[Run], run: Run) -> bool {
    let newer = |other: &Run| other.job == run.job && other.fence > run.fence;
    runs.iter().any(newer) && books.run(run).is_some_and(|run| run.recorded.is_some())
}

fn outdated(run: Run, repeats: bool, written: Written) -> Verdict {
    super::ensure!(
        (written == Written::Applied) == repeats,
        "fences.outdated",
        "run {} was followed by a later one, and a write of it was {written:?}",
        run.fence
    );
    Ok(())
}

fn same_length(asked: usize, answered: usize) -> Verdict {
    super::ensure!(
        asked == answered,
        "store.reply",
        "{asked} were asked about, {answered} answered"
    );
    Ok(())
}

fn take_in(books: &mut Books, transition: &Transition<'_>) {
    let (job, now_us) = (transition.job, transition.now.true_us);
    books.see(job, transition.after);
    let ahead_us = books.store_ahead_us();
    let claimer = match transition.change {
        Change::Claim(claim, _) => books.who(claim.id.worker),
        _ => None,
    };
    if let Change::Spawn(new, Spawned::Created) = transition.change
        && new.unique_type
    {
        let place = crate::scenario::type_place(&new.job_type);
        books.unique.entry(place).or_insert(new.id);
    }
    let Some(book) = books.job_mut(job) else {
        return;
    };
    match transition.change {
        Change::Spawn(new, Spawned::Created) => {
            book.token.get_or_insert(new.token);
        }
        Change::Claim(claim, claimed) => {
            let place = usize::try_from(claimed.run.fence.0 - 1).unwrap_or(usize::MAX);
            let believed_until_us = now_us.saturating_add(claim.lease.as_micros() as u64);
            if place == book.runs.len() {
                book.runs.push(RunBook {
                    who: claimer.unwrap_or(Who::OUTSIDE),
                    claimed_us: now_us,
                    renewed_ahead_us: ahead_us,
                    believed_until_us,
                    heard: false,
                    started_us: None,
                    concluded: false,
                    told: None,
                    stale: false,
                    aborted: false,
                    refused: false,
                    kept: [false; 2],
                    committing: false,
                    commits: 0,
                    ended: None,
                    ended_us: 0,
                    recorded: None,
                    settled: false,
                    logged: None,
                    logged_often: false,
                });
            } else if let Some(run) = book.runs.get_mut(place) {
                run.renewed_ahead_us = ahead_us;
                run.believed_until_us = believed_until_us;
            }
        }
        Change::Left(_, left) => {
            if let Some(run) = book.runs.get_mut((left.run.fence.0 - 1) as usize) {
                run.renewed_ahead_us = ahead_us;
            }
        }
        Change::Heartbeat(run, lease, Written::Applied) => {
            if let Some(run) = book.runs.get_mut((run.fence.0 - 1) as usize) {
                run.renewed_ahead_us = ahead_us;
                run.believed_until_us = now_us.saturating_add(lease.as_micros() as u64);
            }
        }
        Change::Checkpoint(checkpoint, written) => {
            if written == Written::Applied {
                book.state = Some(checkpoint.state.clone());
            }
            if let Some(run) = book.runs.get_mut((checkpoint.run.fence.0 - 1) as usize) {
                run.kept[usize::from(written == Written::Stale)] = true;
            }
        }
        Change::Finish(Finish { run, outcome }, Written::Applied) => {
            if let Some(run) = book.runs.get_mut((run.fence.0 - 1) as usize)
                && run.recorded.is_none()
            {
                run.recorded = Some(outcome.end());
                run.settled = !transition.call.is_of_engine();
            }
        }
        Change::Reclaim(_, reclaimed) => {
            if let Some(run) = book.runs.get_mut((reclaimed.run.fence.0 - 1) as usize) {
                run.recorded.get_or_insert(reclaimed.end);
            }
        }
        Change::Spawn(..) | Change::Heartbeat(..) | Change::Finish(..) | Change::Hold(..) => {}
    }
}
