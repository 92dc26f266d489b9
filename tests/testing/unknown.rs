//! What becomes of a call of the store whose reply is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use job::backend::{Backend, NoOperation, NotAnOperationOf};
use job::testing::TestJobs;
use job::{ClockHandle, JobError, JobId, JobSvcConfig};
use job_engine::{Command, Reply, StoreError, Timestamp};
use job_tokio::{MemoryStore, Store};
use serde_json::json;

use super::Log;
use crate::support::history;

/// The memory, behind a line that loses one reply.
enum Lossy {}

#[derive(Clone)]
struct LossyStore {
    store: MemoryStore,
    lost: Arc<AtomicBool>,
}

impl Store for LossyStore {
    /// The reply to the first claim that took something is lost.
    async fn execute(
        &self,
        now: Option<Timestamp>,
        command: &Command,
    ) -> Result<Reply, StoreError> {
        let reply = self.store.execute(now, command).await?;
        let took = matches!(&reply, Reply::Claimed(claimed) if !claimed.jobs.is_empty());
        match took && !self.lost.swap(true, Ordering::SeqCst) {
            true => Err(StoreError::Unknown("the reply was lost".to_owned())),
            false => Ok(reply),
        }
    }
}

impl Backend for Lossy {
    type Options = ();
    type Pool = MemoryStore;
    type Transaction = NoOperation;
    type Operation = NoOperation;
    type Store = LossyStore;

    fn check((): &()) -> Result<(), String> {
        Ok(())
    }

    async fn open((): (), clock: &ClockHandle) -> Result<(MemoryStore, LossyStore), JobError> {
        let clock = clock.clone();
        let store = MemoryStore::new(move || clock.timestamp());
        let lossy = LossyStore {
            store: store.clone(),
            lost: Arc::default(),
        };
        Ok((store, lossy))
    }

    async fn begin_transaction(_: &MemoryStore) -> Result<NoOperation, StoreError> {
        Err(StoreError::Failed("there are no transactions".to_owned()))
    }

    async fn close(_: &LossyStore) {}
}

impl NotAnOperationOf<Lossy> for NoOperation {}

async fn open() -> TestJobs<Lossy> {
    let config = JobSvcConfig::with_backend(()).seed([0; 32]);
    TestJobs::open(config).await.unwrap()
}

#[tokio::test]
async fn a_claim_whose_reply_was_lost_is_repeated_as_that() {
    let mut test = open().await;
    let log = Log::default();
    let spawner = test.add_initializer(log.initializer("logged"));
    for n in 1..=2 {
        spawner.spawn(JobId::new(), json!(n)).await.unwrap();
    }
    assert_eq!(test.drain().await, 2);
    assert_eq!(log.entries(), [json!(1), json!(2)]);
    for job in test.seen().await.jobs() {
        assert_eq!(history(job), ["spawned", "started", "completed"]);
    }
}

#[tokio::test]
async fn a_job_is_lost_once_although_the_reply_to_its_claim_was_lost() {
    let mut test = open().await;
    let spawner = test.add_initializer(Log::default().initializer("logged"));
    let ids = [JobId::new(), JobId::new()];
    for id in ids {
        spawner.spawn(id, json!(1)).await.unwrap();
    }
    assert_eq!(test.lose_one().await, Some(ids[0]));
    test.seen().await.assert_pending(ids[1]);
}
