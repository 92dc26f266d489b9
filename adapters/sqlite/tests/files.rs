//! What a file must be like, and what its log becomes.

use std::time::Duration;

use job_engine::store::NewJob;
use job_engine::{Command, Payload};
use job_sqlite::{FileError, OpenOptions, SqliteStore, begin_immediate};
use job_tokio::Store;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqlitePoolOptions};
use sqlx::{Executor, SqlitePool};
use tempfile::TempDir;

use crate::fixtures::{
    START, claim, claimed_runs, exists, in_memory, new_job, on_file, path_in, run, spawn,
};

/// Options of an application that knows nothing of journal modes.
fn options(place: &TempDir) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path_in(place))
        .create_if_missing(true)
}

/// A pool of an application on a file in which it has a table.
async fn application(options: SqliteConnectOptions) -> SqlitePool {
    let pool = SqlitePoolOptions::new().max_connections(2);
    let pool = pool.connect_with(options).await.unwrap();
    let table = "CREATE TABLE IF NOT EXISTS accounts (id INTEGER PRIMARY KEY)";
    pool.execute(table).await.unwrap();
    pool
}

async fn mode(pool: &SqlitePool) -> String {
    let mut connection = pool.acquire().await.unwrap();
    // It notices when it reads.
    let read = "SELECT * FROM sqlite_schema";
    connection.execute(read).await.unwrap();
    let mode = sqlx::query_scalar("PRAGMA journal_mode");
    mode.fetch_one(&mut *connection).await.unwrap()
}

fn is_refused_as(refused: Result<SqliteStore, FileError>, parts: &[&str]) {
    let told = refused.unwrap_err().to_string();
    for part in parts {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[tokio::test]
async fn the_file_of_a_pool_is_set_to_wal_mode() {
    let place = tempfile::tempdir().unwrap();
    let pool = application(options(&place)).await;
    assert_eq!(mode(&pool).await, "delete");
    let store = SqliteStore::on_pool(pool.clone()).await.unwrap();
    assert_eq!(mode(&pool).await, "wal");
    store.migrate().await.unwrap();
    // A reader that takes its time keeps no worker from anything, nor it the reader.
    let mut reader = pool.begin().await.unwrap();
    let read = "SELECT * FROM accounts";
    reader.execute(read).await.unwrap();
    run(&store, &spawn(1)).await;
    assert_eq!(
        claimed_runs(Ok(run(&store, &claim(1, 1, 1)).await)).len(),
        1
    );
    reader.execute(read).await.unwrap();
}

#[tokio::test]
async fn a_file_that_somebody_reads_and_that_is_not_in_wal_mode_is_refused_with_what_to_do() {
    let place = tempfile::tempdir().unwrap();
    let pool = application(options(&place)).await;
    let mut reader = pool.begin().await.unwrap();
    reader.execute("SELECT * FROM accounts").await.unwrap();
    let parts = ["is not in WAL mode", "jobs.db", "PRAGMA journal_mode = WAL"];
    is_refused_as(SqliteStore::on_pool(pool.clone()).await, &parts);
    // It is waited for for a while.
    let waiting = tokio::spawn(SqliteStore::on_pool(pool.clone()));
    reader.rollback().await.unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(mode(&pool).await, "wal");
}

#[tokio::test]
async fn a_pool_that_takes_the_file_out_of_wal_mode_is_refused() {
    for options in [
        |options: SqliteConnectOptions| options.journal_mode(SqliteJournalMode::Delete),
        |options: SqliteConnectOptions| options.journal_mode(SqliteJournalMode::Truncate),
    ] {
        let place = tempfile::tempdir().unwrap();
        let pool = application(options(self::options(&place))).await;
        let parts = ["the pool of the application", "leave `journal_mode`"];
        is_refused_as(SqliteStore::on_pool(pool.clone()).await, &parts);
        // It was only looked at.
        pool.execute("SELECT * FROM accounts").await.unwrap();
    }
}

#[tokio::test]
async fn a_pool_that_keeps_the_file_to_one_connection_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let hasty = options(&place).busy_timeout(Duration::ZERO);
    let pool = application(hasty.locking_mode(SqliteLockingMode::Exclusive)).await;
    is_refused_as(
        SqliteStore::on_pool(pool).await,
        &["leave `journal_mode` and `locking_mode` out"],
    );
}

/// Where processes share no memory; here by a VFS that has none.
#[cfg(unix)]
#[tokio::test]
async fn a_place_without_wal_mode_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let parts = [
        "stays in the journal mode `delete`",
        "put the file on a local disk",
    ];
    let pool = application(options(&place).vfs("unix-dotfile")).await;
    is_refused_as(SqliteStore::on_pool(pool).await, &parts);
    let place = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?vfs=unix-dotfile", path_in(&place).display());
    is_refused_as(SqliteStore::open(url).await, &parts);
}

