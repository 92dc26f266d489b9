//! A worker says that it does nothing else than look for jobs exactly while that is so.

use std::time::Duration;

use super::Verdict;
use super::books::Books;
use super::ensure;
use crate::event::Who;

/// `rests`: how often `who` says that it looks, if it does nothing else.
pub(super) fn said(books: &Books, who: Who, rests: Option<Duration>) -> Verdict {
    let Some(worker) = books.worker(who).filter(|worker| worker.is_up(who)) else {
        return Ok(());
    };
    let pace = &worker.pace;
    let busy = worker.shutdown_us.is_some()
        || pace.is_any_under_way()
        || pace.waits_to_ask_again(books.now.true_us, worker.held_up_until)
        || !worker.executing.is_empty()
        || !books.unstarted(who).is_empty();
    let period = Duration::from_millis(worker.poll_ms());
    match rests {
        Some(rests) => ensure!(
            !busy && rests == period,
            "rests.said",
            "{who} says that it only looks for jobs, every {rests:?}; busy: {busy}, {period:?}"
        ),
        // When a wait after an error is over is for the clock of the worker to say.
        None => ensure!(
            busy || pace.is_any_unanswered(),
            "rests.said",
            "{who} says that it does more than to look for jobs, and has nothing to do"
        ),
    }
    Ok(())
}
