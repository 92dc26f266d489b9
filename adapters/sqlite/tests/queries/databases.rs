//! Files of any size, on which statements show what they cost.

use std::ops::RangeInclusive;

use job_sqlite::migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Executor, SqliteConnection};
use tempfile::TempDir;
use uuid::Uuid;

use crate::fixtures::{START, path_in};

/// Jobs of a small file. Of these one in ten runs, and of the others none does, so
/// that as many run in a large file.
pub(crate) const FEW: u64 = 2_000;
/// Jobs that run.
pub(crate) const RUNNING: u64 = FEW / 10;
/// Ended runs of the first job.
pub(crate) const LONG_HISTORY: u64 = 100;

/// A type of which jobs are due, and others are to come.
pub(crate) const MANY: &str = "t1";
/// A type of which no job is due for days.
pub(crate) const LATER: &str = "t7";
/// A type of which a unique job exists.
pub(crate) const UNIQUE: &str = "unique";

/// In microseconds.
const WEEK: i64 = 7 * 24 * 3_600 * 1_000_000;

/// A file with tables in which nothing is.
pub(crate) async fn empty() -> (SqliteConnection, TempDir) {
    let place = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new()
        .filename(path_in(&place))
        .create_if_missing(true)
        // It need not outlive the test.
        .journal_mode(SqliteJournalMode::Memory)
        .synchronous(SqliteSynchronous::Off)
        // In KiB: enough to hold it all.
        .pragma("cache_size", "-1000000");
    let mut connection = options.connect().await.unwrap();
    migrator().run(&mut connection).await.unwrap();
    (connection, place)
}

pub(crate) fn job(n: u64) -> Uuid {
    Uuid::from_u128(n.into())
}

/// The jobs that run, the fences that they hold, and by whose claims and which.
pub(crate) fn runs() -> impl Iterator<Item = (Uuid, i64, Uuid, i64)> {
    (1..=RUNNING).map(|n| {
        let worker = Uuid::from_u128(u128::from(n % 5));
        (job(10 * n), 3, worker, (n % 8) as i64)
    })
}

/// A worker and the number of a claim by which five jobs run.
pub(crate) fn claim() -> (Uuid, i64) {
    (Uuid::from_u128(1), 1)
}

/// Adds jobs with these numbers. Their due times, within a week around [`START`],
/// have nothing to do with those. Leases have run out for one half of what runs.
/// Half of the jobs have ended runs, the first one has many.
pub(crate) async fn load(connection: &mut SqliteConnection, numbers: RangeInclusive<u64>) {
    let (first, last) = numbers.into_inner();
    let now = START.as_micros();
    let job = format!(
        "WITH RECURSIVE number (n) AS (
             SELECT {first} UNION ALL SELECT n + 1 FROM number WHERE n < {last}
         ), job AS (
             SELECT n, unhex(printf('%032x', n)) AS id, 't' || (n % 8) AS job_type,
                 n % 10 = 0 AND n <= {FEW} AS running
             FROM number
         )"
    );
    for statement in [
        "BEGIN".to_owned(),
        format!(
            "{job} INSERT INTO job_specs
             SELECT id, job_type, false, 'null', NULL, n, {now} FROM job
             UNION ALL
             SELECT zeroblob(16), '{UNIQUE}', true, 'null', NULL, 0, {now} FROM job WHERE n = 1"
        ),
        // 7919 is a prime that scatters the due times.
        format!(
            "{job} INSERT INTO job_live
             SELECT id, job_type, running,
                 {now} + iif(job_type = '{LATER}', {WEEK} + n, n * 7919000000 % {WEEK} - {WEEK} / 2),
                 iif(n = 1, {LONG_HISTORY}, iif(running, 3, 2)), 1, 0, 0, NULL,
                 iif(running, unhex(printf('%032x', n / 10 % 5)), NULL),
                 iif(running, n / 10 % 8, NULL),
                 iif(running, {now}, NULL),
                 iif(running, {now} + iif(n % 20 = 0, 1, -1), NULL)
             FROM job"
        ),
        // One of three has kept something.
        format!(
            "{job} INSERT INTO job_checkpoints SELECT id, 'null' FROM job WHERE n % 3 = 0"
        ),
        format!(
            "{job} INSERT INTO job_runs
             SELECT id, fence, 1, id, 1, {now}, {now}, 2, NULL, {now}
             FROM job, (SELECT 1 AS fence UNION ALL SELECT 2)
             WHERE n % 2 = 0
             UNION ALL
             SELECT unhex(printf('%032x', 1)), n, 1, id, 1, {now}, {now}, 2, NULL, {now}
             FROM job
             WHERE n <= {LONG_HISTORY}"
        ),
        "COMMIT".to_owned(),
    ] {
        execute(connection, &statement).await;
    }
}

/// What the planner believes about the tables.
#[derive(Clone, Debug)]
pub(crate) struct Statistics(Vec<(String, Option<String>, String)>);

impl Statistics {
    /// Has everything counted.
    pub(crate) async fn count(connection: &mut SqliteConnection) -> Self {
        execute(connection, "ANALYZE").await;
        let rows = sqlx::query_as("SELECT tbl, idx, stat FROM sqlite_stat1");
        Self(rows.fetch_all(connection).await.unwrap())
    }

    /// What nobody has counted.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    /// Makes the planner believe it.
    pub(crate) async fn install(&self, connection: &mut SqliteConnection) {
        execute(connection, "DELETE FROM sqlite_stat1").await;
        for (table, index, counts) in &self.0 {
            sqlx::query("INSERT INTO sqlite_stat1 VALUES (?1, ?2, ?3)")
                .bind(table)
                .bind(index)
                .bind(counts)
                .execute(&mut *connection)
                .await
                .unwrap();
        }
        // Only reads them.
        execute(connection, "ANALYZE sqlite_schema").await;
    }
}

pub(crate) async fn execute(connection: &mut SqliteConnection, statement: &str) {
    let done = connection.execute(statement).await;
    done.unwrap_or_else(|error| panic!("{error}: {statement}"));
}
