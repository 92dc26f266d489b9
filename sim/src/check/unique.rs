//! At most one unique job of a type, ever: through retries, and after its end.

use job_engine::store::Spawned;

use super::books::Books;
use super::transition::{Change, Transition};
use super::{Verdict, ensure};
use crate::scenario::type_place;

pub(super) fn transition(books: &Books, change: &Transition<'_>) -> Verdict {
    let Change::Spawn(new, spawned) = change.change else {
        return Ok(());
    };
    let holder = books.unique.get(&type_place(&new.job_type)).copied();
    match spawned {
        Spawned::Created => ensure!(
            !new.unique_type || holder.is_none_or(|holder| holder == new.id),
            "unique.two",
            "there is a second unique job of the type {}",
            new.job_type
        ),
        Spawned::DuplicateUniqueType(existing) => ensure!(
            new.unique_type && existing != new.id && holder == Some(existing),
            "unique.refused",
            "a unique job of the type {} was refused for {existing}, and the one that exists is \
             {holder:?}",
            new.job_type
        ),
        Spawned::DuplicateId => {}
    }
    Ok(())
}
