//! The measures, each the same for every peer.
//!
//! Every measure ends when its jobs are through or its time is up, whichever
//! is first, and reports what it did by then: slow settings need no number of
//! jobs of their own, as what is read is a rate.

use crate::database::Scratch;
use crate::peers::{Config, Peer, PeerName, Runs};
use crate::report::Report;
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// What to measure, by the name that the command line has for it.
#[derive(Clone, Copy, ValueEnum)]
pub enum Measure {
    Drain,
    Enqueue1,
    Enqueue16,
    Bulk,
    Backlog200k,
    Latency,
    Wal,
    SqliteDrain,
}

/// When a measure is over.
#[derive(Clone, Copy)]
pub struct Limits {
    /// The number of jobs that a measure is over.
    pub jobs: u64,
    /// The longest that a drain takes; enqueueing gets an eighth of it and
    /// latency a half, which is enough for the same relative error.
    pub time: Duration,
}

/// How often the database is asked how many jobs have ended, once all have run.
const RECORDED_POLL: Duration = Duration::from_millis(2);
/// How often the number of runs is looked at.
const RUNS_POLL: Duration = Duration::from_millis(1);
/// How many jobs the latencies are taken from.
const LATENCY_JOBS_MAX: u64 = 300;
/// How long the worker has been idle when the next job of the latency measure
/// is enqueued.
const LATENCY_PAUSE: Duration = Duration::from_millis(20);
/// The backlog is so many times the jobs that are drained from it.
const BACKLOG_FACTOR: u64 = 10;

impl Measure {
    /// Measures the peer `name` in a database in which nothing has been yet.
    pub async fn run(
        self,
        scratch: &Scratch,
        name: PeerName,
        config: Config,
        limits: Limits,
        report: &mut Report,
    ) -> Result<()> {
        let (runs, starts) = Runs::new();
        let directory = tempfile::tempdir().context("create a directory")?;
        let peer = match self {
            Self::SqliteDrain => {
                let path = directory.path().join("jobs.db");
                name.connect_sqlite(config, &path, &runs).await?
            }
            _ => name.connect(config, scratch, &runs).await?,
        };
        let readings = match self {
            Self::Drain => {
                let rate = drain(&*peer, &runs, limits.jobs, limits).await?;
                vec![("drain 20,000", "jobs/s", rate)]
            }
            Self::Backlog200k => {
                let backlog = limits.jobs * BACKLOG_FACTOR;
                let rate = drain(&*peer, &runs, backlog, limits).await?;
                vec![("drain, first 20,000 of 200,000", "jobs/s", rate)]
            }
            Self::SqliteDrain => {
                let rate = drain(&*peer, &runs, limits.jobs, limits).await?;
                vec![("SQLite drain", "jobs/s", rate)]
            }
            Self::Enqueue1 => {
                vec![(
                    "enqueue, 1 task",
                    "jobs/s",
                    enqueue(&peer, 1, limits).await?,
                )]
            }
            Self::Enqueue16 => {
                vec![(
                    "enqueue, 16 tasks",
                    "jobs/s",
                    enqueue(&peer, 16, limits).await?,
                )]
            }
            Self::Bulk => {
                let began = Instant::now();
                peer.enqueue_all(limits.jobs).await?;
                vec![(
                    "bulk enqueue",
                    "jobs/s",
                    per_second(limits.jobs, began.elapsed()),
                )]
            }
            Self::Wal => {
                let bytes = wal_bytes_a_job(scratch, &*peer, &runs, limits).await?;
                vec![("WAL a job, with its spawn", "bytes", bytes)]
            }
            Self::Latency => {
                let latencies = latencies(&*peer, starts, limits).await?;
                let ms = |share| quantile(&latencies, share).as_secs_f64() * 1e3;
                vec![
                    ("pickup latency, same process p50", "ms", ms(0.5)),
                    ("pickup latency, same process p99", "ms", ms(0.99)),
                ]
            }
        };
        for (measure, unit, value) in readings {
            report.reading(measure, unit, value)?;
        }
        Ok(())
    }
}

