//! A worker runs no more jobs than it may, asks for no more than it has use for, and
//! lets none wait that has a place, or that will not get one soon.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use job_engine::limits::BATCH_LEN_MAX;
use job_engine::store::{Claimed, ClaimedJob, Finish, Outcome, Written};
use job_engine::{Command, Reply, Run, StoreError};

use super::books::{Books, WorkerBook};
use super::pace::SentClaim;
use super::{Verdict, Violation};
use crate::event::{Event, Who};
use crate::scenario::{RetrySpec, job_key, type_place};

/// How late something may be, in microseconds.
const SLACK_US: u64 = 150_000;
/// How late a worker may hear that a run has ended.
pub(super) const HEARD_US: u64 = 20_000;
/// So many jobs may be claimed ahead for each run that ended during the last claim.
const AHEAD_FACTOR: u32 = 4;
/// So many if the claim brought all that was asked for, all jobs had ended by then that
/// the worker held before, and runs are so short that all will find a place in time.
/// The engine's own tests are about the last.
const AHEAD_FACTOR_DRY: u32 = 16;
/// And by so much, as a share, it is less at most than it was before.
const AHEAD_DECAY: u32 = 8;
/// A job that was claimed ahead may wait for so long, in microseconds, or for so many
/// times what its claim took, but not for longer than half its lease.
const KEPT_US: u64 = 1_000_000;
const KEPT_CLAIMS: u64 = 8;
const KEPT_MAX_US: u64 = 5_000_000;

/// The jobs that a worker has claimed ahead of their places.
#[derive(Clone, Debug, Default)]
pub(super) struct Ahead {
    ready: BTreeMap<Run, Waits>,
    /// Those that waited when it was told that they are lost. It lets them go instead of
    /// starting them, once it has a place.
    lost: BTreeSet<Run>,
    /// How many it might hold when it sent its last claim, running or not.
    held_max: usize,
    /// When the runs ended of which it heard since then, true time.
    ended_us: VecDeque<u64>,
    sent_us: u64,
    /// Whether that claim was a repeat. What it brings may be more than the worker still
    /// wants to hold, and go back at once.
    repeated: bool,
    /// Whether its clock was set since. Leases may then have run out, as it sees it, and
    /// what waits may have waited for too long.
    clock_set: bool,
    /// When that claim was answered, if it was.
    answered_us: Option<u64>,
    /// The jobs that it held then, running or not, but for those that ended at once.
    left: BTreeSet<Run>,
    /// Whether the answer brought all that was asked for.
    full: bool,
    /// What [`Ahead::max`] was before: a claim that fails teaches nothing.
    max_before: u32,
    kept_us: u64,
    /// When it was last busy with recording ends, or could not put anything back.
    busy_us: u64,
    /// Since when there has been a place for one that waits.
    idle_since: Option<u64>,
    /// The jobs that may not wait for a place, until they are started or put back, and since
    /// when, true time.
    exposed: BTreeMap<Run, u64>,
    /// Whether it has put back any since that answer, and then claims less ahead.
    put_back: bool,
    /// Whether a claim ever took too long, and later ones may ask for less.
    cut_short: bool,
}

/// A job that waits for a place, true time.
#[derive(Clone, Copy, Debug)]
struct Waits {
    since_us: u64,
    /// The longest that it may wait: [`Ahead::kept_us`] of any claim meanwhile.
    kept_us: u64,
    /// Until then it is not put back, for certain.
    held_us: u64,
}

impl Ahead {
    /// How many jobs beyond its places it may hold, after its last claim.
    fn max(&self) -> u32 {
        let Some(answered_us) = self.answered_us else {
            return self.max_before;
        };
        let heard_us = answered_us + HEARD_US;
        let during = self.ended_us.iter().filter(|at| **at <= heard_us);
        // Whether they are so short is judged by its own clock, which may stand still.
        let factor = if self.full && self.left.is_empty() {
            AHEAD_FACTOR_DRY
        } else {
            AHEAD_FACTOR
        };
        let during = u32::try_from(during.count()).unwrap_or(u32::MAX);
        let max = during.saturating_mul(factor);
        let before = self.max_before - self.max_before.div_ceil(AHEAD_DECAY);
        max.min(2 * BATCH_LEN_MAX as u32).max(before)
    }

