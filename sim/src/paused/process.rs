//! One process: a service, what it spawns, and its death.

use std::sync::Arc;
use std::time::Duration;

use job::{ClockHandle, JobError, JobPollerConfig, JobSvcConfig, Jobs};
use job_engine::store::Spawned;
use job_engine::{Entropy, Timestamp};
use job_tokio::to_datetime;
use tokio::task::JoinSet;

use super::backend::{Options, Simulated};
use super::port::Port;
use super::runner::{Kind, Spawners, due_at};
use super::state::World;
use crate::event::{Event, Who};
use crate::scenario::{Knobs, START, Topic, job_id};

/// A process that is up.
pub(super) struct Process {
    world: World,
    who: Who,
    pub(super) jobs: Jobs<Simulated>,
    /// For the types that the worker does not run.
    _others: Jobs<Simulated>,
    spawners: Spawners,
    known: Knobs,
    pub(super) spawns: JoinSet<()>,
}

/// The seed of the service that only spawns differs from the other one's.
const OTHERS: u64 = 1 << 32;

impl Process {
    /// Starts the process of a worker.
    pub(super) async fn start(world: &World, who: Who, ahead_ms: i64, knobs: &Knobs) -> Self {
        let seed = seed(world, who, 0);
        let id = Entropy::from_seed(seed).worker_id();
        world.state().is_starting(who, id, knobs);
        let mut process = Self::open(world, who, ahead_ms, knobs).await;
        process
            .jobs
            .start_poll()
            .await
            .expect("the types have names that are allowed");
        process
    }

    /// Starts whoever spawns from outside of all workers.
    pub(super) async fn outside(world: &World) -> Self {
        Self::open(world, Who::OUTSIDE, 0, &Knobs::default()).await
    }

    async fn open(world: &World, who: Who, ahead_ms: i64, knobs: &Knobs) -> Self {
        let mut jobs = service(world, who, 0, ahead_ms, knobs).await;
        let mut others = service(world, who, OTHERS, ahead_ms, knobs).await;
        let spawners = Spawners::default();
        let types = world.scenario().types.iter().enumerate();
        let made = types.map(|(place, spec)| {
            let place = place as u32;
            let kind = Kind {
                world: world.clone(),
                who,
                place,
                retry: spec.retry(knobs.edition).clone(),
                spawners: Arc::clone(&spawners),
            };
            if knobs.knows(place) {
                jobs.add_initializer(kind)
            } else {
                others.add_initializer(kind)
            }
        });
        let made = made.collect();
        spawners.set(made).expect("they are made once");
        Self {
            world: world.clone(),
            who,
            jobs,
            _others: others,
            spawners,
            known: knobs.clone(),
            spawns: JoinSet::new(),
        }
    }

    /// Spawns the job at this place, as a caller in this process would.
    pub(super) fn spawn(&mut self, place: usize, again: bool) {
        let (world, who) = (self.world.clone(), self.who);
        let job = world.scenario().jobs[place].clone();
        let polls = who != Who::OUTSIDE && self.known.knows(job.job_type);
        let spawners = self.spawners.get().expect("they were made");
        let spawner = spawners[job.job_type as usize].clone();
        self.spawns.spawn(async move {
            let id = job::JobId::from(job.id());
            let result = match due_at(&world, &job) {
                _ if job.unique => spawner.spawn_unique(id, job.key).await,
                None => spawner.spawn(id, job.key).await.map(|_| ()),
                Some(at) => spawner.spawn_at(id, job.key, at).await.map(|_| ()),
            };
            let mut state = world.state();
            let exists = state.model.find(job_id(job.key)).is_some();
            let spawned = match result {
                // It may mean that another one exists.
                Ok(()) if job.unique && !exists => None,
                Ok(()) => Some(Spawned::Created),
                Err(JobError::DuplicateId(_)) => Some(Spawned::DuplicateId),
                Err(JobError::DuplicateUniqueType(_)) => Some(Spawned::DuplicateUniqueType),
                Err(_) => None,
            };
            if !state.is_up(who) {
                return;
            }
            state.observe(&Event::Spawned {
                who,
                job: job.key,
                again,
                spawned,
            });
            if polls && spawned == Some(Spawned::Created) && !job.unique {
                // The service has woken its own worker.
                let job_type = job.job_type;
                state.observe(&Event::Woken { who, job_type });
            }
        });
    }
}

fn seed(world: &World, who: Who, other: u64) -> [u8; 32] {
    let key = [who.worker.into(), u64::from(who.incarnation) + other];
    world.scenario().draws().seed_bytes(Topic::WorkerSeed, key)
}

async fn service(
    world: &World,
    who: Who,
    other: u64,
    ahead_ms: i64,
    knobs: &Knobs,
) -> Jobs<Simulated> {
    let seed = seed(world, who, other);
    let id = Entropy::from_seed(seed).worker_id();
    world.state().is_known_as(who, id);
    let port = Port {
        world: world.clone(),
        who,
        deaf: knobs.poll_only,
    };
    let shows_us = START.as_micros() + world.now_us().cast_signed() + ahead_ms * 1_000;
    let clock = ClockHandle::tokio_time(to_datetime(Timestamp::from_micros(shows_us)));
    let config = JobSvcConfig::<Simulated>::with_backend(Options { port: Some(port) })
        .seed(seed)
        .clock(clock)
        .poller_config(JobPollerConfig {
            job_lost_interval: Duration::from_millis(knobs.lease_ms),
            max_jobs_per_process: knobs.jobs_max as usize,
            min_jobs_per_process: knobs.jobs_min as usize,
            shutdown_timeout: Duration::from_millis(knobs.shutdown_timeout_ms),
        })
        .poll_interval(Duration::from_millis(knobs.poll_ms))
        .poll_interval_deaf(Duration::from_millis(knobs.poll_deaf_ms))
        .build()
        .expect("the options have a port");
    Jobs::init(config)
        .await
        .expect("the simulated backend opens at once")
}
