//! A payment that is captured once, whatever happens to the processes: the bank charges
//! an order again unless it is told that it did already. Simulations find a way of
//! telling that goes wrong, and none for one that is right:
//!
//! ```sh
//! cargo test -p job-sim --example payment_once
//! ```

use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;
use job::{
    Backend, CurrentJob, Job, JobCompletion, JobId, JobInitializer, JobRunner, JobSpawner,
    JobSvcConfig, JobType, Jobs,
};

/// Whether an order is charged, if that is known.
pub type Charged = Result<(), Box<dyn Error + Send + Sync>>;

/// What takes the money.
#[async_trait]
pub trait Bank: Send + Sync + 'static {
    /// Charges an order. Charging with a key a second time changes nothing.
    ///
    /// # Errors
    ///
    /// When it is not known whether the order is charged.
    async fn charge(&self, order: u32, key: String) -> Charged;
}

/// What the bank tells charges apart by.
#[derive(Clone, Copy, Debug)]
pub enum Key {
    /// One for each attempt. Wrong: an attempt that died may have charged the order.
    PerAttempt,
    /// One for each order.
    PerOrder,
}

/// Captures payments.
#[derive(Clone)]
pub struct Capture {
    bank: Arc<dyn Bank>,
    key: Key,
}

impl Capture {
    /// Captures them at this bank.
    pub fn new(bank: Arc<dyn Bank>, key: Key) -> Self {
        Self { bank, key }
    }
}

impl<B: Backend> JobInitializer<B> for Capture {
    /// The number of the order.
    type Config = u32;

    fn job_type(&self) -> JobType {
        JobType::new("capture")
    }

    fn init(
        &self,
        job: &Job,
        _spawner: JobSpawner<u32, B>,
    ) -> Result<Box<dyn JobRunner<B>>, Box<dyn Error>> {
        Ok(Box::new(Capturing {
            order: job.config()?,
            bank: Arc::clone(&self.bank),
            key: self.key,
        }))
    }
}

struct Capturing {
    order: u32,
    bank: Arc<dyn Bank>,
    key: Key,
}

#[async_trait]
impl<B: Backend> JobRunner<B> for Capturing {
    async fn run(&self, job: CurrentJob<B>) -> Result<JobCompletion<B>, Box<dyn Error>> {
        let order = self.order;
        let key = match self.key {
            Key::PerAttempt => format!("{order}, attempt {}", job.attempt()),
            Key::PerOrder => order.to_string(),
        };
        match self.bank.charge(order, key).await {
            Ok(()) => Ok(JobCompletion::Complete),
            Err(error) => Err(error),
        }
    }
}

/// An application would call its bank here.
struct Console;

#[async_trait]
impl Bank for Console {
    async fn charge(&self, order: u32, key: String) -> Charged {
        println!("charged order {order}, by the key {key:?}");
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut jobs = Jobs::init(JobSvcConfig::memory().build()?).await?;
    let captures = jobs.add_initializer(Capture::new(Arc::new(Console), Key::PerOrder));
    jobs.start_poll().await?;
    let id = JobId::new();
    captures.spawn(id, 7).await?;
    while !jobs.find(id).await?.completed() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Ok(jobs.shutdown().await?)
}

#[cfg(test)]
mod tests {
    use job_sim::{Sim, SimulatedTable, Simulation};

    use super::*;

    /// Knows by which keys it charged.
    struct SimulatedBank(Sim, SimulatedTable<String>);

    #[async_trait]
    impl Bank for SimulatedBank {
        async fn charge(&self, _order: u32, key: String) -> Charged {
            let keys = self.1.clone();
            let charge = move || keys.insert_or_ignore(key);
            Ok(self.0.call("charge the order", charge).await?)
        }
    }

    async fn an_order_is_charged_once(sim: Sim, key: Key) {
        let bank = Arc::new(SimulatedBank(sim.clone(), SimulatedTable::default()));
        let capture = Capture::new(bank.clone(), key);
        let captures = sim.start(move |jobs| jobs.add_initializer(capture.clone()));
        captures.await.spawn(JobId::new(), 7).await.unwrap();
        sim.settle().await;
        assert_eq!(bank.1.rows().len(), 1, "charges");
    }

    #[test]
    fn an_order_is_charged_twice_by_a_key_for_each_attempt_and_once_by_its_own() {
        let wrong = Simulation::new().check(|sim| an_order_is_charged_once(sim, Key::PerAttempt));
        println!("{}", wrong.unwrap_err());
        Simulation::new().run(|sim| an_order_is_charged_once(sim, Key::PerOrder));
    }
}
