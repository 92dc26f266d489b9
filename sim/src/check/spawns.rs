//! A spawn makes one job, however often it is sent, and its caller is told the
//! truth.

use job_engine::store::Spawned;

use super::books::Books;
use super::transition::{Change, Transition};
use super::{Verdict, Violation, ensure};
use crate::event::Event;
use crate::scenario::job_id;

pub(super) fn transition(books: &Books, change: &Transition<'_>) -> Verdict {
    let Change::Spawn(new, spawned) = change.change else {
        return Ok(());
    };
    let Some(before) = change.before else {
        ensure!(
            spawned != Spawned::DuplicateId,
            "spawns.refused",
            "a job was refused for its id, and there is none with it"
        );
        return Ok(());
    };
    let repeated = books.job(change.job).and_then(|book| book.token) == Some(new.token);
    let expected = if repeated {
        Spawned::Created
    } else {
        Spawned::DuplicateId
    };
    ensure!(
        spawned == expected,
        "spawns.repeat",
        "a spawn of a job that exists, by the same token: {repeated}, was answered {spawned:?}"
    );
    ensure!(
        change.after == Some(before),
        "spawns.repeat",
        "a spawn of a job that exists changed it from {before:?} to {:?}",
        change.after
    );
    Ok(())
}

pub(super) fn event(books: &Books, event: &Event<'_>) -> Verdict {
    let Event::Spawned {
        who,
        job,
        again,
        spawned: Some(spawned),
    } = event
    else {
        return Ok(());
    };
    let book = books.job(job_id(*job));
    let exists = book.is_some_and(|book| book.seen.is_some());
    let rivals = book.is_some_and(|book| book.spec.again_ms.is_some());
    let truth = match spawned {
        Spawned::Created => exists,
        Spawned::DuplicateId => exists && (*again || rivals),
        Spawned::DuplicateUniqueType(existing) => {
            let place = book.map(|book| book.spec.job_type);
            let holder = place.and_then(|place| books.unique.get(&place));
            holder == Some(existing) && *existing != job_id(*job)
        }
    };
    if truth {
        return Ok(());
    }
    Err(Violation::new(
        "spawns.told",
        format!("{who} was told {spawned:?}; the job exists: {exists}"),
    )
    .of_job(*job))
}
