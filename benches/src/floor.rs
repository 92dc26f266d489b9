//! What hand-written SQL reaches that does the least.
//!
//! One table of jobs with one index beside its key, one of what was done. All
//! connections are told to use the index, as a table that looks empty to the planner
//! would be read as a whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use sqlx::postgres::{PgConnectOptions, PgListener};
use sqlx::{ConnectOptions, Connection, PgConnection};
use uuid::Uuid;

use crate::Result;
use crate::database::Database;
use crate::ours::{JOB_TYPE, Task, rate};

/// How many jobs are inserted, or claimed, at a time.
pub const CHUNK: usize = 1_000;

const SCHEMA: &str = include_str!("../queries/floor_schema.sql");
const INSERT: &str = include_str!("../queries/floor_insert.sql");
const INSERT_MANY: &str = include_str!("../queries/floor_insert_many.sql");
const CLAIM: &str = include_str!("../queries/floor_claim.sql");
const HOLD: &str = include_str!("../queries/floor_hold.sql");
const RECORD: &str = include_str!("../queries/floor_record.sql");
const NOTIFY: &str = "SELECT pg_notify('floor', $1::text)";

/// A connection that does the least.
#[derive(Debug)]
pub struct Floor {
    connection: PgConnection,
}

impl Floor {
    /// Makes the tables, which must not be there, and connects.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn set_up(database: &Database) -> Result<Self> {
        let mut connection = database.connect().await?;
        sqlx::raw_sql(SCHEMA).execute(&mut connection).await?;
        connection.close().await?;
        Self::connect(database).await
    }

    /// Connects to tables that are there.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn connect(database: &Database) -> Result<Self> {
        let options: PgConnectOptions = database.url().parse()?;
        let options = options.options([("enable_seqscan", "off"), ("enable_bitmapscan", "off")]);
        let connection = options.connect().await?;
        Ok(Self { connection })
    }

    /// Several connections.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn connect_many(database: &Database, connections: usize) -> Result<Vec<Self>> {
        let mut floors = Vec::with_capacity(connections);
        for _ in 0..connections {
            floors.push(Self::connect(database).await?);
        }
        Ok(floors)
    }

    /// Inserts one job, in a transaction of its own.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn insert(&mut self, task: Task) -> Result<()> {
        let insert = sqlx::query(INSERT).bind(Uuid::now_v7()).bind(JOB_TYPE);
        insert
            .bind(task.json())
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    /// Inserts one job and tells listeners.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn insert_and_notify(&mut self, task: Task) -> Result<()> {
        let mut transaction = self.connection.begin().await?;
        let insert = sqlx::query(INSERT).bind(Uuid::now_v7()).bind(JOB_TYPE);
        insert.bind(task.json()).execute(&mut *transaction).await?;
        let notify = sqlx::query(NOTIFY).bind(task.n.to_string());
        notify.execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// Inserts many jobs, some at a time, each time in a transaction of its own.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn insert_many(&mut self, jobs: usize) -> Result<()> {
        let numbers: Vec<u64> = (0..jobs as u64).collect();
        for chunk in numbers.chunks(CHUNK) {
            let ids: Vec<Uuid> = chunk.iter().map(|_| Uuid::now_v7()).collect();
            let configs: Vec<String> = chunk.iter().map(|n| Task { n: *n }.json()).collect();
            let insert = sqlx::query(INSERT_MANY).bind(ids).bind(JOB_TYPE);
            insert.bind(configs).execute(&mut self.connection).await?;
        }
        Ok(())
    }

    /// Claims jobs, deletes and records them; says how many there were.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn work_off(&mut self, claims: Claims, jobs_max: usize) -> Result<usize> {
        match claims {
            Claims::Committed => {
                let claimed = claim(&mut self.connection, CLAIM, jobs_max).await?;
                record(&mut self.connection, &claimed).await?;
                Ok(claimed.len())
            }
            Claims::Held => {
                let mut transaction = self.connection.begin().await?;
                let claimed = claim(&mut transaction, HOLD, jobs_max).await?;
                record(&mut transaction, &claimed).await?;
                transaction.commit().await?;
                Ok(claimed.len())
            }
        }
    }
}

/// What keeps others from taking the same jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claims {
    /// The claim is committed, so that jobs can take their time: two transactions.
    Committed,
    /// Locks, in a transaction that stays open while jobs run: one transaction.
    Held,
}

async fn claim(
    connection: &mut PgConnection,
    statement: &str,
    jobs_max: usize,
) -> Result<Vec<Uuid>> {
    let claim = sqlx::query_as::<_, (Uuid, String)>(statement).bind(JOB_TYPE);
    let claim = claim.bind(i64::try_from(jobs_max)?);
    let claimed = claim.fetch_all(connection).await?;
    Ok(claimed.into_iter().map(|(id, _config)| id).collect())
}

async fn record(connection: &mut PgConnection, done: &[Uuid]) -> Result<()> {
    if !done.is_empty() {
        sqlx::query(RECORD).bind(done).execute(connection).await?;
    }
    Ok(())
}

/// Works off the first `jobs` jobs with these connections; in jobs a second.
///
/// # Errors
///
/// When the database does not answer, or there are fewer.
pub async fn drain(floors: Vec<Floor>, claims: Claims, jobs: usize) -> Result<f64> {
    let start = Instant::now();
    let left = Arc::new(AtomicUsize::new(jobs));
    let tasks: Vec<_> = floors
        .into_iter()
        .map(|mut floor| {
            let left = Arc::clone(&left);
            tokio::spawn(async move {
                loop {
                    let take = |left: usize| Some(left.saturating_sub(CHUNK));
                    let left = left
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                        .unwrap_or_else(|left| left);
                    let jobs_max = left.min(CHUNK);
                    if jobs_max == 0 {
                        return Ok::<_, crate::Error>(());
                    }
                    let done = floor.work_off(claims, jobs_max).await?;
                    if done < jobs_max {
                        return Err(format!("found {done} jobs instead of {jobs_max}").into());
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(rate(jobs, start))
}

/// Hears of jobs of which [`Floor::insert_and_notify`] tells.
///
/// # Errors
///
/// When the database does not answer.
pub async fn listen(database: &Database) -> Result<PgListener> {
    let mut listener = PgListener::connect(&database.url()).await?;
    listener.listen("floor").await?;
    Ok(listener)
}
