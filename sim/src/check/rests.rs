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
    let busy = worker.shutdown_us.is_some()
        || worker.pace.is_any_unanswered()
        || !worker.executing.is_empty()
        || !books.unstarted(who).is_empty();
    let period = Duration::from_millis(if worker.listening {
        worker.knobs.poll_ms
    } else {
        worker.knobs.poll_deaf_ms
    });
    let expected = (!busy).then(|| period.max(Duration::from_millis(10)));
    ensure!(
        rests == expected,
        "rests.said",
        "{who} says that it only looks for jobs, every {rests:?}; expected {expected:?}"
    );
    Ok(())
}
