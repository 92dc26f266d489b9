//! One process: a service, what it spawns, and its death.

use std::sync::Arc;
use std::time::Duration;

use job::{ClockHandle, JobError, JobPollerConfig, JobSvcConfig, Jobs};
use job_engine::store::Spawned;
use job_engine::{Entropy, Timestamp, WorkerId};
use job_tokio::to_datetime;
use job_tokio::turn::in_turn;
use tokio::task::JoinSet;

use super::backend::{Simulated, SimulatedOptions};
use super::port::Port;
use super::runner::{Kind, Spawners, due_at};
use super::state::World;
use crate::event::{Event, Who};
use crate::scenario::{Knobs, START, Topic, job_id, job_type};

/// A process that is up.
pub(crate) struct Process {
    world: World,
    who: Who,
    /// What it claims under.
    id: WorkerId,
    pub(crate) jobs: Jobs<Simulated>,
    /// What spawns the jobs of a scenario.
    scripted: Option<Scripted>,
    pub(crate) spawns: JoinSet<()>,
}

struct Scripted {
    /// For the types that the worker does not run.
    _others: Jobs<Simulated>,
    spawners: Spawners,
    known: Knobs,
}

/// The seed of the service that only spawns differs from the other one's.
const OTHERS: u64 = 1 << 32;

impl Process {
    /// Starts the process of a worker.
    pub(crate) async fn start(world: &World, who: Who, ahead_ms: i64, knobs: &Knobs) -> Self {
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
    pub(crate) async fn outside(world: &World) -> Self {
        Self::open(world, Who::OUTSIDE, 0, &Knobs::default()).await
    }

    async fn open(world: &World, who: Who, ahead_ms: i64, knobs: &Knobs) -> Self {
        let mut jobs = service(world, who, 0, ahead_ms, knobs).await;
        let scripted = match world.register() {
            Some(register) => {
                register(&mut jobs);
                None
            }
            None => Some(Self::scripted(world, who, ahead_ms, knobs, &mut jobs).await),
        };
        Self {
            world: world.clone(),
            who,
            id: Entropy::from_seed(seed(world, who, 0)).worker_id(),
            jobs,
            scripted,
            spawns: JoinSet::new(),
        }
    }

    async fn scripted(
        world: &World,
        who: Who,
        ahead_ms: i64,
        knobs: &Knobs,
        jobs: &mut Jobs<Simulated>,
    ) -> Scripted {
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
        Scripted {
            _others: others,
            spawners,
            known: knobs.clone(),
        }
    }

    /// Spawns the job at this place, as a caller in this process would.
    pub(crate) fn spawn(&mut self, place: usize, again: bool) {
        let (world, who) = (self.world.clone(), self.who);
        let job = world.scenario().jobs[place].clone();
        let scripted = self.scripted.as_ref().expect("the scenario has jobs");
        let polls = who != Who::OUTSIDE && scripted.known.knows(job.job_type);
        let spawners = scripted.spawners.get().expect("they were made");
        let spawner = spawners[job.job_type as usize].clone();
        let spawns = async move {
            if !job.unique {
                let job = job.key;
                world.state().observe(&Event::Spawning { who, job });
            }
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
                let job_type = &job_type(job.job_type);
                state.observe(&Event::Woken { who, job_type });
            }
        };
        self.spawns.spawn(in_turn(self.id, None, spawns));
    }
}

fn seed(world: &World, who: Who, other: u64) -> [u8; 32] {
    let key = [who.worker.into(), u64::from(who.incarnation) + other];
    world.scenario().draws().seed_bytes(Topic::WorkerSeed, key)
}

/// A service that registers what an application runs, and never polls: for its test.
pub(crate) async fn spawning(world: &World) -> Jobs<Simulated> {
    service(world, Who::OUTSIDE, 0, 0, &Knobs::default()).await
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
    let config = JobSvcConfig::<Simulated>::with_backend(SimulatedOptions { port: Some(port) })
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
