//! Sequences of commands with time between them, made by proptest.
//!
//! Few jobs, types and workers, so that they meet often. What has happened so far
//! decides what may come next: runs that there are, claims and spawns whose reply
//! was lost. A sequence that fails shrinks to the fewest and simplest steps.

use std::time::Duration;

use job_engine::store::{
    Checkpoint, Claim, Finish, Heartbeat, History, NewJob, Outcome, Quota, Reclaim, TypePolicy,
};
use job_engine::{
    ClaimId, Command, Due, ErrorText, Fence, JobId, JobType, ModelStore, Payload, Reply, Run,
    Timestamp, WorkerId,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest_state_machine::ReferenceStateMachine;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Types whose order and spelling a database could get wrong.
static TYPES: [JobType; 4] = [
    JobType::new("a"),
    JobType::new("B"),
    JobType::new("ü\"'\\"),
    JobType::new("unique"),
];
const JOBS: u128 = 16;
const WORKERS: u128 = 3;
/// When a sequence begins.
const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_001);

/// One command, and how much time passes before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub passes: Passes,
    pub command: Command,
}

/// How time goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Passes {
    /// By so many microseconds; a clock can also be set back.
    Micros(i64),
    /// To this time.
    To(Timestamp),
}

impl Passes {
    pub fn after(self, now: Timestamp) -> Timestamp {
        match self {
            Passes::Micros(micros) => {
                Timestamp::from_micros(now.as_micros().saturating_add(micros))
            }
            Passes::To(at) => at,
        }
    }
}

/// What a sequence has led to, as far as it decides how it may go on.
#[derive(Clone, Debug)]
pub struct Known {
    pub now: Timestamp,
    model: ModelStore,
    runs: Vec<Run>,
    spawns: Vec<NewJob>,
    claims: Vec<Claim>,
    past: Vec<Command>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            now: START,
            model: ModelStore::new(),
            runs: Vec::new(),
            spawns: Vec::new(),
            claims: Vec::new(),
            past: Vec::new(),
        }
    }
}

impl Known {
    /// Time passes, and a command is sent.
    pub fn goes_on(&mut self, step: &Step) {
        self.now = step.passes.after(self.now);
        match &step.command {
            Command::Spawn(jobs) => self.spawns.extend(jobs.iter().cloned()),
            Command::Claim(claim) => self.claims.push(claim.clone()),
            _ => {}
        }
        self.past.push(step.command.clone());
    }

    /// A reply says which runs there are.
    pub fn learns(&mut self, reply: &Reply) {
        if let Reply::Claimed(claimed) = reply {
            self.runs.extend(claimed.jobs.iter().map(|job| job.run));
            self.runs.extend(claimed.left.iter().map(|left| left.run));
        }
    }
}

/// See [`ReferenceStateMachine`].
pub struct Commands;

impl ReferenceStateMachine for Commands {
    type State = Known;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Known> {
        Just(Known::default()).boxed()
    }

    fn transitions(known: &Known) -> BoxedStrategy<Step> {
        (passes(known), command(known))
            .prop_map(|(passes, command)| Step { passes, command })
            .boxed()
    }

    fn apply(mut known: Known, step: &Step) -> Known {
        known.goes_on(step);
        if let Ok(reply) = known.model.apply(known.now, &step.command) {
            known.learns(&reply);
        }
        known
    }
}

/// Mostly a little, often not at all; now and then back, or to an end of the
/// calendar and from there to where it all began.
fn passes(known: &Known) -> BoxedStrategy<Passes> {
    if known.now.as_micros().abs_diff(START.as_micros()) > 10_u64.pow(16) {
        return prop_oneof![Just(Passes::To(START)), Just(Passes::Micros(0))].boxed();
    }
    prop_oneof![
        10 => Just(Passes::Micros(0)),
        10 => (0..1_000_i64).prop_map(Passes::Micros),
        18 => (0..12_i64).prop_map(|secs| Passes::Micros(secs * 1_000_000)),
        1 => (-5_000_000..0_i64).prop_map(Passes::Micros),
        1 => select(&[Timestamp::MIN, Timestamp::MAX]).prop_map(Passes::To),
    ]
    .boxed()
}

