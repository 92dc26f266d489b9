//! What operators are told is what happened: of the end of each run once, with what
//! follows; of lost runs, of interruptions, of a store that fails, of a shutdown.

use std::collections::BTreeSet;
use std::time::Duration;

use job_engine::lifecycle::RunEnd;
use job_engine::store::{Outcome, Reclaimed, Written};
use job_engine::worker::{LaneKind, Observation};
use job_engine::{Reply, Run};

use super::books::{Books, EndedAs, RunBook, WorkerBook};
use super::capacity::HEARD_US;
use super::transition::{Change, Transition};
use super::{Verdict, ensure};
use crate::event::{Event, Who};
use crate::scenario::WARN_ATTEMPTS;

/// From so many interruptions in a row on operators are told.
const INTERRUPTIONS_WARN: u32 = 5;

/// What operators were told of the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logged {
    /// It ended so, and is retried after so long.
    Ended(RunEnd, Option<Duration>),
    /// Its end is not recorded.
    Lost,
}

/// What a worker has still to tell.
#[derive(Clone, Debug, Default)]
pub(super) struct Unsaid {
    /// How these runs ended.
    ends: BTreeSet<Run>,
    /// That these were lost, by other workers.
    reclaimed: Vec<Reclaimed>,
}

/// What is recorded is what operators were told.
pub(super) fn transition(books: &Books, change: &Transition<'_>) -> Verdict {
    let (Change::Finish(finish, Written::Applied), Some(before)) = (change.change, change.before)
    else {
        return Ok(());
    };
    let by_worker = change.call.is_of_engine() && change.ran(finish.run);
    let book = books.run(finish.run).filter(|_| by_worker);
    let Some(book) = book.filter(|book| book.started_us.is_some()) else {
        return Ok(());
    };
    let delay = match finish.outcome {
        Outcome::Retried { delay, .. } | Outcome::Undecodable { delay, .. } => Some(delay),
        _ => None,
    };
    let told = Some(Logged::Ended(finish.outcome.end(), delay));
    ensure!(
        book.logged == told,
        "logs.ended",
        "{told:?} is recorded of {:?}; operators were told {:?}",
        finish.run,
        book.logged
    );
    let interruptions = before.interruptions + 1;
    let often = finish.outcome == Outcome::Interrupted && interruptions >= INTERRUPTIONS_WARN;
    ensure!(
        book.logged_often || !often,
        "logs.interrupted",
        "{:?} is interruption {interruptions} in a row, and nobody was told",
        finish.run
    );
    Ok(())
}

pub(super) fn event(books: &mut Books, event: &Event<'_>) -> Verdict {
    match event {
        Event::Logged { who, observation } => {
            return logged(books, *who, observation).map_err(|violation| violation.of(*who));
        }
        Event::Ended { who, run, .. } => {
            if let Some(worker) = books.worker_mut(*who) {
                worker.unsaid.ends.insert(*run);
            }
        }
        Event::Answered {
            call,
            result: Ok(Reply::Reclaimed(reclaimed)),
        } => {
            let Some(worker) = books.worker_mut(call.who) else {
                return Ok(());
            };
            let before = std::mem::replace(&mut worker.unsaid.reclaimed, reclaimed.clone());
            ensure!(
                before.is_empty(),
                "logs.reclaimed",
                "{} took back {before:?}, and told nobody",
                call.who
            );
        }
        Event::Sent { call, command } if call.is_of_engine() => {
            let worker = books.worker(call.who);
            let worker = worker.filter(|worker| worker.shutdown_us.is_none());
            ensure!(
                worker.is_none_or(|worker| !worker.pace.is_untold(command)),
                "logs.store",
                "{} asks again what failed, and nobody was told",
                call.who
            );
        }
        Event::Stopped { who } => {
            let unsaid = books.worker(*who).map(|worker| &worker.unsaid);
            ensure!(
                unsaid.is_none_or(|unsaid| unsaid.reclaimed.is_empty()),
                "logs.reclaimed",
                "{who} has stopped, and not told of {unsaid:?}"
            );
        }
        _ => {}
    }
    Ok(())
}

