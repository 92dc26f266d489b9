//! A run is given the config of the spawn, and the state that the last
//! checkpoint kept. Who keeps one is told the truth.

use super::books::Books;
use super::transition::{Change, Transition};
use super::{Verdict, Violation, ensure};
use crate::event::Event;
use crate::scenario::job_key;

pub(super) fn transition(books: &Books, change: &Transition<'_>) -> Verdict {
    let Some(book) = books.job(change.job) else {
        return Ok(());
    };
    match change.change {
        Change::Claim(_, job) => {
            let spec = &book.spec;
            ensure!(
                job.config.as_str().parse() == Ok(spec.key)
                    && crate::scenario::type_place(&job.job_type) == spec.job_type,
                "data.config",
                "the job was spawned as {:?}, and claimed as {} with the config {}",
                spec.job_type,
                job.job_type,
                job.config.as_str()
            );
            ensure!(
                job.state == book.state,
                "data.state",
                "the last checkpoint kept {:?}, the run is given {:?}",
                text(book.state.as_ref()),
                text(job.state.as_ref())
            );
        }
        _ => {
            let Some(live) = change.row.and_then(|row| row.live.as_ref()) else {
                return Ok(());
            };
            let expected = match change.change {
                Change::Checkpoint(checkpoint, job_engine::store::Written::Applied) => {
                    Some(&checkpoint.state)
                }
                _ => book.state.as_ref(),
            };
            ensure!(
                live.state.as_ref() == expected,
                "data.state",
                "the last checkpoint kept {:?}, the row has {:?}",
                text(expected),
                text(live.state.as_ref())
            );
        }
    }
    Ok(())
}

pub(super) fn event(books: &Books, event: &Event<'_>) -> Verdict {
    let Event::Kept {
        who,
        run,
        written: Some(written),
    } = event
    else {
        return Ok(());
    };
    let place = usize::from(*written == job_engine::store::Written::Stale);
    if books.run(*run).is_some_and(|run| run.kept[place]) {
        return Ok(());
    }
    let text = format!(
        "run {} in {who} is told that its state was {written:?}",
        run.fence
    );
    Err(Violation::new("data.told", text)
        .of_job(job_key(run.job))
        .of(*who))
}

fn text(state: Option<&job_engine::Payload>) -> Option<&str> {
    state.map(job_engine::Payload::as_str)
}
