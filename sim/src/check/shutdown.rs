//! A shutdown claims nothing, asks, aborts in time, ends in time, and leaves
//! nothing running. What lost its lease is aborted, too.

use job_engine::Command;
use job_engine::store::Written;
use job_engine::worker::SETTLE_TIMEOUT;
use job_engine::{Reply, Run};

use super::books::{Books, Life, WorkerBook};
use super::obligations::{Obligation, SLACK_US};
use super::reclaims::quiet_us;
use super::{Verdict, Violation, ensure};
use crate::event::{Event, Who};
use crate::scenario::{OnStop, job_key};

/// How long it may take to put back what never started, in microseconds, while the store
/// takes it.
const PUT_BACK_US: u64 = 1_000_000;
/// How long a worker may take to stop once there is nothing left to wait for, in
/// microseconds.
const STOP_US: u64 = 1_000_000;

pub(super) fn event(books: &mut Books, event: &Event<'_>) -> Verdict {
    settled(books, event);
    match event {
        Event::ShutdownAsked { who } => {
            asked(books, *who);
            Ok(())
        }
        Event::Sent { call, command } if call.is_of_engine() => {
            silent_after_stop(books, call.who, "sends a command")?;
            // At the same moment it may not have heard of it.
            let now_us = books.now.true_us;
            let asked_us = books.worker(call.who).and_then(|worker| worker.shutdown_us);
            let draining = asked_us.is_some_and(|asked_us| asked_us < now_us);
            let wants = Books::quotas(command)
                .map(|(_, jobs_max)| jobs_max)
                .sum::<u32>();
            ensure!(
                !(draining && matches!(command, Command::Claim(_)) && wants > 0),
                "shutdown.claims",
                "{} asks for {wants} jobs while it shuts down",
                call.who
            );
            Ok(())
        }
        Event::Started { who, .. } => {
            silent_after_stop(books, *who, "starts a runner")?;
            let draining = books.worker(*who).is_some_and(|w| w.shutdown_us.is_some());
            ensure!(
                !draining,
                "shutdown.starts",
                "{who} starts a runner while it shuts down"
            );
            Ok(())
        }
        Event::Told { who, .. } | Event::Aborted { who, .. } => {
            silent_after_stop(books, *who, "tells a runner")
        }
        Event::Answered {
            call,
            result: Ok(Reply::Heartbeat(written)),
        } => {
            lost(books, call.who, written);
            Ok(())
        }
        Event::Answered {
            call,
            result: Ok(Reply::Claimed(claimed)),
        } if call.is_of_engine() => {
            let worker = books.worker(call.who).filter(|w| w.is_up(call.who));
            if worker.is_some_and(|worker| worker.shutdown_us.is_some()) {
                for job in &claimed.jobs {
                    put_back(books, call.who, job.run);
                }
            }
            Ok(())
        }
        Event::Stopped { who } => stopped(books, *who),
        _ => Ok(()),
    }
}

fn asked(books: &mut Books, who: Who) {
    let now_us = books.now.true_us;
    let Some(worker) = books.worker(who).filter(|worker| worker.is_up(who)) else {
        return;
    };
    if worker.shutdown_us.is_some() {
        return;
    }
    // A clock that was set back stands still until then.
    let counts_from = now_us.max(worker.disturbed_until);
    let abort_us = counts_from + worker.knobs.shutdown_timeout_ms * 1_000;
    let runs: Vec<Run> = worker.executing.iter().copied().collect();
    let stop_us = abort_us + SETTLE_TIMEOUT.as_micros() as u64;
    for run in runs {
        let abort = Obligation::Abort(who, run);
        books.obligations.add(abort_us + SLACK_US, abort);
    }
    books
        .obligations
        .add(stop_us + SLACK_US, Obligation::Stop(who));
    for run in books.unstarted(who) {
        put_back(books, who, run);
    }
}

/// What never started has nothing to end for.
fn put_back(books: &mut Books, who: Who, run: Run) {
    let held_up_us = books.worker(who).map_or(0, |worker| worker.held_up_until);
    let by_us = books.now.true_us.max(held_up_us) + PUT_BACK_US;
    books.obligations.add(by_us, Obligation::PutBack(who, run));
}

