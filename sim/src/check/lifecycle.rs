//! No job disappears, its state moves only along legal edges, and its history
//! only grows and folds to its row.

use job_engine::ModelStore;
use job_engine::lifecycle::{RunEnd, State};
use job_engine::store::{Outcome, Spawned, Written};

use super::books::{Books, Seen};
use super::transition::{Change, Transition};
use super::{Verdict, Violation, ensure};
use crate::scenario::job_key;

/// A scenario with at most so many jobs is compared as a whole after every
/// command; a larger one after one of [`SWEEP_EVERY`].
const SWEEP_JOBS_MAX: usize = 6;
const SWEEP_EVERY: u64 = 64;

pub(super) fn transition(change: &Transition<'_>) -> Verdict {
    ensure!(
        change.before.is_none() || change.after.is_some(),
        "lifecycle.disappeared",
        "the job was {:?} and is gone",
        change.before
    );
    let Some(after) = change.after else {
        ensure!(
            !matches!(change.change, Change::Spawn(_, Spawned::Created)),
            "lifecycle.disappeared",
            "the store says that the job was created, and there is none"
        );
        return Ok(());
    };
    let Some(before) = change.before else {
        ensure!(
            matches!(change.change, Change::Spawn(_, Spawned::Created)),
            "lifecycle.appeared",
            "the job came into being by {:?}",
            change.change
        );
        ensure!(
            after.state == State::Pending && after.attempt == 1 && after.runs == 0,
            "lifecycle.edge",
            "a new job is {after:?}"
        );
        return Ok(());
    };
    edge(change, before, after)?;
    history(change, before, after)
}

fn edge(change: &Transition<'_>, before: Seen, after: Seen) -> Verdict {
    let expected = match change.change {
        Change::Claim(..) | Change::Left(..) => State::Running,
        Change::Finish(finish, Written::Applied) if change.ran(finish.run) => {
            match finish.outcome {
                Outcome::Completed => State::Completed,
                Outcome::Errored { .. } => State::Errored,
                Outcome::Rescheduled { .. }
                | Outcome::Snoozed { .. }
                | Outcome::Retried { .. }
                | Outcome::Released
                | Outcome::Interrupted
                | Outcome::Undecodable { .. } => State::Pending,
            }
        }
        Change::Reclaim(_, reclaimed) if reclaimed.end == RunEnd::Abandoned => State::Errored,
        Change::Reclaim(..) => State::Pending,
        Change::Spawn(..)
        | Change::Finish(..)
        | Change::Heartbeat(..)
        | Change::Checkpoint(..)
        | Change::Hold(..) => before.state,
    };
    ensure!(
        after.state == expected,
        "lifecycle.edge",
        "the job went from {:?} to {:?} by {:?}; expected {expected:?}",
        before.state,
        after.state,
        change.change
    );
    Ok(())
}

fn history(change: &Transition<'_>, before: Seen, after: Seen) -> Verdict {
    let ended = before.state == State::Running && after.state != State::Running;
    let runs = before.runs + usize::from(ended);
    ensure!(
        after.runs == runs,
        "lifecycle.history",
        "the history has {} runs instead of {runs} after {:?}",
        after.runs,
        change.change
    );
    let Some(row) = change.row else { return Ok(()) };
    if ended {
        let end = match change.change {
            Change::Finish(finish, _) => finish.outcome.end(),
            Change::Reclaim(_, reclaimed) => reclaimed.end,
            _ => return Ok(()),
        };
        let last = row.runs.last();
        ensure!(
            last.is_some_and(|run| run.end == end && run.fence == before.fence),
            "lifecycle.history",
            "the history says {last:?} of a run {} that ended by {end:?}",
            before.fence
        );
        // A store writes its number, and reads it back.
        ensure!(
            RunEnd::from_code(end.code()) == Some(end),
            "lifecycle.history",
            "{end:?} is written as {}, which is read as {:?}",
            end.code(),
            RunEnd::from_code(end.code())
        );
        let outcome = match change.change {
            Change::Finish(finish, _) => Some(&finish.outcome),
            _ => None,
        };
        let failed = matches!(
            outcome,
            Some(Outcome::Retried { .. } | Outcome::Errored { .. })
        );
        let says_why = last.is_some_and(|run| run.error.is_some());
        ensure!(
            end.is_failure() == failed && (says_why || !failed),
            "lifecycle.history",
            "{end:?} after {outcome:?} is a failure: {}; it has an error: {says_why}",
            end.is_failure()
        );
        ensure!(
            end.is_final() == row.live.is_none(),
            "lifecycle.history",
            "{end:?} is final: {}; of the job goes on: {:?}",
            end.is_final(),
            row.live
        );
    }
    ensure!(
        after.state.is_final() == row.live.is_none(),
        "lifecycle.history",
        "{:?} is final: {}; of the job goes on: {:?}",
        after.state,
        after.state.is_final(),
        row.live
    );
    ensure!(
        row.fold() == Some(after.state),
        "lifecycle.history",
        "the history folds to {:?}, the row says {:?}",
        row.fold(),
        after.state
    );
    Ok(())
}

/// Jobs that a command does not name are left as they are.
pub(super) fn others(books: &Books, model: &ModelStore) -> Verdict {
    if books.known > SWEEP_JOBS_MAX && !books.commands.is_multiple_of(SWEEP_EVERY) {
        return Ok(());
    }
    all(books, model)
}

/// All jobs are what the books say.
pub(super) fn all(books: &Books, model: &ModelStore) -> Verdict {
    let mut known = 0;
    for job in model.jobs() {
        known += 1;
        let seen = books.job(job.id).and_then(|book| book.seen);
        let now = Seen::of(job);
        if seen != Some(now) {
            return Err(Violation::new(
                "lifecycle.untouched",
                format!("no command named the job, which was {seen:?} and is {now:?}"),
            )
            .of_job(job_key(job.id)));
        }
    }
    ensure!(
        known == books.known,
        "lifecycle.disappeared",
        "there are {known} jobs, there were {}",
        books.known
    );
    Ok(())
}
