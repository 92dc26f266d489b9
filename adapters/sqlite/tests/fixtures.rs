//! Stores, and commands for them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use job_engine::store::{Claim, NewJob, Quota};
use job_engine::{
    ClaimId, Command, Due, JobId, JobType, Payload, Reply, Run, Snapshot, StoreError, Timestamp,
    WorkerId,
};
use job_sqlite::SqliteStore;
use job_tokio::Store;
use sqlx::SqliteConnection;
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
pub(crate) const MAIL: JobType = JobType::new("mail");

pub(crate) fn path_in(place: &TempDir) -> PathBuf {
    place.path().join("jobs.db")
}

/// A store on a new file, with the directory that it is in.
pub(crate) async fn on_file() -> (SqliteStore, TempDir) {
    let place = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(path_in(&place)).await.unwrap();
    store.migrate().await.unwrap();
    (store, place)
}

pub(crate) async fn in_memory() -> (SqliteStore, ()) {
    let store = SqliteStore::open(":memory:").await.unwrap();
    store.migrate().await.unwrap();
    (store, ())
}

pub(crate) fn id(n: u128) -> JobId {
    JobId(Uuid::from_u128(n))
}

pub(crate) fn new_job(n: u128) -> NewJob {
    NewJob {
        id: id(n),
        job_type: MAIL,
        unique_type: false,
        due: Due::Now,
        config: Payload::from_json("null"),
        trace: None,
        token: 1,
    }
}

pub(crate) fn spawn(n: u128) -> Command {
    Command::Spawn(vec![new_job(n)])
}

pub(crate) fn claim(worker: u128, seq: i64, jobs_max: u32) -> Command {
    Command::Claim(Claim {
        id: ClaimId {
            worker: WorkerId(Uuid::from_u128(worker)),
            seq,
        },
        repeat: false,
        quotas: vec![Quota {
            job_type: MAIL,
            jobs_max,
        }],
        lease: Duration::from_secs(60),
    })
}

/// Carries out a command that must succeed, at [`START`].
pub(crate) async fn run(store: &SqliteStore, command: &Command) -> Reply {
    store.execute(Some(START), command).await.unwrap()
}

pub(crate) async fn find(store: &SqliteStore, n: u128) -> Option<Snapshot> {
    match run(store, &Command::Find(id(n))).await {
        Reply::Found(found) => found.map(|found| *found),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn exists(store: &SqliteStore, n: u128) -> bool {
    find(store, n).await.is_some()
}

pub(crate) fn claimed_runs(reply: Result<Reply, StoreError>) -> Vec<Run> {
    match reply.unwrap() {
        Reply::Claimed(claimed) => claimed.jobs.into_iter().map(|job| job.run).collect(),
        other => panic!("{other:?}"),
    }
}

/// Insists that each of the jobs `1..=last` was taken, and taken once.
pub(crate) fn assert_each_taken_once(runs: &[Run], last: u128) {
    let jobs: BTreeSet<_> = runs.iter().map(|run| run.job).collect();
    let expected: BTreeSet<_> = (1..=last).map(id).collect();
    assert_eq!(jobs, expected);
    assert_eq!(runs.len(), jobs.len(), "a job was taken twice");
}

/// Carries out a command in a transaction of the caller, at [`START`].
pub(crate) async fn run_on(
    store: &SqliteStore,
    connection: &mut SqliteConnection,
    command: Command,
) -> Result<Reply, StoreError> {
    store.execute_on(connection, Some(START), &command).await
}
