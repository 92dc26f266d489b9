//! The life of a worker process in the chaos.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use job::{JobPollerConfig, Jobs};
use job_engine::Entropy;
use serde::{Deserialize, Serialize};
use sqlx::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::sleep;
use uuid::Uuid;

use super::books::{Books, Clock, Line};
use super::dice::Dice;
use super::spawning::{Season, Spawners, spawn_for_a_season};
use super::troubles;
use super::workload::Desk;

pub const LEASE: Duration = Duration::from_secs(2);
/// Short, so that a stubborn run is aborted.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(1_500);

/// How often a process shows that it is alive.
const PULSE: Duration = Duration::from_millis(100);
/// A heartbeat is due every quarter of a lease. A process that stood still for
/// longer may have missed some.
pub const STILL_MAX: Duration = Duration::from_millis(400);
/// How often a process looks whether everything is done.
const LOOK: Duration = Duration::from_millis(50);

/// What a process is told when it is started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Brief {
    /// The URL or the path of the database.
    pub place: String,
    /// The seed of the chaos.
    pub seed: u64,
    /// Which process of the chaos it is.
    pub number: u64,
    pub season: Season,
    /// End by itself once no job is left.
    pub last: bool,
}

impl Brief {
    /// The identity under which it will claim.
    pub fn worker(&self) -> Uuid {
        Entropy::from_seed(self.entropy()).worker_id().0
    }

    fn entropy(&self) -> [u8; 32] {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&self.number.to_le_bytes());
        seed
    }
}

/// Works until it is asked to end. A panic tells the harness that something
/// failed.
pub async fn live<B: Books>(brief: &str) {
    // First of all: without a handler the signal would kill the process.
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be handled");
    let brief: Brief = serde_json::from_str(brief).expect("the harness writes briefs");
    let pool = B::pool(&brief.place, 6).await.unwrap();
    let pulse_pool = B::pool(&brief.place, 1).await.unwrap();
    let (dropped_sender, dropped) = unbounded_channel();
    let desk = Arc::new(Desk::<B> {
        pool: pool.clone(),
        worker: brief.worker(),
        clock: Clock::set(B::now(&pool).await.unwrap()),
        places: AtomicU64::new(0),
        dropped: dropped_sender,
    });
    troubles::listen(desk.worker, desk.clock, desk.dropped.clone());
    let poller = JobPollerConfig {
        job_lost_interval: LEASE,
        max_jobs_per_process: 16,
        min_jobs_per_process: 12,
        shutdown_timeout: SHUTDOWN_TIMEOUT,
    };
    let service = B::service(&brief.place).poller_config(poller);
    let service = service.seed(brief.entropy()).build().unwrap();
    let mut jobs = Jobs::init(service).await.unwrap();
    let spawners = Spawners::register(&mut jobs, &desk);
    let service_pool = jobs.pool().clone();
    let writer = tokio::spawn(write_dropped::<B>(pool.clone(), dropped));
    // Before the first claim, so that no run is older than the first pulse.
    B::pulse(&pulse_pool, desk.worker).await.unwrap();
    jobs.start_poll().await.unwrap();
    let worker = desk.worker;
    B::write(&pool, &Line::Polls { worker }).await.unwrap();
    // Streams below this belong to the harness.
    let dice = Dice::new(brief.seed, 1_000 + brief.number);
    let enough = AtomicBool::new(false);
    let spawning = spawn_for_a_season(&pool, &service_pool, &spawners, brief.season, dice, &enough);
    let mut spawning = pin!(spawning.fuse());
    let done = async {
        if !brief.last {
            return std::future::pending().await;
        }
        while B::backlog(&pool).await? > 0 {
            sleep(LOOK).await;
        }
        Ok(())
    };
    // In a task of its own, as the driver is.
    let mut pulse = tokio::spawn(show_pulse::<B>(pulse_pool, desk.worker));
    let ended: Result<(), Error> = tokio::select! {
        _ = terminate.recv() => Ok(()),
        Err(error) = &mut spawning => Err(error),
        ended = done => ended,
        ended = &mut pulse => ended.expect("it does not panic"),
    };
    ended.unwrap();
    enough.store(true, Ordering::Relaxed);
    let spawned = async {
        if spawning.is_terminated() {
            return Ok(());
        }
        spawning.await
    };
    let (shut_down, spawned) = tokio::join!(jobs.shutdown(), spawned);
    shut_down.unwrap();
    spawned.unwrap();
    drop((jobs, desk));
    troubles::stop_listening();
    // Runs that cannot be aborted hold on to the desk. They end soon.
    writer.await.unwrap().unwrap();
    pulse.abort();
}

/// Writes down every time at which this process, or its database, stood still.
async fn show_pulse<B: Books>(pool: B::Pool, worker: Uuid) -> Result<(), Error> {
    let still_max = STILL_MAX.as_micros() as i64;
    let mut since = B::pulse(&pool, worker).await?;
    loop {
        sleep(PULSE).await;
        let until = B::pulse(&pool, worker).await?;
        if until - since > still_max {
            let gap = Line::Gap {
                worker,
                since,
                until,
            };
            B::write(&pool, &gap).await?;
        }
        since = until;
    }
}

/// Writes down the runs that were dropped, until nobody can drop any.
async fn write_dropped<B: Books>(
    pool: B::Pool,
    mut dropped: UnboundedReceiver<Line>,
) -> Result<(), Error> {
    while let Some(line) = dropped.recv().await {
        B::write(&pool, &line).await?;
    }
    Ok(())
}
