//! A worker that has room and knows of due jobs asks for them at once, and
//! never stops looking.
//!
//! What it knows is what it was told: by an announcement, by the answer to a claim, and by
//! what it has itself put back, retried or rescheduled.

use job_engine::lifecycle::RunEnd;
use job_engine::store::{Outcome, Written};
use job_engine::worker::Ended;
use job_engine::{Command, Due, Reply};

use super::books::{Books, WorkerBook};
use super::capacity::HEARD_US;
use super::pace::{SentClaim, error_wait_max_us};
use super::{Verdict, Violation};
use crate::event::{Event, Who};
use crate::scenario::{TYPES_MAX, type_place};

/// How late a claim may be, in microseconds: a timer wakes late, or the worker
/// was busy.
const SLACK_US: u64 = 150_000;
/// While as many jobs run as it is to gather places from, a worker does so for 50 ms.
const GATHER_US: u64 = 50_000;
/// How late a claim may be while fewer run, in microseconds: earlier than after gathering.
const SLACK_FEW_US: u64 = 40_000;

/// When a worker last claimed, and since when it should have again.
#[derive(Clone, Debug, Default)]
pub(super) struct Owed {
    /// By type: since when a claim of it is owed, true time.
    types: [Option<u64>; TYPES_MAX],
    /// By type: how many claims passed it over while it was owed.
    passed_over: [u32; TYPES_MAX],
    in_flight: bool,
    /// Whether that is a repeat.
    repeated: bool,
    /// Since when it has room, and no claim on its way.
    free_since: u64,
    /// An error made it wait until then.
    waits_until: u64,
    /// Claims that failed in a row.
    failures: u32,
    sent_us: u64,
    /// The same, whatever held it up since.
    claimed_us: Option<u64>,
    /// Since when fewer jobs run than places are gathered from.
    few_since: u64,
    /// A run ended while a claim was under way: the worker may claim ahead, and then does not
    /// wait for places.
    quick: bool,
    /// The ends that it is recording, in the order of the command.
    ends: Vec<End>,
}

