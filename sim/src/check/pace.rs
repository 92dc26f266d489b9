//! One command of a kind at a time; a failing store is asked ever less often;
//! periods differ, so that workers do not act as a herd; upkeep never stops.

use job_engine::{ClaimId, Command, Reply, Run, StoreError};

use super::books::{Books, WorkerBook};
use super::{Verdict, Violation};
use crate::event::{Call, Event};
use crate::scenario::TYPES_MAX;

/// The least wait after the first error, in microseconds: 100 ms less 25 %.
const ERROR_WAIT_MIN_US: u64 = 75_000;
/// The longest such wait: 15 s less 25 %.
const ERROR_WAIT_MAX_US: u64 = 11_250_000;
/// The longest waits, with their jitter: 100 ms and 15 s, and 25 % more.
const ERROR_WAIT_FIRST_US: u64 = 125_000;
pub(super) const ERROR_WAIT_LAST_US: u64 = 18_750_000;
/// How late a command may be after such a wait, in microseconds.
const SLACK_US: u64 = 150_000;
/// How late upkeep may be, in microseconds, after errors included.
const UPKEEP_SLACK_US: u64 = 20_000_000;

/// What a worker has under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    lanes: [LanePace; 4],
    claim: Option<SentClaim>,
    heartbeat: Vec<Run>,
    /// The newest intervals between reclaims. With timers of whole milliseconds
    /// a few of them are alike by chance.
    reclaim_gaps: [u64; GAPS],
}

/// A claim that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentClaim {
    pub(super) id: ClaimId,
    jobs_max: [u32; TYPES_MAX],
}

impl SentClaim {
    fn new(id: ClaimId, command: &Command) -> Self {
        let mut jobs_max = [0; TYPES_MAX];
        for (place, of_type) in Books::quotas(command) {
            jobs_max[place as usize] = of_type;
        }
        Self { id, jobs_max }
    }