fn command(known: &Known) -> BoxedStrategy<Command> {
    prop_oneof![
        5 => vec(new_job(known), 0..6).prop_map(Command::Spawn),
        6 => claim(known).prop_map(Command::Claim),
        5 => finishes(known).prop_map(Command::Finish),
        2 => (some_runs(known), duration())
            .prop_map(|(runs, lease)| Command::Heartbeat(Heartbeat { runs, lease })),
        1 => (run(known), payload())
            .prop_map(|(run, state)| Command::Checkpoint(Checkpoint { run, state })),
        1 => run(known).prop_map(Command::Hold),
        3 => (vec(policy(), 0..3), 0..6_u32).prop_map(|(policies, jobs_max)| {
            // Two policies for a type are refused.
            Command::Reclaim(Reclaim { policies, jobs_max })
        }),
        1 => job().prop_map(Command::Find),
        1 => (job(), 0..6_i64).prop_map(|(job, fence)| {
            let before = Fence(fence);
            Command::History(History { job, before })
        }),
        // As if its reply had been lost, at once or long ago.
        1 => again(&known.past, Command::Find(JobId(Uuid::nil()))),
    ]
    .boxed()
}

fn new_job(known: &Known) -> BoxedStrategy<NewJob> {
    let fresh = (
        (job(), job_type(), 0..8_u8),
        (due(known.now), payload()),
        (of(select(&["", "00-1-2-01"])), -1..2_i64),
    );
    let fresh = fresh.prop_map(
        |((id, job_type, one_in_8), (due, config), (trace, token))| NewJob {
            id,
            unique_type: job_type == TYPES[3] || one_in_8 == 0,
            job_type,
            due,
            config,
            trace: trace.map(str::to_owned),
            token,
        },
    );
    if known.spawns.is_empty() {
        return fresh.boxed();
    }
    prop_oneof![5 => fresh, 1 => select(known.spawns.clone())].boxed()
}

/// A new claim, or one again whose reply was lost: mostly the last.
fn claim(known: &Known) -> BoxedStrategy<Claim> {
    let seq = known.claims.len() as i64;
    let quota = (0..4_u32, any::<bool>());
    let fresh = (
        subsequence(TYPES.to_vec(), 0..=TYPES.len()).prop_shuffle(),
        vec(quota, TYPES.len()),
        0..WORKERS,
        0..10_u8,
        duration(),
    );
    let fresh = fresh.prop_map(move |(types, quotas, worker, one_in_10, lease)| {
        let quotas = types.into_iter().zip(quotas);
        let quotas = quotas.map(|(job_type, (jobs_max, all))| Quota {
            job_type,
            jobs_max: if all { 20 } else { jobs_max },
        });
        Claim {
            id: ClaimId {
                worker: WorkerId(Uuid::from_u128(worker << 64)),
                seq,
            },
            repeat: one_in_10 == 0,
            quotas: quotas.collect(),
            lease,
        }
    });
    if known.claims.is_empty() {
        return fresh.boxed();
    }
    let last = known.claims[known.claims.len() - 1].clone();
    let old = prop_oneof![2 => Just(last), 1 => select(known.claims.clone())];
    let fewer = of(0..3_u32);
    let repeat = (old, duration(), fewer).prop_map(|(mut claim, lease, fewer)| {
        let quotas = claim.quotas.iter_mut();
        quotas.for_each(|quota| quota.jobs_max = quota.jobs_max.min(fewer.unwrap_or(u32::MAX)));
        Claim {
            repeat: true,
            lease,
            ..claim
        }
    });
    prop_oneof![3 => fresh, 1 => repeat].boxed()
}

fn finishes(known: &Known) -> BoxedStrategy<Vec<Finish>> {
    (some_runs(known), vec(outcome(known.now), 6))
        .prop_map(|(runs, outcomes)| {
            let ends = runs.into_iter().zip(outcomes);
            ends.map(|(run, outcome)| Finish { run, outcome }).collect()
        })
        .boxed()
}

fn outcome(now: Timestamp) -> impl Strategy<Value = Outcome> {
    let attempt = prop_oneof![5 => 0..6_u32, 1 => Just(u32::MAX)];
    let retried = (duration(), attempt, error());
    prop_oneof![
        2 => Just(Outcome::Completed),
        1 => error().prop_map(|error| Outcome::Errored { error }),
        1 => due(now).prop_map(|due| Outcome::Rescheduled { due }),
        1 => due(now).prop_map(|due| Outcome::Snoozed { due }),
        1 => Just(Outcome::Released),
        1 => Just(Outcome::Interrupted),
        1 => (duration(), error())
            .prop_map(|(delay, error)| Outcome::Undecodable { delay, error }),
        3 => retried.prop_map(|(delay, attempt, error)| Outcome::Retried {
            delay,
            attempt,
            error,
        }),
    ]
}