/// The store has told the worker which leases are lost.
fn lost(books: &mut Books, who: Who, written: &[Written]) {
    let Some(worker) = books.worker(who).filter(|worker| worker.is_up(who)) else {
        return;
    };
    let counts_from = books.now.true_us.max(worker.disturbed_until);
    let abort_us = counts_from + worker.knobs.shutdown_timeout_ms * 1_000;
    let sent = worker.pace.heartbeat();
    let lost = sent
        .iter()
        .zip(written)
        .filter(|(_, written)| **written == Written::Stale);
    let lost: Vec<Run> = lost.map(|(run, _)| *run).collect();
    let by_us = books.now.true_us + SLACK_US;
    for run in lost {
        if books.run(run).is_some_and(|run| run.is_executing()) {
            books.obligations.add(by_us, Obligation::Tell(who, run));
            books
                .obligations
                .add(abort_us + SLACK_US, Obligation::Abort(who, run));
        }
    }
}

fn stopped(books: &Books, who: Who) -> Verdict {
    let Some(worker) = books.worker(who) else {
        return Ok(());
    };
    ensure!(
        worker.shutdown_us.is_some(),
        "shutdown.unasked",
        "{who} stopped, and nobody had asked"
    );
    idle(books, worker)?;
    let quiet = quiet_us(&worker.knobs) + worker.knobs.shutdown_timeout_ms * 1_000;
    if !books.is_undisturbed(who, quiet) {
        return Ok(());
    }
    ensure!(
        !worker.owed.is_claiming(),
        "shutdown.in_flight",
        "{who} stopped before it knew what its last claim took"
    );
    for job in &books.running {
        let Some(book) = books.job(*job) else {
            continue;
        };
        let run = book.seen.and_then(|seen| book.run(seen.fence));
        let left = run.is_some_and(|run| run.who == who && !run.is_executing());
        if left {
            return Err(Violation::new(
                "shutdown.left",
                format!("{who} stopped, and left its run {run:?} unsettled"),
            )
            .of_job(job_key(*job))
            .of(who));
        }
    }
    for run in &worker.executing {
        let spec = books.job(run.job).map(|book| book.spec.run(run.fence.0));
        if spec.is_some_and(|spec| spec.on_stop != OnStop::Block) {
            return Err(Violation::new(
                "shutdown.running",
                format!("{who} stopped while run {} was at work", run.fence),
            )
            .of_job(job_key(run.job))
            .of(who));
        }
    }
    Ok(())
}

/// A shutdown takes no longer than what it waits for.
fn idle(books: &Books, worker: &WorkerBook) -> Verdict {
    let who = worker.who();
    let holds_any = !worker.executing.is_empty() || !books.unstarted(who).is_empty();
    if holds_any || worker.pace.is_any_unanswered() {
        return Ok(());
    }
    let disturbed = worker.disturbed_until.max(worker.held_up_until);
    let since = worker.settled_us.max(worker.shutdown_us.unwrap_or(0));
    let since = since.max(disturbed).max(books.all_disturbed_until);
    ensure!(
        books.now.true_us <= since + STOP_US,
        "shutdown.idle",
        "{who} waited for nothing from {since} us on, and stopped at {} us",
        books.now.true_us
    );
    Ok(())
}

/// Remembers when a worker last had something to wait for.
fn settled(books: &mut Books, event: &Event<'_>) {
    let who = match event {
        Event::Answered { call, .. } if call.is_of_engine() => call.who,
        Event::Ended { who, .. } => *who,
        _ => return,
    };
    let now_us = books.now.true_us;
    if let Some(worker) = books.worker_mut(who).filter(|worker| worker.is_up(who)) {
        worker.settled_us = now_us;
    }
}

fn silent_after_stop(books: &Books, who: Who, does: &str) -> Verdict {
    let stopped = books.worker(who).is_some_and(|worker| {
        worker.life == Life::Stopped && worker.incarnation == who.incarnation
    });
    ensure!(!stopped, "shutdown.silent", "{who} has stopped, and {does}");
    Ok(())
}
