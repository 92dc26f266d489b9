//! Each customer is billed once a month, however often that is asked for: the id of the
//! job is made of what it is about. A property test tries out all orders that it can
//! think of:
//!
//! ```sh
//! cargo test --features testing --example invoice_once
//! ```

use std::error::Error;

use async_trait::async_trait;
use job::{
    Backend, CurrentJob, Job, JobCompletion, JobError, JobId, JobInitializer, JobRunner,
    JobSpawner, JobType,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What all ids of invoices are made under.
const INVOICES: Uuid = Uuid::from_u128(0x2f7c_94c0_8f0b_4a2e_9f65_60c1_0d8b_17aa);

/// Whom to bill for what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Invoice {
    /// Whom.
    pub customer: u32,
    /// For which month, such as `2026-11`.
    pub month: String,
}

/// Asks for an invoice. Asking again changes nothing.
///
/// # Errors
///
/// Those of the store.
pub async fn bill<B: Backend>(
    invoices: &JobSpawner<Invoice, B>,
    invoice: Invoice,
) -> Result<(), JobError> {
    let about = format!("{}/{}", invoice.customer, invoice.month);
    let id = JobId::from(Uuid::new_v5(&INVOICES, about.as_bytes()));
    invoices.job(invoice).id(id).or_find().await?;
    Ok(())
}

/// Writes invoices.
#[derive(Debug)]
pub struct Billing;

impl<B: Backend> JobInitializer<B> for Billing {
    type Config = Invoice;

    fn job_type(&self) -> JobType {
        JobType::new("invoice")
    }

    fn init(
        &self,
        job: &Job,
        _spawner: JobSpawner<Invoice, B>,
    ) -> Result<Box<dyn JobRunner<B>>, Box<dyn Error>> {
        Ok(Box::new(Writing(job.config()?)))
    }
}

struct Writing(Invoice);

#[async_trait]
impl<B: Backend> JobRunner<B> for Writing {
    async fn run(&self, _: CurrentJob<B>) -> Result<JobCompletion<B>, Box<dyn Error>> {
        println!("customer {}, month {}", self.0.customer, self.0.month);
        Ok(JobCompletion::Complete)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut test = job::testing::TestJobs::memory().await;
    let invoices = test.add_initializer(Billing);
    for month in ["2026-11", "2026-12", "2026-11"] {
        let month = month.to_owned();
        bill(&invoices, Invoice { customer: 7, month }).await?;
    }
    test.drain().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use job::testing::TestJobs;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        // An example has no place for failed cases.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..<_>::default() })]
        #[test]
        fn nobody_is_billed_twice_for_a_month(asked in vec((0..4_u32, "202[67]-1[12]"), 0..20)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            runtime.unwrap().block_on(async {
                let mut test = TestJobs::memory().await;
                let invoices = test.add_initializer(Billing);
                let (mut distinct, mut billed) = (BTreeSet::new(), 0);
                for (customer, month) in asked {
                    let invoice = Invoice { customer, month };
                    bill(&invoices, invoice.clone()).await.unwrap();
                    distinct.insert(invoice);
                    billed += test.drain().await;
                }
                assert_eq!(billed, distinct.len());
                for invoice in distinct {
                    test.seen().await.assert_spawned_times(&invoices, &invoice, 1);
                }
            });
        }
    }
}