#[tokio::test]
async fn a_file_that_can_only_be_read_is_told() {
    let (store, place) = on_file().await;
    store.check_writable().await.unwrap();
    let url = format!("sqlite://{}?mode=ro", path_in(&place).display());
    let by_url = SqliteStore::open(url).await.unwrap();
    let pool = SqlitePoolOptions::new().connect_lazy_with(options(&place).read_only(true));
    let by_pool = SqliteStore::on_pool(pool).await.unwrap();
    for store in [by_url, by_pool] {
        store.check_schema().await.unwrap();
        let told = store.check_writable().await.unwrap_err();
        assert!(matches!(told, FileError::ReadOnly { .. }), "{told}");
        assert!(told.to_string().contains("can only be read"), "{told}");
    }
    // One in another mode cannot even be looked at.
    let place = tempfile::tempdir().unwrap();
    application(options(&place)).await.close().await;
    let url = format!("sqlite://{}?mode=ro", path_in(&place).display());
    is_refused_as(SqliteStore::open(url).await, &["can only be read"]);
}

#[tokio::test]
async fn a_file_in_a_directory_that_is_not_there_is_named() {
    let place = tempfile::tempdir().unwrap();
    let missing = place.path().join("missing").join("jobs.db");
    let by_path = SqliteStore::open(&missing).await;
    let options = SqliteConnectOptions::new().filename(&missing);
    let pool = SqlitePoolOptions::new().connect_lazy_with(options);
    for refused in [by_path, SqliteStore::on_pool(pool).await] {
        let told = refused.unwrap_err();
        assert!(matches!(told, FileError::CannotOpen { .. }), "{told}");
        let file = format!("{missing:?}");
        let told = told.to_string();
        assert!(
            told.contains(&file) && told.contains("its directory must exist"),
            "{told}"
        );
    }
    let relative = SqliteStore::open("missing/jobs.db").await;
    let here = std::env::current_dir().unwrap();
    let here = here.display().to_string();
    is_refused_as(relative, &[&here, "missing/jobs.db"]);
}

#[tokio::test]
async fn whether_a_file_can_be_written_is_found_out_while_another_writes() {
    let (store, place) = on_file().await;
    let other = SqliteStore::open(path_in(&place)).await.unwrap();
    let writes = begin_immediate(store.pool()).await.unwrap();
    other.check_writable().await.unwrap();
    drop(writes);
}

#[tokio::test]
async fn a_database_in_memory_has_no_mode() {
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None);
    let pool = pool.connect("sqlite::memory:").await.unwrap();
    let store = SqliteStore::on_pool(pool.clone()).await.unwrap();
    store.migrate().await.unwrap();
    store.check_writable().await.unwrap();
    assert_eq!(mode(&pool).await, "memory");
    let (store, ()) = in_memory().await;
    store.check_writable().await.unwrap();
    assert_eq!(mode(store.pool()).await, "memory");
}

#[tokio::test]
async fn a_worker_waits_for_transactions_also_where_the_application_does_not() {
    let place = tempfile::tempdir().unwrap();
    let pool = application(options(&place).busy_timeout(Duration::ZERO)).await;
    let store = SqliteStore::on_pool(pool.clone()).await.unwrap();
    store.migrate().await.unwrap();
    let writes = begin_immediate(&pool).await.unwrap();
    let waits = {
        let store = store.clone();
        tokio::spawn(async move { store.execute(Some(START), &spawn(1)).await })
    };
    // Another, without a timeout, tells when that one has come to wait or to fail.
    assert!(begin_immediate(&pool).await.is_err());
    writes.commit().await.unwrap();
    waits.await.unwrap().unwrap();
    assert!(exists(&store, 1).await);
}

/// What the store keeps of a log at most.
const LOG_KEPT_BYTES: u64 = 16 << 20;

fn log_bytes(place: &TempDir) -> u64 {
    let log = place.path().join("jobs.db-wal");
    log.metadata().unwrap().len()
}

/// Makes the log long while somebody reads, and insists that it is short again soon
/// after.
async fn check_log_is_bounded(store: &SqliteStore, place: &TempDir) {
    let mut reader = store.pool().begin().await.unwrap();
    reader.execute("SELECT * FROM job_live").await.unwrap();
    let config = format!("{:?}", "x".repeat(1 << 20));
    for n in 1..=32 {
        let big = NewJob {
            config: Payload::from_json(config.as_str()),
            ..new_job(n)
        };
        run(store, &Command::Spawn(vec![big])).await;
    }
    assert!(log_bytes(place) > 2 * LOG_KEPT_BYTES - (1 << 20));
    reader.rollback().await.unwrap();
    // One moves what is in the log into the file, and one begins the log anew.
    for n in 101..=103 {
        run(store, &spawn(n)).await;
    }
    let bytes = log_bytes(place);
    assert!(bytes <= LOG_KEPT_BYTES, "{bytes}");
}

#[tokio::test]
async fn the_log_is_bounded_once_nobody_pins_it() {
    let (store, place) = on_file().await;
    check_log_is_bounded(&store, &place).await;
}

#[tokio::test]
async fn the_log_is_bounded_on_the_pool_of_an_application() {
    let place = tempfile::tempdir().unwrap();
    let pool = application(options(&place)).await;
    let store = SqliteStore::on_pool(pool).await.unwrap();
    store.migrate().await.unwrap();
    check_log_is_bounded(&store, &place).await;
}

#[tokio::test]
async fn stores_that_open_a_new_file_at_once_wait_for_each_other() {
    let place = tempfile::tempdir().unwrap();
    let options = OpenOptions::default();
    let opened = (0..8).map(|_| SqliteStore::open_with(path_in(&place), &options));
    let opened = futures_util::future::join_all(opened).await;
    for store in opened {
        assert_eq!(mode(store.unwrap().pool()).await, "wal");
    }
}
