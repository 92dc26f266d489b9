//! An order is paid, then shipped: each step is written in the transaction that ends its
//! job, and spawns the next one. Simulations check it in CI, by other seeds each night;
//! `simulations.yml` beside this file says how:
//!
//! ```sh
//! JOB_SIM_SEEDS=0..1000 cargo test -p job-sim --example simulation_in_ci
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use job::backend::MemoryPool;
use job::{
    Backend, CurrentJob, Job, JobCompletion, JobError, JobId, JobInitializer, JobRunner,
    JobSpawner, JobSvcConfig, JobType, Jobs, Memory,
};

/// An order, and what became of it.
pub type Row = (u32, &'static str);

/// The transaction in which a row was written.
pub type Written<B> = Result<<B as Backend>::Transaction, JobError>;

/// The tables of the application.
#[async_trait]
pub trait Tables<B: Backend>: Send + Sync + 'static {
    /// Begins a transaction, and writes a row in it.
    ///
    /// # Errors
    ///
    /// Those of the database.
    async fn write(&self, pool: &B::Pool, row: Row) -> Written<B>;
}

/// A step of an order, and the one that follows.
pub struct Step<B: Backend> {
    name: &'static str,
    tables: Arc<dyn Tables<B>>,
    next: Option<JobSpawner<u32, B>>,
}

/// Registers all steps. Returns what spawns the first.
pub fn add_steps<B: Backend>(jobs: &mut Jobs<B>, tables: Arc<dyn Tables<B>>) -> JobSpawner<u32, B> {
    let mut step = |name, next| {
        let tables = Arc::clone(&tables);
        jobs.add_initializer(Step { name, tables, next })
    };
    let shipping = step("shipped", None);
    step("paid", Some(shipping))
}

impl<B: Backend> JobInitializer<B> for Step<B> {
    /// The number of the order.
    type Config = u32;

    fn job_type(&self) -> JobType {
        JobType::new(self.name)
    }

    fn init(
        &self,
        job: &Job,
        _spawner: JobSpawner<u32, B>,
    ) -> Result<Box<dyn JobRunner<B>>, Box<dyn Error>> {
        Ok(Box::new(Stepping {
            order: job.config()?,
            name: self.name,
            tables: Arc::clone(&self.tables),
            next: self.next.clone(),
        }))
    }
}

struct Stepping<B: Backend> {
    order: u32,
    name: &'static str,
    tables: Arc<dyn Tables<B>>,
    next: Option<JobSpawner<u32, B>>,
}

#[async_trait]
impl<B: Backend> JobRunner<B> for Stepping<B> {
    async fn run(&self, job: CurrentJob<B>) -> Result<JobCompletion<B>, Box<dyn Error>> {
        job.clock().sleep(Duration::from_secs(1)).await;
        let row = (self.order, self.name);
        let mut transaction = self.tables.write(job.pool(), row).await?;
        if let Some(next) = &self.next {
            let spawned = next.spawn_in_op(&mut transaction, JobId::new(), self.order);
            spawned.await?;
        }
        Ok(JobCompletion::CompleteWithTx(transaction))
    }
}

/// An application would write to its database here.
struct Console;

#[async_trait]
impl Tables<Memory> for Console {
    async fn write(&self, pool: &MemoryPool, (order, what): Row) -> Written<Memory> {
        println!("order {order} is {what}");
        Ok(pool.begin().await)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut jobs = Jobs::init(JobSvcConfig::memory().build()?).await?;
    let orders = add_steps(&mut jobs, Arc::new(Console));
    jobs.start_poll().await?;
    orders.spawn(JobId::new(), 7).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    Ok(jobs.shutdown().await?)
}

#[cfg(test)]
mod tests;