/// Enqueues `enqueued` jobs, starts the worker, and gives the jobs per second
/// until the first `limits.jobs` of them were recorded as ended.
async fn drain(peer: &dyn Peer, runs: &Runs, enqueued: u64, limits: Limits) -> Result<f64> {
    peer.enqueue_all(enqueued).await?;
    let drained = run_until_recorded(peer, runs, enqueued, limits).await?;
    Ok(per_second(drained.recorded, drained.time))
}

/// What a worker had done when it was stopped.
struct Drained {
    /// How many jobs the database then had as ended.
    recorded: u64,
    /// How long that took from the start of the worker.
    time: Duration,
}

async fn run_until_recorded(
    peer: &dyn Peer,
    runs: &Runs,
    enqueued: u64,
    limits: Limits,
) -> Result<Drained> {
    let began = Instant::now();
    peer.start().await?;
    while runs.count() < limits.jobs && began.elapsed() < limits.time {
        sleep(RUNS_POLL).await;
    }
    // A look at the database takes as long as a count of its table, so it is
    // the moment before the look that goes with what the look finds.
    let drained = loop {
        let time = began.elapsed();
        let recorded = peer.recorded(enqueued).await?;
        if recorded >= limits.jobs || time >= limits.time {
            break Drained { recorded, time };
        }
        sleep(RECORDED_POLL).await;
    };
    peer.stop().await?;
    Ok(drained)
}

/// Jobs per second, enqueued one by one by each of `tasks` tasks.
async fn enqueue(peer: &Arc<dyn Peer>, tasks: u64, limits: Limits) -> Result<f64> {
    let enqueued = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut set = JoinSet::new();
    for _ in 0..tasks {
        let (peer, enqueued) = (Arc::clone(peer), Arc::clone(&enqueued));
        set.spawn(async move {
            while began.elapsed() < limits.time / 8 {
                if enqueued.fetch_add(1, Ordering::Relaxed) >= limits.jobs {
                    break;
                }
                peer.enqueue().await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(task) = set.join_next().await {
        task.context("a task that enqueues")??;
    }
    let enqueued = enqueued.load(Ordering::Relaxed).min(limits.jobs);
    Ok(per_second(enqueued, began.elapsed()))
}

/// From before the enqueueing of a job to the start of its handler, for one
/// job at a time and an idle worker, in order of length.
async fn latencies(
    peer: &dyn Peer,
    mut starts: UnboundedReceiver<Instant>,
    limits: Limits,
) -> Result<Vec<Duration>> {
    peer.start().await?;
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    let mut latencies = Vec::new();
    for enqueued in 1..=limits.jobs.min(LATENCY_JOBS_MAX) {
        if began.elapsed() >= limits.time / 2 {
            break;
        }
        let before = Instant::now();
        peer.enqueue().await?;
        let start = starts.recv().await.context("the worker is gone")?;
        latencies.push(start.duration_since(before));
        while peer.recorded(enqueued).await? < enqueued {
            sleep(RECORDED_POLL).await;
        }
        sleep(LATENCY_PAUSE).await;
    }
    peer.stop().await?;
    latencies.sort_unstable();
    Ok(latencies)
}

/// The bytes of log that enqueueing a job in bulk and running it write.
async fn wal_bytes_a_job(
    scratch: &Scratch,
    peer: &dyn Peer,
    runs: &Runs,
    limits: Limits,
) -> Result<f64> {
    let before = scratch.wal_bytes().await?;
    peer.enqueue_all(limits.jobs).await?;
    let enqueued = scratch.wal_bytes().await?;
    let drained = run_until_recorded(peer, runs, limits.jobs, limits).await?;
    let after = scratch.wal_bytes().await?;
    ensure!(
        drained.recorded > 0,
        "no job has ended in {:?}",
        drained.time
    );
    // Apart, as not all that were enqueued have run if the time was up.
    Ok((enqueued - before) / limits.jobs as f64 + (after - enqueued) / drained.recorded as f64)
}

fn per_second(jobs: u64, time: Duration) -> f64 {
    jobs as f64 / time.as_secs_f64()
}

/// The nearest-rank quantile of what is in order.
fn quantile(ordered: &[Duration], share: f64) -> Duration {
    let rank = (ordered.len() as f64 * share).ceil() as usize;
    ordered[rank.saturating_sub(1)]
}
