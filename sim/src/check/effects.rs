//! What a runner writes in the transaction that ends its run is committed with
//! that end, once, or not at all.

use job_engine::ModelStore;
use job_engine::lifecycle::RunEnd;

use super::books::Books;
use super::{Verdict, Violation};
use crate::event::Event;
use crate::scenario::{EndSpec, job_key};

pub(super) fn event(books: &Books, event: &Event<'_>) -> Verdict {
    let Event::Committed { who, run } = event else {
        return Ok(());
    };
    let book = books.run(*run);
    let recorded = book.and_then(|book| book.recorded);
    let fenced = book.is_some_and(|book| book.settled);
    let first = book.is_some_and(|book| book.commits == 0);
    if fenced && first {
        return Ok(());
    }
    Err(Violation::new(
        "effects.unfenced",
        format!(
            "{who} committed a transaction for run {}, whose end is {recorded:?}, after {} others",
            run.fence,
            book.map_or(0, |book| book.commits)
        ),
    )
    .of_job(job_key(run.job))
    .of(*who))
}

pub(super) fn finish(books: &Books, model: &ModelStore) -> Verdict {
    for job in model.jobs() {
        let Some(book) = books.job(job.id) else {
            continue;
        };
        let key = book.spec.key;
        let mut completing = 0;
        for (place, run) in book.runs.iter().enumerate() {
            let spec = book.spec.run(place as i64 + 1);
            let completed = run.recorded == Some(RunEnd::Completed);
            if completed && spec.end == EndSpec::CompleteTx {
                completing += 1;
                if run.commits != 1 {
                    return Err(Violation::new(
                        "effects.missing",
                        format!(
                            "run {} completed in a transaction that was committed {} times",
                            place + 1,
                            run.commits
                        ),
                    )
                    .of_job(key));
                }
            }
        }
        for child in &books.scenario.jobs {
            let spawned = books
                .job(child.id())
                .is_some_and(|book| book.seen.is_some());
            if child.parent == Some(key) && spawned != (completing == 1) {
                return Err(Violation::new(
                    "effects.child",
                    format!(
                        "job {} is to be spawned by the completion of job {key}: \
                         it exists: {spawned}; completions: {completing}",
                        child.key
                    ),
                )
                .of_job(key));
            }
        }
    }
    Ok(())
}
