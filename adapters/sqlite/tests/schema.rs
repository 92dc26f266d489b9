//! The tables, and transactions of the caller.

use job_engine::store::{NewJob, Spawned};
use job_engine::{Command, Due, JobId, JobType, Payload, Reply, StoreError};
use job_sqlite::{SchemaError, SqliteStore};
use job_tokio::Store;
use sqlx::Executor;
use uuid::Uuid;

fn spawn(n: u128) -> Command {
    Command::Spawn(vec![NewJob {
        id: JobId(Uuid::from_u128(n)),
        job_type: JobType::new("mail"),
        unique_type: false,
        due: Due::Now,
        config: Payload::from_json("null"),
        trace: None,
        token: 1,
    }])
}

async fn exists(store: &SqliteStore, n: u128) -> bool {
    let find = Command::Find(JobId(Uuid::from_u128(n)));
    match store.execute(None, &find).await.unwrap() {
        Reply::Found(found) => found.is_some(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn missing_older_and_newer_tables_are_told_apart() {
    let place = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(place.path().join("jobs.db"))
        .await
        .unwrap();
    let check = store.check_schema().await;
    assert!(matches!(check, Err(SchemaError::Missing)), "{check:?}");
    store.migrate().await.unwrap();
    store.migrate().await.unwrap();
    store.check_schema().await.unwrap();
    store
        .pool()
        .execute("UPDATE job_schema SET version = 9")
        .await
        .unwrap();
    store.check_schema().await.unwrap();
    let newer = "UPDATE job_schema SET version = 9, compatible_since = 7";
    store.pool().execute(newer).await.unwrap();
    let error = store.check_schema().await.unwrap_err().to_string();
    assert!(
        error.contains("version 9") && error.contains("upgrade the program"),
        "{error}"
    );
    store
        .pool()
        .execute("UPDATE job_schema SET version = 0")
        .await
        .unwrap();
    let check = store.check_schema().await;
    assert!(
        matches!(check, Err(SchemaError::Older { found: 0 })),
        "{check:?}"
    );
}

#[tokio::test]
async fn a_transaction_of_the_caller_keeps_or_undoes_the_command() {
    let (store, _place) = crate::file::open().await;
    for (n, commit) in [(1, true), (2, false)] {
        let mut transaction = store.pool().begin_with("BEGIN IMMEDIATE").await.unwrap();
        let reply = store
            .execute_on(&mut transaction, None, &spawn(n))
            .await
            .unwrap();
        assert_eq!(reply, Reply::Spawned(vec![Spawned::Created]));
        if commit {
            transaction.commit().await.unwrap();
        }
        assert_eq!(exists(&store, n).await, commit);
    }
}

#[tokio::test]
async fn a_dropped_command_leaves_nothing_behind() {
    let (store, _place) = crate::file::open().await;
    for n in 1..50 {
        // Dropped wherever it is after so many polls.
        let command = spawn(n);
        let mut call = Box::pin(store.execute(None, &command));
        for _ in 0..n {
            if futures_util::poll!(&mut call).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(call);
    }
    let reply = store.execute(None, &spawn(99)).await.unwrap();
    assert_eq!(reply, Reply::Spawned(vec![Spawned::Created]));
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("jobs.db");
    std::fs::write(&path, "this is a letter, not a database".repeat(99)).unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(error.to_string().contains("not a database"), "{error}");
}

#[tokio::test]
async fn what_was_committed_survives_a_process_that_just_stops() {
    let (store, place) = crate::file::open().await;
    store.execute(None, &spawn(1)).await.unwrap();
    // A copy of the files as they are, with the connections still open.
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(place.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let reopened = SqliteStore::open(copy.path().join("jobs.db"))
        .await
        .unwrap();
    assert!(exists(&reopened, 1).await);
}

#[tokio::test]
async fn two_stores_on_one_file_take_no_job_twice() {
    let (store, place) = crate::file::open().await;
    let other = SqliteStore::open(place.path().join("jobs.db"))
        .await
        .unwrap();
    for n in 1..=40 {
        store.execute(None, &spawn(n)).await.unwrap();
    }
    let claim = |seq| {
        Command::Claim(job_engine::store::Claim {
            id: job_engine::ClaimId {
                worker: job_engine::WorkerId(Uuid::from_u128(seq)),
                seq: 1,
            },
            repeat: false,
            quotas: vec![job_engine::store::Quota {
                job_type: JobType::new("mail"),
                jobs_max: 30,
            }],
            lease: std::time::Duration::from_secs(60),
        })
    };
    let (one, two) = (claim(1), claim(2));
    let (one, two) = tokio::join!(store.execute(None, &one), other.execute(None, &two));
    let taken = |reply: Result<Reply, StoreError>| match reply.unwrap() {
        Reply::Claimed(claimed) => claimed.jobs,
        other => panic!("{other:?}"),
    };
    let jobs = [taken(one), taken(two)].concat();
    let ids: std::collections::BTreeSet<_> = jobs.iter().map(|job| job.run.job).collect();
    assert_eq!((jobs.len(), ids.len()), (40, 40));
}
