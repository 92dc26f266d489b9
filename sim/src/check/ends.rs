//! What is recorded of a run is what its runner said, once, and each run runs
//! once.

use job_engine::Run;
use job_engine::lifecycle::RunEnd;
use job_engine::store::Written;
use job_engine::worker::Ended;

use super::books::Books;
use super::transition::{Change, Transition};
use super::{Verdict, ensure};
use crate::event::Event;
use crate::scenario::{EndSpec, job_key};

pub(super) fn transition(books: &Books, change: &Transition<'_>) -> Verdict {
    let Change::Finish(finish, Written::Applied) = change.change else {
        return Ok(());
    };
    if !change.ran(finish.run) {
        return Ok(());
    }
    let Some(run) = books.run(finish.run) else {
        return Ok(());
    };
    let end = finish.outcome.end();
    if !change.call.is_of_engine() {
        ensure!(
            run.committing && planned_in_transaction(books, finish.run) == Some(end),
            "ends.recorded",
            "a transaction ended run {} as {end:?} while its runner was {:?}",
            finish.run.fence,
            run.ended
        );
        return Ok(());
    }
    let said = match (run.started_us, run.ended) {
        (None, _) => matches!(end, RunEnd::Released),
        (Some(_), Some(ended)) => ended.is(end),
        (Some(_), None) => false,
    };
    ensure!(
        said,
        "ends.recorded",
        "run {} was recorded as {end:?}, its runner ended as {:?}",
        finish.run.fence,
        run.ended
    );
    Ok(())
}

/// What a transaction of the runner is to end its run as.
fn planned_in_transaction(books: &Books, run: Run) -> Option<RunEnd> {
    match books.job(run.job)?.spec.run(run.fence.0).end {
        EndSpec::CompleteTx => Some(RunEnd::Completed),
        EndSpec::RescheduleTxMs(_) => Some(RunEnd::Rescheduled),
        EndSpec::SnoozeTxMs(_) => Some(RunEnd::Snoozed),
        EndSpec::GiveUpTx => Some(RunEnd::Errored),
        _ => None,
    }
}

pub(super) fn event(books: &Books, event: &Event<'_>) -> Verdict {
    match event {
        Event::Started { who, job } => {
            let run = books.run(job.run);
            let fresh = run.is_some_and(|run| run.who == *who && run.started_us.is_none());
            if !fresh {
                return Err(super::Violation::new(
                    "ends.started",
                    format!(
                        "{who} starts run {}, of which is known: {run:?}",
                        job.run.fence
                    ),
                )
                .of_job(job_key(job.run.job))
                .of(*who));
            }
        }
        Event::Ended { who, run, ended } => {
            let book = books.run(*run);
            if let Ended::Settled(outcome) = ended
                && let end = outcome.end()
                && book.is_some_and(|book| book.recorded != Some(end) || !book.settled)
            {
                let recorded = book.and_then(|book| book.recorded);
                return Err(super::Violation::new(
                    "ends.settled",
                    format!(
                        "run {} in {who} says that its end {end:?} is recorded, which is {recorded:?}",
                        run.fence
                    ),
                )
                .of_job(job_key(run.job))
                .of(*who));
            }
            let first = book.is_some_and(|book| book.is_executing());
            if !first {
                return Err(super::Violation::new(
                    "ends.ended",
                    format!(
                        "run {} ends in {who}, of which is known: {book:?}",
                        run.fence
                    ),
                )
                .of_job(job_key(run.job))
                .of(*who));
            }
        }
        _ => {}
    }
    Ok(())
}
