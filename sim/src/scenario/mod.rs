//! What is simulated, as data.

mod deployment;
mod dice;
mod draws;
mod fault;
mod generate;
#[cfg(feature = "proptest")]
mod strategy;
mod stretch;
mod validate;

use std::time::Duration;

use job_engine::draw::mix;
use job_engine::store::NewJob;
use job_engine::worker::{TypeConfig, WorkerConfig};
use job_engine::{Due, JobId, JobType, Payload, Reply, RetrySettings, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use deployment::Deployment;
pub use draws::{Draws, Topic};
pub use fault::{Direction, Fault, MessageEffect, StoreTrouble};
pub use generate::{Profile, generate};
#[cfg(feature = "proptest")]
pub use strategy::{ScenarioTree, Scenarios};
pub use validate::{ELEMENTS_MAX, HORIZON_MS_MAX, InvalidScenario};

/// When simulated time begins: 2033-05-18, so that no number looks like an
/// accident of the epoch.
pub const START: Timestamp = Timestamp::from_micros(2_000_000_000_000_000);

/// A whole simulation: who works, what there is to do, and what goes wrong.
///
/// Times are milliseconds since the start of the simulation, by a clock that no
/// fault touches. Workers and jobs have keys instead of places in a list, so
/// that taking one out changes nothing about the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Where every draw comes from.
    pub seed: u64,
    /// When the simulation ends.
    pub horizon_ms: u64,
    /// From here on nothing goes wrong any more, and everything has to come to
    /// rest: the liveness phase. There is none if that is after the horizon.
    pub calm_from_ms: u64,
    /// How long a message travels, in microseconds: from, to.
    pub latency_us: (u64, u64),
    /// The job types; jobs and workers name them by their place.
    pub types: Vec<TypeSpec>,
    /// The workers.
    pub workers: Vec<WorkerSpec>,
    /// The jobs.
    pub jobs: Vec<JobSpec>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// How much longer the reply to a claim takes for each job that it brings, in
    /// milliseconds: their configs are long, or the line is slow. Not in a cluster.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub claimed_job_ms: u64,
    /// Inputs of the test of an application that it leaves out
    /// ([`Sim::inputs`](crate::Sim::inputs)).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<u32>,
}

/// How much longer than a message a reply takes, in microseconds, if each job that it
/// brings takes so long.
pub(crate) fn long_reply_us(claimed_job_us: u64, reply: Option<&Reply>) -> u64 {
    match reply {
        Some(Reply::Claimed(claimed)) => claimed.jobs.len() as u64 * claimed_job_us,
        _ => 0,
    }
}

fn is_zero(ms: &u64) -> bool {
    *ms == 0
}

/// A job type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypeSpec {
    /// How it is retried, for each edition of the program: a rolling change of
    /// configuration brings workers of another edition.
    pub retries: Vec<RetrySpec>,
}

/// See [`RetrySettings`] and [`TypeConfig`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "named as in the settings that they become")]
pub struct RetrySpec {
    pub attempts_max: Option<u32>,
    pub min_backoff_ms: u64,
    pub max_backoff_ms: u64,
    pub jitter_pct: u8,
    pub reset_after_multiples: u32,
    pub crashes_max: Option<u32>,
    #[serde(default = "hour_ms", skip_serializing_if = "is_hour")]
    pub undecodable_max_ms: u64,
}

fn hour_ms() -> u64 {
    3_600_000
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_hour(ms: &u64) -> bool {
    *ms == hour_ms()
}

/// A worker: a process that polls, and is started again when it crashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerSpec {
    /// Its name.
    pub key: u32,
    /// When it starts.
    pub start_ms: u64,
    /// How far its clock is ahead of the true time.
    pub clock_ahead_ms: i64,
    /// How much faster its clock runs than the true time, in parts per million.
    pub clock_drift_ppm: i32,
    /// How it is configured.
    pub knobs: Knobs,
}