fn policy() -> impl Strategy<Value = TypePolicy> {
    (job_type(), limit(), limit(), duration()).prop_map(
        |(job_type, attempts_max, crashes_max, healthy_after)| TypePolicy {
            job_type,
            attempts_max,
            crashes_max,
            healthy_after,
        },
    )
}

fn limit() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![Just(None), (0..5_u32).prop_map(Some), Just(Some(u32::MAX))]
}

/// Up to five, in any order; that one comes twice, which is refused, is rare.
fn some_runs(known: &Known) -> BoxedStrategy<Vec<Run>> {
    let twice = 0..40_u8;
    (vec(run(known), 0..6), twice)
        .prop_map(|(mut runs, one_in_40)| {
            if one_in_40 > 0 {
                let mut seen = std::collections::BTreeSet::new();
                runs.retain(|run| seen.insert(*run));
            }
            runs
        })
        .boxed()
}

/// Mostly one that runs or has just ended; an old one; one that never was.
fn run(known: &Known) -> BoxedStrategy<Run> {
    let never = (job(), -1..4_i64, 0..WORKERS, -1..4_i64)
        .prop_map(|(job, fence, worker, seq)| {
            let worker = WorkerId(Uuid::from_u128(worker << 64));
            Run {
                job,
                fence: Fence(fence),
                claim: ClaimId { worker, seq },
            }
        })
        .boxed();
    if known.runs.is_empty() {
        return never;
    }
    let recent = known.runs[known.runs.len().saturating_sub(8)..].to_vec();
    // As where the database has given the fence of one to another.
    let confused = (select(recent.clone()), never.clone())
        .prop_map(|(run, Run { claim, .. })| Run { claim, ..run });
    prop_oneof![
        16 => select(recent),
        4 => select(known.runs.clone()),
        2 => never,
        1 => confused,
    ]
    .boxed()
}

fn again<T: Clone + std::fmt::Debug + 'static>(past: &[T], none: T) -> BoxedStrategy<T> {
    if past.is_empty() {
        return Just(none).boxed();
    }
    let recent = past[past.len().saturating_sub(6)..].to_vec();
    prop_oneof![select(recent), select(past.to_vec())].boxed()
}

/// Ids whose order is that of all their bytes.
fn job() -> impl Strategy<Value = JobId> {
    (1..=JOBS).prop_map(|n| {
        let spread = n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834);
        JobId(Uuid::from_u128(spread))
    })
}

fn job_type() -> impl Strategy<Value = JobType> {
    select(&TYPES)
}

fn due(now: Timestamp) -> impl Strategy<Value = Due> {
    let near = (-7_000_000..20_000_000_i64).prop_map(move |micros| {
        Due::At(Timestamp::from_micros(
            now.as_micros().saturating_add(micros),
        ))
    });
    prop_oneof![
        6 => Just(Due::Now),
        3 => duration().prop_map(Due::In),
        3 => near,
        1 => select(&[Timestamp::MIN, Timestamp::MAX]).prop_map(Due::At),
    ]
}

/// Short enough to end within a sequence, and now and then absurd.
fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        8 => (0..20_u64).prop_map(Duration::from_secs),
        2 => (0..5_000_000_000_u64).prop_map(Duration::from_nanos),
        1 => select(vec![
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_micros(3),
            Duration::from_secs(400 * 365 * 24 * 3_600),
            Duration::from_secs(9_998 * 365 * 24 * 3_600),
            Duration::MAX,
        ]),
    ]
}

/// JSON as it was written, to the letter.
fn payload() -> impl Strategy<Value = Payload> {
    select(&[
        "null",
        "0",
        " {\"b\": 1,\t\"a\": 1.50, \"a\": \"\\u0000\"} ",
        "\"'\\\\ü\u{1f980}\"",
        "[1e400]",
    ])
    .prop_map(Payload::from_json)
}

fn error() -> impl Strategy<Value = ErrorText> {
    select(&["", "it broke\nin two: \0 'quoted' \\x00", "ü\u{1f980}"]).prop_map(ErrorText::new)
}
