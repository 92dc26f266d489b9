//! The process of a worker: the driver of production, and what spawns jobs.

use std::sync::Arc;
use std::time::Duration;

use job_engine::{Entropy, JobType, WorkerId};
use job_tokio::{Announcer, ClockHandle, DriverConfig, DriverHandle, Wakes, to_datetime};
use tokio::task::JoinSet;

use super::client::Client;
use super::listener::RemoteStore;
use super::runner::Runners;
use super::spawner;
use super::world::{Birth, World};
use uuid::Uuid;

use crate::event::{Event, Who};
use crate::scenario::{START, Topic};

/// What the tasks of one process share.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) client: Client,
    /// The identity of its engine; none if it has none.
    pub(super) id: Option<WorkerId>,
    wakes: Wakes,
    announcer: Announcer,
}

impl Process {
    /// A process with an engine of this id, if with any.
    pub(super) fn new(client: Client, id: Option<WorkerId>) -> Self {
        Self {
            announcer: Announcer::start(
                id.unwrap_or(WorkerId(Uuid::nil())),
                RemoteStore::deaf(client.clone()),
            ),
            wakes: Wakes::new(),
            client,
            id,
        }
    }

    pub(super) fn world(&self) -> &World {
        self.client.world()
    }

    pub(super) fn who(&self) -> Who {
        self.client.who()
    }

    /// Jobs of this type may be due: here, and in other processes.
    pub(super) fn wake(&self, job_type: &JobType) {
        if self.id.is_some() {
            let who = self.who();
            let event = Event::Woken { who, job_type };
            self.world().record_by(who, &event);
            self.wakes.add(job_type);
        }
        self.announcer.announce(job_type);
    }
}

/// Runs the process of a worker until it is asked to shut down and has.
pub(super) async fn run(world: World, worker: u32) -> turmoil::Result {
    let Birth {
        who,
        knobs,
        mut stop,
    } = world.birth(worker);
    let scenario = world.scenario();
    let key = [u64::from(worker), u64::from(who.incarnation)];
    let seed = scenario.draws().seed_bytes(Topic::WorkerSeed, key);
    let entropy = Entropy::from_seed(seed);
    let id = entropy.clone().worker_id();
    let ahead_ms = scenario
        .worker(worker)
        .map_or(0, |spec| spec.clock_ahead_ms);
    let shows = START.saturating_add(Duration::from_micros(world.now_us()));
    let shows = to_datetime(shows) + chrono::TimeDelta::milliseconds(ahead_ms);
    world.up(who, id);

    let mut connections = JoinSet::new();
    let (client, link) = Client::new(&world, who);
    connections.spawn_local(link.run());
    let store = if knobs.poll_only {
        RemoteStore::deaf(client.clone())
    } else {
        let (store, ear) = RemoteStore::listening(client.clone());
        connections.spawn_local(ear.run());
        store
    };
    let process = Process::new(client, Some(id));
    let driver = DriverHandle::start(DriverConfig {
        store,
        clock: ClockHandle::tokio_time(shows),
        worker: scenario.worker_config(&knobs),
        entropy,
        runners: Arc::new(Runners::new(process.clone())),
        wakes: process.wakes.clone(),
        announcer: process.announcer.clone(),
    });
    let mut spawns = JoinSet::new();
    for job in &scenario.jobs {
        let spawned = world.is_spawned(job.key, false);
        if job.by == Some(worker) && job.parent.is_none() && !spawned {
            spawns.spawn(spawner::spawn(process.clone(), job.clone(), false));
        }
    }
    // An error means that the world is gone.
    let _ = stop.wait_for(|asked| *asked).await;
    world.record_by(who, &Event::ShutdownAsked { who });
    let ended = driver.shutdown().await;
    assert_eq!(ended, Ok(()), "a driver ends when it is told to");
    world.stopped(who);
    Ok(())
}