fn logged(books: &mut Books, who: Who, observation: &Observation) -> Verdict {
    match observation {
        Observation::RunEnded {
            run, end, retry_in, ..
        } => {
            let book = books.run(*run).filter(|book| book.who == who);
            let attempt = books.holder(*run).map(|seen| seen.attempt);
            let warns = warn_attempts(books, who, *run);
            ensure!(
                book.is_some_and(|book| is_true_of(book, attempt, warns, observation)),
                "logs.ended",
                "operators are told {observation:?} of attempt {attempt:?}, {book:?}"
            );
            tell(books, who, *run, Logged::Ended(*end, *retry_in));
        }
        Observation::RunLost { run, .. } => {
            let holder = books.holder(*run);
            let done = books.run(*run).is_some_and(|book| {
                let said = matches!(book.logged, Some(Logged::Ended(end, _)) if book.recorded == Some(end));
                said || book.ended == Some(EndedAs::Settled)
            });
            ensure!(
                holder.is_none() && !done,
                "logs.lost",
                "operators are told that {run:?} is lost; it holds its lease: {holder:?}"
            );
            tell(books, who, *run, Logged::Lost);
        }
        Observation::OftenInterrupted {
            run, interruptions, ..
        } => {
            let before = books.holder(*run).map(|seen| seen.interruptions);
            ensure!(
                before.is_none_or(|before| before + 1 == *interruptions)
                    && *interruptions >= INTERRUPTIONS_WARN,
                "logs.interrupted",
                "{run:?} is said to be interrupted {interruptions} times; {before:?} before"
            );
            if let Some(book) = books.run_mut(*run) {
                book.logged_often = true;
            }
        }
        Observation::Reclaimed(reclaimed) => {
            let unsaid = books.worker_mut(who).map(|worker| &mut worker.unsaid);
            let place = unsaid.and_then(|unsaid| {
                let place = unsaid.reclaimed.iter().position(|one| one == reclaimed)?;
                Some(unsaid.reclaimed.remove(place))
            });
            ensure!(
                place.is_some(),
                "logs.reclaimed",
                "operators are told of {reclaimed:?}, which {who} did not take back"
            );
        }
        Observation::StoreFailed {
            lane,
            failures,
            retry_in,
            ..
        } => {
            let now_us = books.now.true_us;
            let wait_us = retry_in.as_micros() as u64;
            let told = books.worker_mut(who).is_none_or(|worker| {
                let pace = &mut worker.pace;
                pace.is_told(lane_of(*lane), *failures, now_us, wait_us)
            });
            ensure!(
                told,
                "logs.store",
                "{who} says {observation:?}, which is not how often it was"
            );
        }
        Observation::FinishRefused { run, .. } => ensure!(
            books.run(*run).is_some_and(|book| book.refused),
            "logs.refused",
            "the end of {run:?} is said to be refused, which it was not"
        ),
        Observation::Draining { executing } => {
            let at_work = books.worker(who).map(WorkerBook::at_work);
            ensure!(
                at_work == Some(*executing as usize),
                "logs.draining",
                "{executing} runners are said to be at work, of {at_work:?}"
            );
        }
        Observation::Drained { unsettled } => {
            let worker = books.worker(who);
            let at_work = worker.map_or(0, WorkerBook::at_work);
            let unstarted = books.unstarted(who).len();
            // One that stood still may stop before it takes in what came meanwhile.
            let held_up = worker.is_some_and(|worker| {
                books.now.true_us <= worker.held_up_until.saturating_add(HEARD_US)
            });
            ensure!(
                held_up || *unsettled >= at_work + unstarted,
                "logs.drained",
                "{unsettled} runs are said to be left; {at_work} are at work, \
                 and {unstarted} never started"
            );
        }
        Observation::SpecGone { .. } => {}
    }
    Ok(())
}

impl WorkerBook {
    /// So many runners are at work, as far as the worker knows: operators are told as soon as
    /// it does.
    pub(super) fn at_work(&self) -> usize {
        self.executing.len() + self.unsaid.ends.len()
    }

    /// Whether runs have ended of which the worker has not heard.
    pub(super) fn is_yet_to_hear_of_ends(&self) -> bool {
        !self.unsaid.ends.is_empty()
    }
}

/// Whether it is what is known of this run, and nobody was told before.
fn is_true_of(
    book: &RunBook,
    attempt: Option<u32>,
    warn_attempts: u32,
    observation: &Observation,
) -> bool {
    let Observation::RunEnded {
        end,
        error,
        retry_in,
        warning,
        attempt: told,
        ..
    } = observation
    else {
        return false;
    };
    let ended = match book.ended {
        Some(EndedAs::Settled) => book.recorded == Some(*end),
        Some(ended) => ended.is(*end),
        None => false,
    };
    let failed = match book.ended {
        Some(EndedAs::Failed | EndedAs::Errored | EndedAs::Undecodable) => true,
        Some(EndedAs::Settled) => *end == RunEnd::Errored,
        _ => false,
    };
    let goes_on = matches!(end, RunEnd::Retried | RunEnd::Undecodable);
    let warns = match book.ended {
        Some(EndedAs::Undecodable) => true,
        _ => *end == RunEnd::Retried && *told <= warn_attempts,
    };
    ended
        && book.logged.is_none()
        && attempt.is_none_or(|attempt| attempt == *told)
        && error.is_some() == failed
        && retry_in.is_some() == goes_on
        && *warning == warns
}

/// Up to which attempt a failure is no more than a warning.
fn warn_attempts(books: &Books, who: Who, run: Run) -> u32 {
    let edition = books.worker(who).map_or(0, |worker| worker.knobs.edition);
    let job_type = books.job(run.job).map_or(0, |book| book.spec.job_type);
    let retry = books.scenario.types[job_type as usize].retry(edition);
    match retry.attempts_max {
        Some(_) => WARN_ATTEMPTS,
        None => u32::MAX,
    }
}

fn tell(books: &mut Books, who: Who, run: Run, logged: Logged) {
    if let Some(book) = books.run_mut(run) {
        book.logged = Some(logged);
    }
    if let Some(worker) = books.worker_mut(who) {
        worker.unsaid.ends.remove(&run);
    }
}

fn lane_of(lane: LaneKind) -> usize {
    match lane {
        LaneKind::Claim => super::pace::CLAIM,
        LaneKind::Finish => super::pace::FINISH,
        LaneKind::Heartbeat => super::pace::HEARTBEAT,
        LaneKind::Reclaim => super::pace::RECLAIM,
    }
}
