//! The peers, each behind one port.

mod awa;
mod graphile;
mod job;
mod river;

use crate::database::Scratch;
use anyhow::{Result, bail};
use async_trait::async_trait;
use clap::ValueEnum;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// One peer with its tables made and its worker not started.
#[async_trait]
pub trait Peer: Send + Sync {
    /// Enqueues one job in a transaction of its own.
    async fn enqueue(&self) -> Result<()>;

    /// Enqueues so many jobs by the fastest call that the settings allow.
    async fn enqueue_all(&self, jobs: u64) -> Result<()>;

    /// Starts a worker that runs what is enqueued. Called once.
    async fn start(&self) -> Result<()>;

    /// How many of the `enqueued` jobs the database has as ended.
    async fn recorded(&self, enqueued: u64) -> Result<u64>;

    /// Stops the worker that was started.
    async fn stop(&self) -> Result<()>;
}

/// The runs of the handlers, which do no more than call [`Runs::started`].
#[derive(Debug)]
pub struct Runs {
    count: AtomicU64,
    starts: UnboundedSender<Instant>,
}

impl Runs {
    pub fn new() -> (Arc<Self>, UnboundedReceiver<Instant>) {
        let (starts, receiver) = unbounded_channel();
        (
            Arc::new(Self {
                count: AtomicU64::new(0),
                starts,
            }),
            receiver,
        )
    }

    /// Counts a run, and tells the latency measure when it began.
    pub fn started(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        // Nobody listens but the latency measure.
        let _ = self.starts.send(Instant::now());
    }

    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// Which settings.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Config {
    /// Those that the peer has by itself.
    Default,
    /// The best that were found, by trying.
    Best,
}

/// Which peer.
#[derive(Clone, Copy, ValueEnum)]
pub enum PeerName {
    Job,
    Riverqueue,
    GraphileWorker,
    Awa,
}

impl PeerName {
    /// The name in the tables: the peer, its version and its settings.
    pub fn subject(self, config: Config) -> String {
        let name = match self {
            Self::Job => "job 0.19.2",
            Self::Riverqueue => "riverqueue 0.3",
            Self::GraphileWorker => "graphile_worker 0.14",
            Self::Awa => "awa 0.6",
        };
        let config = match config {
            Config::Default => "default",
            Config::Best => "best",
        };
        format!("{name} {config}")
    }

    /// What the peer reads its settings from besides the calls: variables that
    /// have to be there when the process starts.
    pub fn environment(self, config: Config) -> &'static [(&'static str, &'static str)] {
        match (self, config) {
            (Self::Awa, Config::Best) => awa::BEST_ENVIRONMENT,
            _ => &[],
        }
    }

    /// Connects the peer to its database and makes its tables.
    pub async fn connect(
        self,
        config: Config,
        scratch: &Scratch,
        runs: &Arc<Runs>,
    ) -> Result<Arc<dyn Peer>> {
        let runs = Arc::clone(runs);
        Ok(match self {
            Self::Job => Arc::new(job::JobPeer::connect(config, scratch, runs).await?),
            Self::Riverqueue => Arc::new(river::RiverPeer::connect(config, scratch, runs).await?),
            Self::GraphileWorker => {
                Arc::new(graphile::GraphilePeer::connect(config, scratch, runs).await?)
            }
            Self::Awa => Arc::new(awa::AwaPeer::connect(config, scratch, runs).await?),
        })
    }

    /// Connects the peer to a SQLite file of its own and makes its tables.
    pub async fn connect_sqlite(
        self,
        config: Config,
        path: &Path,
        runs: &Arc<Runs>,
    ) -> Result<Arc<dyn Peer>> {
        match self {
            Self::Riverqueue => {
                let runs = Arc::clone(runs);
                Ok(Arc::new(
                    river::RiverPeer::connect_sqlite(config, path, runs).await?,
                ))
            }
            Self::Job | Self::GraphileWorker | Self::Awa => {
                bail!("{} has no SQLite store", self.subject(config))
            }
        }
    }
}
