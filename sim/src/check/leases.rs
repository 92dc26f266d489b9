//! At most one unexpired lease a job; leases last as long as asked for; those
//! that ran out are found.

use job_engine::store::Written;
use job_engine::{Command, Reply};

use super::books::Books;
use super::transition::{Change, Transition};
use super::{Verdict, Violation, ensure};
use crate::scenario::job_key;

pub(super) fn transition(books: &Books, change: &Transition<'_>) -> Verdict {
    let Some((before, after)) = change.both() else {
        return Ok(());
    };
    let store = books.now.store;
    match change.change {
        Change::Claim(claim, _) | Change::Left(claim, _) => {
            let by = (claim.id.worker, claim.id.seq);
            let own = |lease: job_engine::history::Lease| (lease.worker, lease.claim_seq) == by;
            ensure!(
                before.lease.is_none_or(|lease| claim.repeat && own(lease)),
                "leases.two",
                "{:?} was claimed while {:?} held it",
                claim.id,
                before.lease
            );
            let lease = after.lease;
            ensure!(
                lease.is_some_and(
                    |lease| own(lease) && lease.expires_at == store.saturating_add(claim.lease)
                ),
                "leases.length",
                "a claim for {:?} at {store} gave {lease:?}",
                claim.lease
            );
        }
        Change::Heartbeat(_, length, Written::Applied) => {
            let expires_at = after.lease.map(|lease| lease.expires_at);
            ensure!(
                expires_at == Some(store.saturating_add(length)),
                "leases.length",
                "a heartbeat for {length:?} at {store} gave a lease until {expires_at:?}"
            );
        }
        Change::Reclaim(_, reclaimed) => {
            ensure!(
                reclaimed.run.fence == before.fence,
                "leases.reclaim",
                "run {} was taken back while {before:?}",
                reclaimed.run.fence
            );
            let lease = before.lease;
            ensure!(
                lease.is_some_and(|lease| lease.expires_at <= store),
                "leases.early",
                "at {store} a job was taken back that was {lease:?}"
            );
        }
        Change::Finish(..)
        | Change::Spawn(..)
        | Change::Checkpoint(..)
        | Change::Hold(..)
        | Change::Heartbeat(..) => {
            ensure!(
                change.ended_now() || before.lease == after.lease,
                "leases.length",
                "{:?} changed the lease {:?} to {:?}",
                change.change,
                before.lease,
                after.lease
            );
        }
    }
    Ok(())
}

/// A reclaim that had room for more left no lapsed job of its types, but for
/// those whose row the transaction of their runner may hold.
pub(super) fn after(books: &Books, command: &Command, reply: &Reply) -> Verdict {
    let (Command::Reclaim(reclaim), Reply::Reclaimed(reclaimed)) = (command, reply) else {
        return Ok(());
    };
    let jobs_max = reclaim.jobs_max as usize;
    ensure!(
        reclaimed.len() <= jobs_max,
        "leases.reclaim",
        "{} jobs were taken back, {jobs_max} were asked for",
        reclaimed.len()
    );
    if reclaimed.len() == jobs_max {
        return Ok(());
    }
    for id in &books.running {
        let Some(book) = books.job(*id) else { continue };
        let lease = book.seen.and_then(|seen| seen.lease);
        let lapsed = lease.is_some_and(|lease| lease.expires_at <= books.now.store);
        let job_type = crate::scenario::job_type(book.spec.job_type);
        let named = reclaim.policies.iter().any(|p| p.job_type == job_type);
        let last = book.runs.last();
        let held = last.is_some_and(|run| run.committing && run.is_executing());
        if lapsed && named && !held {
            return Err(Violation::new(
                "leases.overlooked",
                format!("a reclaim at {} left {lease:?}", books.now.store),
            )
            .of_job(job_key(*id)));
        }
    }
    Ok(())
}