pub(super) fn event(books: &mut Books, event: &Event<'_>) -> Verdict {
    let now_us = books.now.true_us;
    let Some(who) = concerned(event) else {
        return Ok(());
    };
    let all_disturbed_until = books.all_disturbed_until;
    let store_now = books.now.store;
    let ending = ending(books, event);
    let Some(worker) = books.worker_mut(who).filter(|worker| worker.is_up(who)) else {
        return Ok(());
    };
    overdue(worker, all_disturbed_until, now_us)?;
    // A clock that was set back stands still until then.
    let counts_from = now_us.max(worker.disturbed_until);
    // Types for which one crash is the last are left out of what is claimed ahead.
    let places = worker.executing.len() < worker.knobs.jobs_max as usize;
    let gathers = worker.executing.len() >= worker.knobs.jobs_min as usize;
    let unheard = worker.is_yet_to_hear_of_ends();
    let last_us = worker.owed.claimed_us;
    let held_up = last_us.is_some_and(|last_us| worker.held_up_until >= last_us);
    let owed = &mut worker.owed;
    match event {
        Event::Sent { call, command } if call.is_of_engine() => {
            if matches!(command, Command::Claim(_)) {
                let repeat = matches!(command, Command::Claim(claim) if claim.repeat);
                owed.quick |= unheard;
                let last_us = owed.claimed_us.replace(now_us).filter(|_| !held_up);
                if gathers
                    && !owed.quick
                    && !repeat
                    && let Some(last_us) = last_us
                {
                    let apart_us = now_us - last_us;
                    if apart_us < GATHER_US - GATHER_US / 100 {
                        let text = format!(
                            "{who} claims {apart_us} us after its last claim, and does not \
                             gather places"
                        );
                        return Err(Violation::new("claims.gathered", text).of(who));
                    }
                }
                owed.in_flight = true;
                owed.sent_us = now_us;
                owed.repeated = repeat;
                for (place, since_us) in owed.types.iter().enumerate() {
                    if !repeat && places && since_us.is_some_and(|since_us| since_us < now_us) {
                        owed.passed_over[place] += 1;
                    }
                }
                for (place, _) in Books::quotas(command) {
                    owed.types[place as usize] = None;
                    owed.passed_over[place as usize] = 0;
                }
                let most = owed.passed_over.iter().max().copied().unwrap_or(0);
                if most > TYPES_MAX as u32 {
                    return Err(Violation::new(
                        "claims.turns",
                        format!("{who} passed a type over {most} times that may have due jobs"),
                    )
                    .of(who));
                }
            }
            if matches!(command, Command::Finish(_)) {
                owed.ends = ending;
            }
        }
        Event::Answered { call, result } if call.is_of_engine() => match result {
            Ok(Reply::Claimed(claimed)) => {
                owed.in_flight = false;
                owed.failures = 0;
                owed.free_since = now_us;
                let sent = worker.pace.claim();
                // What an earlier try of it took says nothing about what is due now.
                if std::mem::take(&mut owed.repeated) && !claimed.is_empty() {
                    for (place, _) in sent.iter().flat_map(SentClaim::quotas) {
                        owed.owe(place, now_us);
                    }
                }
                for (place, jobs_max) in sent.iter().flat_map(SentClaim::quotas) {
                    let of_type = claimed.jobs.iter();
                    let taken = of_type.filter(|job| type_place(&job.job_type) == place);
                    if taken.count() as u32 >= jobs_max {
                        owed.owe(place, now_us);
                    }
                }
                for (job_type, due_at) in &claimed.next_due {
                    let wait_us = due_at.saturating_since(claimed.now).as_micros() as u64;
                    // Its clock may be slow.
                    let wait_us = wait_us.saturating_add(wait_us / 500);
                    let from_us = counts_from.saturating_add(wait_us);
                    owed.owe(type_place(job_type), from_us);
                }
            }
            Ok(Reply::Finished(written)) => {
                for (end, written) in std::mem::take(&mut owed.ends).iter().zip(written) {
                    if let (Some(due), Written::Applied) = (end.due, written) {
                        let wait = due.resolve(store_now).saturating_since(store_now);
                        let wait_us = wait.as_micros() as u64;
                        owed.owe(
                            end.place,
                            counts_from.saturating_add(wait_us + wait_us / 500),
                        );
                    }
                }
            }
            Ok(Reply::Reclaimed(reclaimed)) => {
                let lost = reclaimed.iter().filter(|job| job.end == RunEnd::Lost);
                for place in lost.map(|job| type_place(&job.job_type)) {
                    owed.owe(place, now_us);
                }
            }
            Err(_) if worker.pace.is_claim(call.op) => {
                owed.in_flight = false;
                owed.failures += 1;
                owed.waits_until = counts_from + error_wait_max_us(owed.failures);
                for (place, _) in worker.pace.claim().iter().flat_map(SentClaim::quotas) {
                    owed.owe(place, now_us);
                }
            }
            _ => {}
        },
        Event::Woken { job_type, .. } => {
            let place = type_place(job_type);
            if worker.knobs.knows(place) {
                owed.owe(place, now_us);
            }
        }
        // The interval of the polls changes, and what was announced meanwhile is lost.
        Event::Listening { listening, .. } => {
            owed.free_since = now_us;
            let known = ending.into_iter().map(|end| end.place);
            for place in known.filter(|place| *listening && worker.knobs.knows(*place)) {
                owed.owe(place, now_us);
            }
        }
        Event::Ended { .. } => {
            // When it is due only its transaction knows.
            for end in ending {
                owed.owe(end.place, now_us);
            }
            // It may hear of this before it hears of the answer.
            owed.quick |= owed.in_flight || now_us <= owed.free_since + HEARD_US;
            if !places {
                owed.free_since = now_us;
            }
            if gathers {
                owed.few_since = now_us;
            }
        }
        _ => {}
    }
    Ok(())
}

/// The end of a run, as far as its job runs again.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// Its type.
    pub(super) place: u32,
    /// When it is due again, if it is and that is known.
    due: Option<Due>,
    /// Whether the worker gives it back, for others as well.
    pub(super) for_others: bool,
}

impl End {
    /// Of a type of which jobs may be due, nobody knows when.
    fn of_type(place: u32) -> Self {
        Self {
            place,
            due: None,
            for_others: false,
        }
    }