    /// The types that it named, by place, and how many jobs of each.
    pub(super) fn quotas(&self) -> impl Iterator<Item = (u32, u32)> {
        let all = self.jobs_max.iter().enumerate();
        let named = all.filter(|(_, jobs_max)| **jobs_max > 0);
        named.map(|(place, jobs_max)| (place as u32, *jobs_max))
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct LanePace {
    in_flight: Option<u64>,
    sent_us: Option<u64>,
    answered_us: u64,
    failed_us: u64,
    failures: u32,
    /// Answers in a row that were no success, refusals included.
    errors: u32,
    /// When operators were told that it is tried again, true time; zero if they were not.
    again_us: u64,
}

/// The longest wait after so many errors in a row.
pub(super) fn error_wait_max_us(errors: u32) -> u64 {
    let doubled = ERROR_WAIT_FIRST_US << errors.saturating_sub(1).min(20);
    doubled.min(ERROR_WAIT_LAST_US)
}

/// So many intervals that are alike are no chance.
const GAPS: usize = 6;

pub(super) const CLAIM: usize = 0;
pub(super) const FINISH: usize = 1;
pub(super) const HEARTBEAT: usize = 2;
pub(super) const RECLAIM: usize = 3;

impl Pace {
    /// The claim that was sent last.
    pub(super) fn claim(&self) -> Option<SentClaim> {
        self.claim
    }

    /// Whether this call is the claim that was sent last.
    pub(super) fn is_claim(&self, op: u64) -> bool {
        self.lanes[CLAIM].in_flight == Some(op)
    }

    /// Whether this call is the one that records ends now.
    pub(super) fn is_finish(&self, op: u64) -> bool {
        self.lanes[FINISH].in_flight == Some(op)
    }

    /// Whether this call is answered after three in a row of its kind were not.
    pub(super) fn heals(&self, op: u64) -> bool {
        let mut lanes = self.lanes.iter();
        lanes.any(|lane| lane.in_flight == Some(op) && lane.failures >= 3)
    }

    /// Operators are told that the last command of a kind failed, so many in a row, and that
    /// it is tried again after so long. Whether it did.
    pub(super) fn is_told(
        &mut self,
        lane: usize,
        failures: u32,
        now_us: u64,
        wait_us: u64,
    ) -> bool {
        let lane = &mut self.lanes[lane];
        lane.again_us = now_us + wait_us;
        let errors = lane.failures.max(1)..=lane.errors;
        lane.in_flight.is_none() && errors.contains(&failures)
    }

    /// Whether operators were not told that the last command of a kind failed.
    pub(super) fn is_untold(&self, command: &Command) -> bool {
        let lane = lane_of(command).map(|lane| self.lanes[lane]);
        lane.is_some_and(|lane| lane.failures > 0 && lane.again_us < lane.failed_us)
    }

    /// Whether heartbeats are not answered.
    pub(super) fn is_away(&self) -> bool {
        self.lanes[HEARTBEAT].failures > 0
    }

    /// Whether ends are on their way, or wait until they may be sent again.
    pub(super) fn is_recording(&self) -> bool {
        let lane = self.lanes[FINISH];
        lane.in_flight.is_some() || lane.failures > 0
    }

    /// Whether a command is under way, or is to be sent again.
    pub(super) fn is_any_unanswered(&self) -> bool {
        let mut lanes = self.lanes.iter();
        lanes.any(|lane| lane.in_flight.is_some() || lane.errors > 0)
    }

    /// Whether a command is under way.
    pub(super) fn is_any_under_way(&self) -> bool {
        self.lanes.iter().any(|lane| lane.in_flight.is_some())
    }

    /// Whether a wait after an error certainly goes on, in which the clock of the worker was
    /// not set.
    pub(super) fn waits_to_ask_again(&self, now_us: u64, held_up_until: u64) -> bool {
        let mut lanes = self.lanes.iter();
        lanes.any(|lane| {
            let wait_us = lane.again_us.saturating_sub(lane.failed_us);
            let surely_us = (lane.again_us - wait_us / 100).saturating_sub(2_000);
            held_up_until < lane.failed_us && now_us < surely_us
        })
    }

    /// Since when no heartbeat is under way, true time; `None` while one is.
    pub(super) fn heartbeat_silent_since(&self) -> Option<u64> {
        let lane = self.lanes[HEARTBEAT];
        lane.in_flight.is_none().then_some(lane.answered_us)
    }

    /// The runs that the last heartbeat named.
    pub(super) fn heartbeat(&self) -> &[Run] {
        &self.heartbeat
    }
}

fn lane_of(command: &Command) -> Option<usize> {
    match command {
        Command::Claim(_) => Some(CLAIM),
        Command::Finish(_) => Some(FINISH),
        Command::Heartbeat(_) => Some(HEARTBEAT),
        Command::Reclaim(_) => Some(RECLAIM),
        Command::Spawn(_)
        | Command::Checkpoint(_)
        | Command::Hold(_)
        | Command::Find(_)
        | Command::History(_) => None,
    }
}

pub(super) fn event(books: &mut Books, event: &Event<'_>) -> Verdict {
    match event {
        Event::Sent { call, command } if call.is_of_engine() => sent(books, *call, command),
        Event::Answered { call, result } if call.is_of_engine() => {
            answered(books, *call, result);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn sent(books: &mut Books, call: Call, command: &Command) -> Verdict {
    let Some(lane) = lane_of(command) else {
        return Ok(());
    };
    let now_us = books.now.true_us;
    let disturbed = !books.is_undisturbed(call.who, 0);
    let all_until = books.all_disturbed_until;
    let Some(worker) = books.worker_mut(call.who).filter(|w| w.is_up(call.who)) else {
        return Ok(());
    };
    let one = worker.pace.lanes[lane];
    if one.in_flight.is_some() {
        return Err(Violation::new(
            "pace.two",
            format!("{} sends a second command of a kind: {command:?}", call.who),
        )
        .of(call.who));
    }
    hammers(worker, lane, one, now_us)?;
    sluggish(worker, lane, command, now_us, all_until)?;
    if lane == RECLAIM && !disturbed {
        herd(worker, one, now_us, all_until)?;
    }
    upkeep(worker, now_us, all_until)?;
    let one = &mut worker.pace.lanes[lane];
    one.in_flight = Some(call.op);
    one.sent_us = Some(now_us);
    match command {
        Command::Claim(claim) => worker.pace.claim = Some(SentClaim::new(claim.id, command)),
        Command::Heartbeat(heartbeat) => {
            worker.pace.heartbeat.clear();
            worker.pace.heartbeat.extend(&heartbeat.runs);
        }
        _ => {}
    }
    Ok(())
}

fn answered(books: &mut Books, call: Call, result: &Result<Reply, StoreError>) {
    let now_us = books.now.true_us;
    let Some(worker) = books.worker_mut(call.who) else {
        return;
    };
    let mut lanes = worker.pace.lanes.iter_mut();
    let Some(lane) = lanes.find(|lane| lane.in_flight == Some(call.op)) else {
        return;
    };
    lane.in_flight = None;
    lane.answered_us = now_us;
    match result {
        // A store that refuses what is in a command is not away.
        Ok(_) => (lane.failures, lane.errors) = (0, 0),
        Err(StoreError::Rejected(_)) => {
            lane.failures = 0;
            lane.errors += 1;
            lane.failed_us = now_us;
        }
        Err(StoreError::Failed(_) | StoreError::Unknown(_)) => {
            lane.failures += 1;
            lane.errors += 1;
            lane.failed_us = now_us;
        }
    }
}

fn hammers(worker: &WorkerBook, lane: usize, one: LanePace, now_us: u64) -> Verdict {
    // A shutdown tries once more at once.
    if one.failures == 0 || worker.shutdown_us.is_some() || worker.disturbed_until >= one.failed_us
    {
        return Ok(());
    }
    let doubled = ERROR_WAIT_MIN_US << (one.failures - 1).min(20);
    let mut wait_us = doubled.min(ERROR_WAIT_MAX_US);
    if lane == HEARTBEAT {
        wait_us = wait_us.min(worker.knobs.lease_ms.max(40) * 1_000 / 8);
    }
    let told_us = one.again_us.saturating_sub(one.failed_us);
    let wait_us = wait_us.max(told_us);
    // Its clock may be fast.
    let wait_us = wait_us - wait_us / 100;
    let waited_us = now_us - one.failed_us;
    if waited_us >= wait_us {
        return Ok(());
    }
    Err(Violation::new(
        "pace.hammers",
        format!(
            "{} sends the next command {waited_us} us after error {} in a row",
            worker.who(),
            one.failures
        ),
    )
    .of(worker.who()))
}

/// A store that works again is used again: what has to be sent once more does not wait longer
/// than errors since it last worked make it.
fn sluggish(
    worker: &WorkerBook,
    lane: usize,
    command: &Command,
    now_us: u64,
    all_until: u64,
) -> Verdict {
    let has_to = match command {
        Command::Claim(claim) => claim.repeat,
        Command::Finish(_) | Command::Reclaim(_) => true,
        _ => false,
    };
    let one = worker.pace.lanes[lane];
    if !has_to || one.failures == 0 || worker.shutdown_us.is_some() {
        return Ok(());
    }
    let since_us = one.failed_us.max(worker.disturbed_until).max(all_until);
    let wait_us = error_wait_max_us(one.errors);
    if now_us <= since_us + wait_us + wait_us / 100 + SLACK_US {
        return Ok(());
    }
    let text = format!(
        "{} waits until {now_us} us after error {} in a row at {} us",
        worker.who(),
        one.errors,
        one.failed_us
    );
    Err(Violation::new("pace.sluggish", text).of(worker.who()))
}

/// The intervals between reclaims are not all the same.
fn herd(worker: &mut WorkerBook, one: LanePace, now_us: u64, all_until: u64) -> Verdict {
    let Some(sent_us) = one.sent_us else {
        return Ok(());
    };
    let gaps = &mut worker.pace.reclaim_gaps;
    if worker.disturbed_until >= sent_us || all_until >= sent_us || one.failures > 0 {
        *gaps = [0; GAPS];
        return Ok(());
    }
    gaps.rotate_left(1);
    gaps[GAPS - 1] = now_us - sent_us;
    let same = gaps.windows(2).all(|pair| pair[0].abs_diff(pair[1]) <= 2);
    let gap_us = gaps[0];
    if gap_us == 0 || !same {
        return Ok(());
    }
    Err(Violation::new(
        "pace.herd",
        format!(
            "{} looks for lost jobs every {gap_us} us, without jitter",
            worker.who()
        ),
    )
    .of(worker.who()))
}

/// Lost jobs are looked for every half of a lease.
fn upkeep(worker: &WorkerBook, now_us: u64, all_until: u64) -> Verdict {
    let lane = worker.pace.lanes[RECLAIM];
    if worker.shutdown_us.is_some() || lane.in_flight.is_some() {
        return Ok(());
    }
    let since = lane.sent_us.unwrap_or(worker.up_us).max(lane.failed_us);
    let since = since.max(worker.disturbed_until).max(all_until);
    let period_us = worker.knobs.lease_ms.max(40) * 1_000 / 2;
    if now_us <= since + period_us + period_us / 100 + UPKEEP_SLACK_US {
        return Ok(());
    }
    Err(Violation::new(
        "pace.upkeep",
        format!(
            "{} last looked for lost jobs at {:?} us; it is {now_us} us",
            worker.who(),
            lane.sent_us
        ),
    )
    .of(worker.who()))
}
