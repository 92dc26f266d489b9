//! Jobs in a SQLite file on a disk.

use std::path::Path;
use std::time::Instant;

use job::{JobSvcConfig, Jobs, Sqlite};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::time::sleep;
use uuid::Uuid;

use crate::floor::CHUNK;
use crate::ours::{self, JOB_TYPE, RECORDED_POLL, Tally, Task, rate};
use crate::round::OURS;
use crate::{Result, Round};

/// What SQLite calls `FULL`.
const SYNCHRONOUS_FULL: i64 = 2;

const SCHEMA: &str = include_str!("../../queries/floor_sqlite_schema.sql");
const INSERT: &str = include_str!("../../queries/floor_sqlite_insert.sql");
const CLAIM: &str = include_str!("../../queries/floor_sqlite_claim.sql");
const RECORD: &str = include_str!("../../queries/floor_sqlite_record.sql");
const DELETE: &str = include_str!("../../queries/floor_sqlite_delete.sql");

/// Who drains.
#[derive(Clone, Copy)]
enum Who {
    Ours,
    Floor,
}

/// As many jobs as on Postgres.
pub async fn drain(round: &mut Round) -> Result<()> {
    let jobs = round.sizes.drain;
    for who in round.in_turn([Who::Ours, Who::Floor]) {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("jobs.db");
        let (subject, rate) = match who {
            Who::Ours => (OURS, drain_ours(&path, jobs).await?),
            Who::Floor => ("floor, 1,000 at a time", drain_floor(&path, jobs).await?),
        };
        round.record("SQLite drain", subject, "jobs/s", rate);
    }
    Ok(())
}

async fn drain_ours(path: &Path, jobs: usize) -> Result<f64> {
    let config = JobSvcConfig::sqlite().path(path).build()?;
    let mut service: Jobs<Sqlite> = Jobs::init(config).await?;
    let synchronous = sqlx::query_scalar::<_, i64>("PRAGMA synchronous");
    if synchronous.fetch_one(service.pool()).await? != SYNCHRONOUS_FULL {
        return Err("a power loss could lose what was committed: not measured".into());
    }
    let tally = Tally::new(jobs);
    let spawner = service.add_initializer(ours::counting(&tally));
    ours::spawn_all(&spawner, jobs).await?;
    let start = Instant::now();
    service.start_poll().await?;
    tally.reached().await;
    let count = "SELECT count(*) FROM job_runs";
    while sqlx::query_scalar::<_, i64>(count)
        .fetch_one(service.pool())
        .await?
        < i64::try_from(jobs)?
    {
        sleep(RECORDED_POLL).await;
    }
    let rate = rate(jobs, start);
    service.shutdown().await?;
    Ok(rate)
}

async fn drain_floor(path: &Path, jobs: usize) -> Result<f64> {
    let options = SqliteConnectOptions::new().filename(path);
    let options = options
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut connection = options.connect().await?;
    sqlx::raw_sql(SCHEMA).execute(&mut connection).await?;
    let mut transaction = connection.begin().await?;
    for n in 0..jobs as u64 {
        let insert = sqlx::query(INSERT).bind(Uuid::now_v7()).bind(JOB_TYPE);
        let insert = insert.bind(0).bind(Task { n }.json());
        insert.execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    let start = Instant::now();
    let mut left = jobs;
    while left > 0 {
        left -= work_off(&mut connection, left.min(CHUNK)).await?;
    }
    let rate = rate(jobs, start);
    connection.close().await?;
    Ok(rate)
}

async fn work_off(connection: &mut SqliteConnection, jobs_max: usize) -> Result<usize> {
    let claim = sqlx::query_as::<_, (Uuid, String)>(CLAIM).bind(JOB_TYPE);
    let claim = claim.bind(1).bind(i64::try_from(jobs_max)?);
    let claimed = claim.fetch_all(&mut *connection).await?;
    if claimed.is_empty() {
        return Err("the floor found fewer jobs than there should be".into());
    }
    let mut transaction = connection.begin().await?;
    // SQLite has no arrays; and one statement a job would take longer than the jobs do.
    let ids: Vec<_> = claimed.iter().map(|(id, _config)| id.simple()).collect();
    let ids = serde_json::to_string(&ids)?;
    let record = sqlx::query(RECORD).bind(&ids).bind(2);
    record.execute(&mut *transaction).await?;
    let delete = sqlx::query(DELETE).bind(&ids);
    delete.execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(claimed.len())
}
