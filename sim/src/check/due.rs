//! Nothing is claimed early, the longest due comes first, and a claim that has
//! room takes all that is due.

use job_engine::lifecycle::RunEnd;
use job_engine::store::Spawned;
use job_engine::{Command, JobId, Reply, Timestamp};

use super::books::Books;
use super::transition::{Change, Transition};
use super::{Verdict, ensure};
use crate::scenario::type_place;

pub(super) fn transition(books: &Books, change: &Transition<'_>) -> Verdict {
    let store = books.now.store;
    match change.change {
        Change::Claim(_, job) => {
            let Some(before) = change.before.filter(|before| before.lease.is_none()) else {
                return Ok(());
            };
            ensure!(
                before.due_at <= store,
                "due.early",
                "a job that is due at {} was claimed at {store}",
                before.due_at
            );
            ensure!(
                job.due_at == before.due_at,
                "due.told",
                "a job that was due at {} is said to have been at {}",
                before.due_at,
                job.due_at
            );
        }
        Change::Spawn(new, Spawned::Created) if change.before.is_none() => {
            let (due_at, after) = (new.due.resolve(store), change.after);
            ensure!(
                after.is_some_and(|after| after.due_at == due_at),
                "due.spawned",
                "a job that was spawned for {due_at} is {after:?}"
            );
        }
        Change::Reclaim(_, reclaimed) if reclaimed.end == RunEnd::Lost => {
            let after = change.after;
            ensure!(
                after.is_some_and(|after| after.due_at == store),
                "due.lost",
                "a lost job that was found at {store} is {after:?}"
            );
        }
        _ => {}
    }
    Ok(())
}

pub(super) fn after(books: &Books, command: &Command, reply: &Reply) -> Verdict {
    let (Command::Claim(claim), Reply::Claimed(claimed)) = (command, reply) else {
        return Ok(());
    };
    let store = books.now.store;
    ensure!(
        claimed.now == store,
        "due.now",
        "the answer to a claim at {store} says that it is {}",
        claimed.now
    );
    let found_again = claim.repeat && !claimed.is_empty();
    if found_again {
        return Ok(());
    }
    for (place, jobs_max) in Books::quotas(command) {
        let of_type = claimed
            .jobs
            .iter()
            .filter(|job| type_place(&job.job_type) == place);
        let (mut taken, mut last) = (0, (Timestamp::MIN, JobId(uuid::Uuid::nil())));
        for job in of_type {
            taken += 1;
            last = last.max((job.due_at, job.run.job));
        }
        ensure!(
            taken <= jobs_max,
            "due.quota",
            "a claim took {taken} jobs of a type of which {jobs_max} were asked for"
        );
        let from = (place, Timestamp::MIN, JobId(uuid::Uuid::nil()));
        let next = books.pending.range(from..).next();
        let Some((_, due_at, id)) = next.filter(|(of, ..)| *of == place) else {
            continue;
        };
        ensure!(
            taken == jobs_max || *due_at > store,
            "due.left",
            "a claim with room for {jobs_max} took {taken} at {store} and left one due at {due_at}"
        );
        ensure!(
            taken == 0 || last <= (*due_at, *id),
            "due.order",
            "a claim took a job due at {} and left one due at {due_at}",
            last.0
        );
        if taken < jobs_max {
            let told = claimed
                .next_due
                .iter()
                .find(|(of, _)| type_place(of) == place);
            ensure!(
                told.is_some_and(|(_, at)| at == due_at),
                "due.next",
                "the next job is due at {due_at}, the answer says {told:?}"
            );
        }
    }
    for job in &claimed.jobs {
        let place = type_place(&job.job_type);
        ensure!(
            Books::quotas(command).any(|(of, _)| of == place),
            "due.quota",
            "a claim took a job of the type {}, which it did not name",
            job.job_type
        );
    }
    Ok(())
}