/// How a worker is configured; see [`WorkerConfig`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "named as in the configuration that they become"
)]
pub struct Knobs {
    pub jobs_max: u32,
    pub jobs_min: u32,
    pub lease_ms: u64,
    pub poll_ms: u64,
    pub poll_deaf_ms: u64,
    pub shutdown_timeout_ms: u64,
    /// Never listens to announcements.
    pub poll_only: bool,
    /// The edition of the program: which of [`TypeSpec::retries`] it has.
    pub edition: u32,
    /// The types that it knows, by place; empty for all.
    pub types: Vec<u32>,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// Its name; its id follows from it.
    pub key: u32,
    /// When it is spawned; if it has a parent, that spawns it instead.
    pub spawn_ms: u64,
    /// Who spawns it: the process of a worker, or somebody outside.
    pub by: Option<u32>,
    /// The job whose completing transaction spawns it.
    pub parent: Option<u32>,
    /// Its type, by place.
    pub job_type: u32,
    /// Whether it is spawned as the unique one of its type.
    pub unique: bool,
    /// When it is due.
    pub due: DueSpec,
    /// When somebody outside spawns another job with its id, in vain.
    pub again_ms: Option<u64>,
    /// What its runs do, by claim: the first claim does the first. Later ones
    /// than there are complete at once.
    pub runs: Vec<RunSpec>,
}

/// When a job is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DueSpec {
    /// At once.
    Now,
    /// So long after the spawn, by the store's clock.
    InMs(u64),
    /// So long after [`START`], by the store's clock.
    AtMs(u64),
}

/// One run of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSpec {
    /// How long it works.
    pub work_ms: u64,
    /// When it keeps an execution state, from its start.
    pub checkpoint_ms: Option<u64>,
    /// How it ends.
    pub end: EndSpec,
    /// What it does when it is asked to stop.
    pub on_stop: OnStop,
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndSpec {
    /// Completes.
    Complete,
    /// Completes in a transaction of its own, with one effect, and spawns the
    /// children of the job in it.
    CompleteTx,
    /// Fails.
    Fail,
    /// Panics.
    Panic,
    /// Cannot even be made: its config cannot be decoded.
    Undecodable,
    /// Runs again after so long.
    RescheduleMs(u64),
    /// Runs again after so long, in a transaction with one effect.
    RescheduleTxMs(u64),
    /// Runs again after so long, at the same attempt.
    SnoozeMs(u64),
    /// Runs again after so long, at the same attempt, in a transaction with one effect.
    SnoozeTxMs(u64),
    /// Fails for good.
    GiveUp,
    /// Fails for good, in a transaction with one effect.
    GiveUpTx,
    /// Works until it is stopped, or the faults cease.
    Hang,
    /// Takes its process along; that comes back after a second.
    Kill,
}

/// What a runner does when it is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnStop {
    /// Asks for another run, at once.
    Yield,
    /// Fails.
    Fail,
    /// Goes on; can be aborted.
    Ignore,
    /// Goes on, and cannot be aborted either: it blocks its thread.
    Block,
}

impl Scenario {
    /// The draws of this scenario.
    pub const fn draws(&self) -> Draws {
        Draws::new(self.seed)
    }

    /// The worker with this key.
    pub fn worker(&self, key: u32) -> Option<&WorkerSpec> {
        self.workers.iter().find(|worker| worker.key == key)
    }

    /// The job with this key.
    pub fn job(&self, key: u32) -> Option<&JobSpec> {
        self.jobs.iter().find(|job| job.key == key)
    }

    /// What shrinking counts: jobs and faults.
    pub fn elements(&self) -> usize {
        self.jobs.len() + self.faults.len()
    }

    /// Whether its jobs are those of an application.
    pub fn is_of_application(&self) -> bool {
        self.types.is_empty() && self.jobs.is_empty()
    }

    /// Whether nothing at all goes wrong.
    pub fn is_fault_free(&self) -> bool {
        let harmless = |run: &RunSpec| run.end != EndSpec::Kill && run.on_stop != OnStop::Block;
        let peaceful = self.faults.is_empty() && self.claimed_job_ms == 0;
        peaceful && self.jobs.iter().all(|job| job.runs.iter().all(harmless))
    }

    /// The engine's configuration of a worker with these knobs.
    pub fn worker_config(&self, knobs: &Knobs) -> WorkerConfig {
        let types = self.types.iter().enumerate();
        let known = types.filter(|(place, _)| knobs.knows(*place as u32));
        WorkerConfig {
            types: known
                .map(|(place, spec)| spec.config(place as u32, knobs.edition))
                .collect(),
            jobs_max: knobs.jobs_max,
            jobs_min: knobs.jobs_min,
            lease: Duration::from_millis(knobs.lease_ms),
            poll_interval: Duration::from_millis(knobs.poll_ms),
            poll_interval_deaf: Duration::from_millis(knobs.poll_deaf_ms),
            shutdown_timeout: Duration::from_millis(knobs.shutdown_timeout_ms),
        }
    }
}