    /// How many jobs beyond its places it holds after its last claim at least, if there are
    /// as many.
    fn min(&self) -> u32 {
        let Some(answered_us) = self.answered_us.filter(|_| !self.put_back) else {
            return 0;
        };
        let during = self.sent_us + HEARD_US..answered_us.saturating_sub(HEARD_US);
        let during = self.ended_us.iter().filter(|at| during.contains(at));
        let during = u32::try_from(during.count()).unwrap_or(u32::MAX);
        let min = during.saturating_mul(AHEAD_FACTOR);
        min.min(2 * BATCH_LEN_MAX as u32)
    }

    fn claim_sent(&mut self, now_us: u64, jobs_max: u32, repeat: bool) {
        self.repeated = repeat;
        self.clock_set = false;
        self.max_before = self.max();
        self.answered_us = None;
        self.held_max = (jobs_max + self.max_before) as usize;
        let before_us = now_us.saturating_sub(HEARD_US);
        self.ended_us.retain(|at| *at >= before_us);
        self.sent_us = now_us;
    }

    /// The clock of the worker was set.
    pub(super) fn clock_was_set(&mut self, now_us: u64) {
        self.clock_set = true;
        for waits in self.ready.values_mut() {
            waits.held_us = waits.held_us.min(now_us);
        }
    }

    fn ended(&mut self, run: Run, now_us: u64) {
        self.ended_us.push_back(now_us);
        // It may hear of this before it hears of the answer.
        if self.answered_us.is_some_and(|at| now_us <= at + HEARD_US) {
            self.left.remove(&run);
        }
    }

    fn claim_answered(&mut self, now_us: u64, executing: &BTreeSet<Run>, lease_us: u64) {
        self.answered_us = Some(now_us);
        self.put_back = false;
        self.left = executing.clone();
        let ready = self.ready.iter();
        let ready = ready.filter(|(_, waits)| now_us < waits.held_us);
        self.left.extend(ready.map(|(run, _)| *run));
        let took_us = now_us - self.sent_us;
        self.kept_us = (took_us * KEPT_CLAIMS)
            .clamp(KEPT_US, KEPT_MAX_US)
            .min(lease_us / 2);
        // What waits is judged by the last claim, too.
        for waits in self.ready.values_mut() {
            waits.kept_us = waits.kept_us.max(self.kept_us);
            waits.held_us = waits.held_us.min(held_us(waits.since_us, self.kept_us));
        }
    }

    fn wait(&mut self, run: Run, now_us: u64, lease_us: u64) {
        // Nor is it started once its lease may have run out.
        let until_us = (now_us + self.kept_us).min(self.sent_us + lease_us);
        let held_us = held_us(now_us, until_us.saturating_sub(now_us));
        let goes_back = self.repeated || self.clock_set;
        let held_us = if goes_back { now_us } else { held_us };
        let waits = Waits {
            since_us: now_us,
            kept_us: self.kept_us,
            held_us,
        };
        self.ready.entry(run).or_insert(waits);
    }

    /// Of the jobs that wait, those that it has not put back by now, for certain.
    fn held(&self, now_us: u64) -> usize {
        let held = self.ready.values().filter(|waits| now_us < waits.held_us);
        held.count()
    }
}

/// Until when what waits since then, and may for so long, is not put back for certain.
fn held_us(since_us: u64, for_us: u64) -> u64 {
    since_us + for_us.saturating_sub(for_us / 100 + SLACK_US)
}

