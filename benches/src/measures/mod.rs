//! What is measured.

mod drain;
mod engine;
mod enqueue;
mod footprint;
mod pickup;
mod real;
mod sqlite;

use clap::ValueEnum;

pub use drain::{FIRST_OF_AS_MANY, TASK};

use crate::{Result, Round};

/// A question. Its name on the command line is that of the variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Measure {
    /// Jobs enqueued by one task, one after the other
    #[value(name = "enqueue-1")]
    EnqueueOne,
    /// Jobs enqueued by 16 tasks, one after the other by each
    #[value(name = "enqueue-16")]
    EnqueueMany,
    /// Jobs enqueued many at a time
    Bulk,
    /// 20,000 jobs that wait are run and recorded
    Drain,
    /// The same by four worker processes, and by one
    Processes,
    /// The first 20,000 jobs of a backlog
    Backlog,
    /// From a spawn to the start of its runner in the same process
    Pickup,
    /// From a spawn to the start of its runner in another process
    PickupAcross,
    /// From a spawn to the start of its runner at rising rates of spawns
    Load,
    /// 200,000 jobs while a transaction stays open
    Pinned,
    /// A worker that has nothing to do
    Idle,
    /// The memory of a worker that drains 1,000,000 jobs
    Memory,
    /// 10,000 jobs whose runners take 5 to 50 ms
    RealRunners,
    /// 20,000 jobs that wait in a SQLite file
    Sqlite,
    /// The engine alone, without any store
    Engine,
}

impl Measure {
    /// Measures all subjects once.
    ///
    /// # Errors
    ///
    /// When one of them fails.
    pub async fn take(self, round: &mut Round) -> Result<()> {
        match self {
            Measure::EnqueueOne => enqueue::by_one_task(round).await,
            Measure::EnqueueMany => enqueue::by_many_tasks(round).await,
            Measure::Bulk => enqueue::in_bulk(round).await,
            Measure::Drain => drain::all(round).await,
            Measure::Processes => drain::by_processes(round).await,
            Measure::Backlog => drain::first_of_a_backlog(round).await,
            Measure::Pickup => pickup::in_the_same_process(round).await,
            Measure::PickupAcross => pickup::across_processes(round).await,
            Measure::Load => pickup::under_load(round).await,
            Measure::Pinned => drain::beside_a_long_transaction(round).await,
            Measure::Idle => footprint::idle(round).await,
            Measure::Memory => footprint::memory(round).await,
            Measure::RealRunners => real::runners(round).await,
            Measure::Sqlite => sqlite::drain(round).await,
            Measure::Engine => engine::alone(round),
        }
    }
}