impl Knobs {
    /// Whether the worker knows the type at this place.
    pub fn knows(&self, job_type: u32) -> bool {
        self.types.is_empty() || self.types.contains(&job_type)
    }

    /// How long the driver waits for a reply of the store.
    pub fn store_timeout(&self) -> Duration {
        job_tokio::store_timeout(Duration::from_millis(self.lease_ms))
    }
}

impl TypeSpec {
    /// How a program of this edition retries the type.
    pub fn retry(&self, edition: u32) -> &RetrySpec {
        &self.retries[edition as usize % self.retries.len()]
    }

    fn config(&self, place: u32, edition: u32) -> TypeConfig {
        let spec = self.retry(edition);
        TypeConfig {
            job_type: job_type(place),
            retry: spec.settings(),
            crashes_max: spec.crashes_max,
            undecodable_max: Duration::from_millis(spec.undecodable_max_ms),
        }
    }
}

/// A failure up to this attempt is no more than a warning, if attempts are limited.
pub(crate) const WARN_ATTEMPTS: u32 = 3;

impl RetrySpec {
    /// The settings that it stands for.
    pub fn settings(&self) -> RetrySettings {
        let counted = match self.attempts_max {
            Some(attempts_max) => RetrySettings {
                n_attempts: Some(attempts_max),
                n_warn_attempts: Some(WARN_ATTEMPTS),
                ..RetrySettings::default()
            },
            None => RetrySettings::repeat_indefinitely(),
        };
        RetrySettings {
            min_backoff: Duration::from_millis(self.min_backoff_ms),
            max_backoff: Duration::from_millis(self.max_backoff_ms),
            backoff_jitter_pct: self.jitter_pct,
            attempt_reset_after_backoff_multiples: self.reset_after_multiples,
            ..counted
        }
    }
}

impl JobSpec {
    /// Its id.
    pub fn id(&self) -> JobId {
        job_id(self.key)
    }

    /// What its run under the claim with this fence does.
    pub fn run(&self, fence: i64) -> RunSpec {
        let place = usize::try_from(fence - 1).ok();
        let run = place.and_then(|place| self.runs.get(place));
        run.cloned().unwrap_or(RunSpec {
            work_ms: 1,
            checkpoint_ms: None,
            end: EndSpec::Complete,
            on_stop: OnStop::Yield,
        })
    }

    /// What is stored of it. Who spawns it chooses the token.
    pub fn new_job(&self, token: i64) -> NewJob {
        NewJob {
            id: self.id(),
            job_type: job_type(self.job_type),
            unique_type: self.unique,
            due: match self.due {
                DueSpec::Now => Due::Now,
                DueSpec::InMs(ms) => Due::In(Duration::from_millis(ms)),
                DueSpec::AtMs(ms) => Due::At(START.saturating_add(Duration::from_millis(ms))),
            },
            config: Payload::from_json(self.key.to_string()),
            trace: None,
            token,
        }
    }
}

/// The id of the job with this key.
pub const fn job_id(key: u32) -> JobId {
    JobId(Uuid::from_u128(
        0x0190_0000_0000_7000_8000_0000_0000_0000 | key as u128,
    ))
}

/// The key of the job with this id.
pub fn job_key(id: JobId) -> u32 {
    id.0.as_u128() as u32
}

/// The names of the types, by place.
const TYPE_NAMES: [&str; 8] = [
    "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel",
];

/// So many types a scenario can have.
pub const TYPES_MAX: usize = TYPE_NAMES.len();

/// The type at this place.
pub const fn job_type(place: u32) -> JobType {
    JobType::new(TYPE_NAMES[place as usize % TYPES_MAX])
}

/// The place of this type. Types of applications have none, and numbers instead that
/// follow from their names.
pub fn type_place(job_type: &JobType) -> u32 {
    let name = job_type.as_str();
    let place = TYPE_NAMES.iter().position(|known| *known == name);
    place.map_or_else(|| number_of(name), |place| place as u32)
}

fn number_of(name: &str) -> u32 {
    let hash = name
        .bytes()
        .fold(0, |hash, byte| mix(hash ^ u64::from(byte)));
    hash as u32 | 1 << 31
}