pub(super) fn event(books: &mut Books, event: &Event<'_>) -> Verdict {
    let Some(who) = concerned(event) else {
        return Ok(());
    };
    let now_us = books.now.true_us;
    let all_disturbed_until = books.all_disturbed_until;
    let over = |books: &Books, run: Run| {
        let run = books.run(run);
        run.is_some_and(|run| run.started_us.is_some() || run.ended.is_some())
    };
    let (fresh, exposed): (Vec<Run>, Vec<Run>) = match event {
        Event::Answered {
            result: Ok(Reply::Claimed(claimed)),
            ..
        } => {
            let jobs = claimed.jobs.iter().filter(|job| !over(books, job.run));
            let (fresh, exposed) = jobs.partition::<Vec<_>, _>(|job| may_wait(books, who, job));
            let runs = |jobs: Vec<&ClaimedJob>| jobs.into_iter().map(|job| job.run).collect();
            (runs(fresh), runs(exposed))
        }
        _ => (Vec::new(), Vec::new()),
    };
    let claims = matches!(
        event,
        Event::Sent {
            command: Command::Claim(_),
            ..
        }
    );
    let fragile = claims && runs_fragile(books, who);
    let Some(worker) = books.worker_mut(who).filter(|worker| worker.is_up(who)) else {
        return Ok(());
    };
    match event {
        Event::Started { job, .. } => {
            exceeded(worker, job.run)?;
            worker.ahead.ready.remove(&job.run);
            worker.ahead.exposed.remove(&job.run);
        }
        Event::Ended { run, .. } => worker.ahead.ended(*run, now_us),
        Event::Sent { call, command } if call.is_of_engine() => match command {
            Command::Claim(claim) => {
                if !claim.repeat {
                    asked(worker, command, fragile, now_us)?;
                }
                let jobs_max = worker.knobs.jobs_max;
                worker.ahead.claim_sent(now_us, jobs_max, claim.repeat);
            }
            Command::Finish(finishes) => {
                for Finish { run, outcome } in finishes {
                    worker.ahead.put_back |= matches!(outcome, Outcome::Released);
                    worker.ahead.ready.remove(run);
                    worker.ahead.lost.remove(run);
                    worker.ahead.exposed.remove(run);
                }
            }
            _ => {}
        },
        Event::Answered {
            call,
            result: Ok(Reply::Claimed(claimed)),
        } if call.is_of_engine() => {
            let exposed = exposed.into_iter().map(|run| (run, now_us));
            worker.ahead.exposed.extend(exposed);
            answered(worker, claimed, &fresh, now_us);
        }
        Event::Answered {
            call,
            result: Ok(Reply::Heartbeat(written)),
        } if call.is_of_engine() => {
            // What it has lost it may put back, rather than start it.
            for (run, written) in worker.pace.heartbeat().iter().zip(written) {
                if *written == Written::Stale && worker.ahead.ready.remove(run).is_some() {
                    worker.ahead.lost.insert(*run);
                }
            }
        }
        Event::Answered {
            call,
            result: Err(StoreError::Unknown(_)),
        } if worker.pace.is_claim(call.op) => worker.ahead.cut_short = true,
        Event::ShutdownAsked { .. } => worker.ahead.ready.clear(),
        _ => {}
    }
    waits(worker, event, all_disturbed_until, now_us)
}

/// A crash that is not its own costs a job one attempt at most, and not its last.
fn may_wait(books: &Books, who: Who, job: &ClaimedJob) -> bool {
    let of_type = &books.scenario.types[type_place(&job.job_type) as usize];
    books
        .worker(who)
        .is_some_and(|worker| job.attempt <= 1 && !one_crash(of_type.retry(worker.knobs.edition)))
}

/// Whether one crash ends the jobs of one of its types.
fn runs_fragile(books: &Books, who: Who) -> bool {
    let Some(worker) = books.worker(who) else {
        return false;
    };
    let mut types = books.scenario.types.iter().enumerate();
    types.any(|(place, of_type)| {
        worker.knobs.knows(place as u32) && one_crash(of_type.retry(worker.knobs.edition))
    })
}

/// Whether one crash ends the jobs of a type.
fn one_crash(retry: &RetrySpec) -> bool {
    [retry.attempts_max, retry.crashes_max].contains(&Some(1))
}

fn exceeded(worker: &WorkerBook, run: Run) -> Verdict {
    let (running, jobs_max) = (worker.executing.len(), worker.knobs.jobs_max);
    if running < jobs_max as usize {
        return Ok(());
    }
    let who = worker.who();
    let text = format!("{who} starts a job while {running} run, and may run {jobs_max}");
    let violation = Violation::new("capacity.exceeded", text);
    Err(violation.of_job(job_key(run.job)).of(who))
}

/// `fragile`: for some of its types it claims for places only.
fn asked(worker: &WorkerBook, command: &Command, fragile: bool, now_us: u64) -> Verdict {
    let wanted: u32 = Books::quotas(command).map(|(_, jobs_max)| jobs_max).sum();
    let ahead = &worker.ahead;
    let at_work = worker.at_work();
    let lost = match at_work < worker.knobs.jobs_max as usize {
        true => 0,
        false => ahead.lost.len(),
    };
    let at_work = at_work + ahead.ready.len() + ahead.exposed.len() + lost;
    // What may not wait it may have put back, and not said so yet.
    let min = if fragile || worker.pace.is_recording() || !ahead.exposed.is_empty() {
        0
    } else {
        ahead.min()
    };
    let free = ((worker.knobs.jobs_max + min) as usize).saturating_sub(at_work);
    if (wanted as usize) < free.min(BATCH_LEN_MAX) && !ahead.cut_short {
        let text = format!(
            "{} asks for {wanted} jobs; it has {at_work} at most, and use for {free} more",
            worker.who()
        );
        return Err(Violation::new("capacity.unasked", text).of(worker.who()));
    }
    let held = worker.executing.len() + worker.ahead.held(now_us);
    let held_max = (worker.knobs.jobs_max + worker.ahead.max()) as usize;
    let room = held_max.saturating_sub(held);
    if wanted as usize <= room {
        return Ok(());
    }
    let text = format!(
        "{} asks for {wanted} jobs; it has {held}, of which {} run, and use for {room}",
        worker.who(),
        worker.executing.len()
    );
    Err(Violation::new("capacity.asked", text).of(worker.who()))
}

