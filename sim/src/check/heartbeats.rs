//! Heartbeats name the runs that the worker really runs, all of them and no
//! others, and come in time, also while it shuts down.

use job_engine::limits::BATCH_LEN_MAX;
use job_engine::store::Heartbeat;
use job_engine::{Command, Run};

use super::books::Books;
use super::{Verdict, Violation};
use crate::event::{Event, Who};
use crate::scenario::job_key;

/// How late one may be, in microseconds.
const SLACK_US: u64 = 150_000;

pub(super) fn event(books: &Books, event: &Event<'_>) -> Verdict {
    let who = match event {
        Event::Sent { call, command } if call.is_of_engine() => {
            if let Command::Heartbeat(heartbeat) = command {
                return names(books, call.who, heartbeat);
            }
            call.who
        }
        Event::Answered { call, .. } => call.who,
        Event::Ended { who, .. } | Event::Started { who, .. } => *who,
        _ => return Ok(()),
    };
    in_time(books, who)
}

fn names(books: &Books, who: Who, heartbeat: &Heartbeat) -> Verdict {
    in_time(books, who)?;
    let wrong = |run: &Run, text: String| {
        Err(Violation::new("heartbeats.names", text)
            .of_job(job_key(run.job))
            .of(who))
    };
    for run in &heartbeat.runs {
        let owner = books.run(*run).map(|run| run.who);
        if owner != Some(who) {
            let text = format!("{who} renews the lease of run {}, of {owner:?}", run.fence);
            return wrong(run, text);
        }
    }
    if heartbeat.runs.len() >= BATCH_LEN_MAX {
        return Ok(());
    }
    for job in &books.running {
        let Some(book) = books.job(*job) else {
            continue;
        };
        let Some(seen) = book.seen else { continue };
        let Some(run) = seen.run(*job) else { continue };
        // A command may be on its way to its task when a runner starts.
        let before = |at_us: u64| at_us < books.now.true_us;
        let own = book
            .run(seen.fence)
            .is_some_and(|run| run.who == who && run.started_us.is_some_and(before));
        let given_up = book.run(seen.fence).is_some_and(|run| run.refused);
        if own && !given_up && !heartbeat.runs.contains(&run) {
            let text = format!("{who} does not renew the lease of its run {}", run.fence);
            return wrong(&run, text);
        }
    }
    Ok(())
}

fn in_time(books: &Books, who: Who) -> Verdict {
    let Some(worker) = books.worker(who).filter(|worker| worker.is_up(who)) else {
        return Ok(());
    };
    let holds = |run: &Run| books.run(*run).is_some_and(|run| !run.stale);
    let busy = worker.executing.iter().any(holds);
    if !busy || worker.paused {
        return Ok(());
    }
    let Some(answered_us) = worker.pace.heartbeat_silent_since() else {
        return Ok(());
    };
    let disturbed = worker.disturbed_until.max(books.all_disturbed_until);
    let since = answered_us.max(worker.busy_since).max(disturbed);
    let period_us = worker.knobs.lease_ms.max(40) * 250;
    let now_us = books.now.true_us;
    if now_us <= since + period_us + period_us / 100 + SLACK_US {
        return Ok(());
    }
    Err(Violation::new(
        "heartbeats.late",
        format!(
            "{who} has had runs at work since {} us and no heartbeat under way since {answered_us} us; \
             it is {now_us} us, and a quarter of its lease is {period_us} us",
            worker.busy_since
        ),
    )
    .of(who))
}