    fn new(place: u32, outcome: &Outcome) -> Self {
        let (due, for_others) = match outcome {
            Outcome::Rescheduled { due } | Outcome::Snoozed { due } => (Some(*due), false),
            Outcome::Retried { delay, .. } => (Some(Due::In(*delay)), false),
            Outcome::Undecodable { delay, .. } => (Some(Due::In(*delay)), true),
            Outcome::Released | Outcome::Interrupted => (Some(Due::Now), true),
            Outcome::Completed | Outcome::Errored { .. } => (None, false),
        };
        Self {
            place,
            due,
            for_others,
        }
    }
}

/// The types of which there are more jobs to come with this event, and when, if it says so.
fn ending(books: &Books, event: &Event<'_>) -> Vec<End> {
    let place_of = |run: &job_engine::Run| books.job(run.job).map(|book| book.spec.job_type);
    match event {
        Event::Sent {
            command: Command::Finish(finishes),
            ..
        } => {
            let ends = finishes.iter().map(|finish| {
                let place = place_of(&finish.run).unwrap_or(0);
                End::new(place, &finish.outcome)
            });
            ends.collect()
        }
        Event::Ended {
            run,
            ended: Ended::Settled(Outcome::Rescheduled { .. } | Outcome::Snoozed { .. }),
            ..
        } => place_of(run).map(End::of_type).into_iter().collect(),
        Event::Listening { .. } => {
            let types = 0..books.scenario.types.len() as u32;
            types.map(End::of_type).collect()
        }
        _ => Vec::new(),
    }
}

impl Owed {
    /// The worker can do nothing for so long.
    pub(super) fn delay(&mut self, by_us: u64) {
        let owed = self.types.iter_mut().flatten();
        let times = owed.chain([&mut self.waits_until, &mut self.sent_us]);
        times.for_each(|at_us| *at_us += by_us);
    }

    /// The ends that it is recording, in the order of the command.
    pub(super) fn ends(&self) -> &[End] {
        &self.ends
    }

    /// Whether a claim is under way.
    pub(super) fn is_claiming(&self) -> bool {
        self.in_flight
    }

    fn owe(&mut self, place: u32, since_us: u64) {
        let owed = &mut self.types[place as usize];
        *owed = Some(owed.map_or(since_us, |earlier| earlier.min(since_us)));
    }
}

fn overdue(worker: &WorkerBook, all_disturbed_until: u64, now_us: u64) -> Verdict {
    let owed = &worker.owed;
    // Whatever else the worker is at: a place is a place.
    let room = worker.executing.len() < worker.knobs.jobs_max as usize;
    let idle = worker.shutdown_us.is_none() && !worker.paused;
    if !room || !idle || owed.in_flight {
        return Ok(());
    }
    let since = [
        owed.free_since,
        owed.waits_until,
        worker.disturbed_until,
        all_disturbed_until,
        worker.up_us,
    ];
    let since = since.into_iter().max().unwrap_or(0);
    let known = owed.types.iter().flatten().min();
    let few = worker.executing.len() < worker.knobs.jobs_min as usize;
    let by_us = known.map(|known_us| {
        let since = since.max(*known_us);
        let soon = few.then(|| since.max(owed.few_since) + SLACK_FEW_US);
        soon.unwrap_or(u64::MAX).min(since + SLACK_US)
    });
    if let Some(known_us) = known
        && by_us.is_some_and(|by_us| now_us > by_us)
    {
        return Err(Violation::new(
            "claims.owed",
            format!(
                "{} has room and knows since {known_us} us of jobs that may be due, \
                 and at {now_us} us has not asked for them",
                worker.who()
            ),
        )
        .of(worker.who()));
    }
    let interval_ms = worker.poll_ms();
    let interval_us = interval_ms * 1_000;
    let polled = since.max(owed.sent_us) + interval_us + interval_us / 500;
    if now_us > polled + SLACK_US {
        return Err(Violation::new(
            "claims.poll",
            format!(
                "{} is to look for jobs every {interval_ms} ms, and last did at {} us; \
                 it is {now_us} us",
                worker.who(),
                owed.sent_us
            ),
        )
        .of(worker.who()));
    }
    Ok(())
}

/// Whose doing an event is.
fn concerned(event: &Event<'_>) -> Option<Who> {
    match event {
        Event::Sent { call, .. } | Event::Answered { call, .. } => Some(call.who),
        Event::Woken { who, .. }
        | Event::Started { who, .. }
        | Event::Ended { who, .. }
        | Event::Listening { who, .. }
        | Event::ShutdownAsked { who }
        | Event::Paused { who } => Some(*who),
        _ => None,
    }
}