fn answered(worker: &mut WorkerBook, claimed: &Claimed, fresh: &[Run], now_us: u64) {
    let asked_for: u32 = worker.pace.claim().map_or(0, |sent: SentClaim| {
        sent.quotas().map(|(_, jobs_max)| jobs_max).sum()
    });
    let executing = &worker.executing;
    let draining = worker.shutdown_us.is_some();
    let lease_us = worker.knobs.lease_ms.max(40) * 1_000;
    let ahead = &mut worker.ahead;
    ahead.claim_answered(now_us, executing, lease_us);
    ahead.full = claimed.jobs.len() >= asked_for as usize;
    // What it did not ask for it may put back at once.
    if draining || claimed.jobs.len() > asked_for as usize {
        return;
    }
    for run in fresh {
        if executing.len() + ahead.ready.len() < ahead.held_max {
            ahead.wait(*run, now_us, lease_us);
        }
    }
}

/// Nothing waits without need.
fn waits(
    worker: &mut WorkerBook,
    event: &Event<'_>,
    all_disturbed_until: u64,
    now_us: u64,
) -> Verdict {
    let who = worker.who();
    let places = worker.executing.len() < worker.knobs.jobs_max as usize;
    let busy = worker.shutdown_us.is_some() || worker.paused || worker.pace.is_recording();
    let disturbed_until = worker.disturbed_until.max(all_disturbed_until);
    let ahead = &mut worker.ahead;
    // These change what is looked at.
    let changes = matches!(event, Event::Ended { .. } | Event::Started { .. });
    let held = ahead.held(now_us);
    if held == 0 || !places || worker.paused || changes {
        ahead.idle_since = None;
    } else {
        let since_us = *ahead.idle_since.get_or_insert(now_us);
        if now_us > since_us.max(disturbed_until) + SLACK_US {
            let text = format!(
                "{who} has had a place since {since_us} us, and at {now_us} us has not started \
                 any of {held} jobs that wait for one"
            );
            return Err(Violation::new("capacity.idle", text).of(who));
        }
    }
    if busy {
        // Afterwards it may take more than one batch until the last is put back.
        ahead.busy_us = now_us;
        return Ok(());
    }
    let since = disturbed_until.max(ahead.busy_us);
    let mut exposed = ahead.exposed.iter();
    if let Some((run, since_us)) = exposed.find(|(_, at)| now_us > since.max(**at) + SLACK_US) {
        let text = format!(
            "{who} holds the job since {since_us} us, which is not to wait for a place: a crash \
             would cost it another attempt, or its last"
        );
        let violation = Violation::new("capacity.exposed", text);
        return Err(violation.of_job(job_key(run.job)).of(who));
    }
    let oldest = ahead.ready.iter().min_by_key(|(_, waits)| waits.since_us);
    let Some((run, waits)) = oldest else {
        return Ok(());
    };
    let Waits {
        since_us, kept_us, ..
    } = waits;
    let until_us = (*since_us).max(disturbed_until) + kept_us + kept_us / 100;
    if now_us <= until_us.max(ahead.busy_us) + SLACK_US {
        return Ok(());
    }
    let text = format!(
        "{who} has claimed the job at {since_us} us ahead of a place for it, and at {now_us} us \
         has neither started it nor put it back"
    );
    let violation = Violation::new("capacity.kept", text);
    Err(violation.of_job(job_key(run.job)).of(who))
}

/// Whose doing an event is.
fn concerned(event: &Event<'_>) -> Option<Who> {
    match event {
        Event::Sent { call, .. } | Event::Answered { call, .. } => Some(call.who),
        Event::Woken { who, .. }
        | Event::Started { who, .. }
        | Event::Ended { who, .. }
        | Event::ShutdownAsked { who }
        | Event::Paused { who }
        | Event::Resumed { who } => Some(*who),
        _ => None,
    }
}
