//! What the tables of a store hold: every job, put together from its rows and
//! not by the store's own reading.

use std::collections::{BTreeMap, BTreeSet};

use job_engine::history::{Lease, Live, RunRecord, Snapshot};
use job_engine::lifecycle::RunEnd;
use job_engine::{ErrorText, Fence, JobId, Payload, Timestamp, WorkerId};
use sqlx::{Executor, FromRow, PgPool, SqlitePool};
use uuid::Uuid;

/// A database whose jobs can be read all at once, and removed.
pub trait Tables {
    /// All rows.
    async fn rows(&self) -> Rows;

    /// Removes all jobs.
    async fn clear(&self);
}

/// The rows of the tables.
#[derive(Debug, Default)]
pub struct Rows {
    specs: Vec<SpecRow>,
    live: Vec<LiveRow>,
    checkpoints: Vec<CheckpointRow>,
    runs: Vec<RunRow>,
}

#[derive(Debug, FromRow)]
struct SpecRow {
    id: Uuid,
    job_type: String,
    unique_type: bool,
    config: String,
    trace: Option<String>,
    spawned_at: i64,
}

#[derive(Debug, FromRow)]
struct LiveRow {
    id: Uuid,
    job_type: String,
    state: i64,
    due_at: i64,
    fence: i64,
    attempt: i64,
    crashes: i64,
    interruptions: i64,
    undecodable_since: Option<i64>,
    worker: Option<Uuid>,
    claim_seq: Option<i64>,
    claimed_at: Option<i64>,
    lease_expires_at: Option<i64>,
}

#[derive(Debug, FromRow)]
struct CheckpointRow {
    job_id: Uuid,
    execution_state: String,
}

#[derive(Debug, FromRow)]
struct RunRow {
    job_id: Uuid,
    fence: i64,
    attempt: i64,
    worker: Uuid,
    claim_seq: i64,
    claimed_at: i64,
    ended_at: i64,
    run_end: i64,
    error: Option<String>,
    next_due_at: Option<i64>,
}

impl Rows {
    /// Without what was kept of jobs that are over: the first that a run keeps, while another
    /// client records its end, stays behind.
    pub fn of_many_clients(mut self) -> Self {
        let live: BTreeSet<Uuid> = self.live.iter().map(|row| row.id).collect();
        self.checkpoints.retain(|row| live.contains(&row.job_id));
        self
    }

    /// The jobs, by id. Fails if the tables contradict each other.
    pub fn jobs(self) -> Result<Vec<Snapshot>, String> {
        let mut jobs: BTreeMap<Uuid, Snapshot> = BTreeMap::new();
        for spec in self.specs {
            jobs.insert(spec.id, snapshot(spec));
        }
        for row in self.live {
            let job = jobs.get_mut(&row.id);
            let job = job.ok_or_else(|| format!("live without a spec: {row:?}"))?;
            if job.job_type.as_str() != row.job_type {
                return Err(format!("{row:?} has another type than {job:?}"));
            }
            job.live = Some(live(row)?);
        }
        for row in self.checkpoints {
            let live = jobs.get_mut(&row.job_id).and_then(|job| job.live.as_mut());
            let live = live.ok_or_else(|| format!("kept of a job that is over: {row:?}"))?;
            live.state = Some(Payload::from_json(row.execution_state));
        }
        for row in self.runs {
            let job = jobs.get_mut(&row.job_id);
            let job = job.ok_or_else(|| format!("a run without a spec: {row:?}"))?;
            job.runs.push(run(row)?);
        }
        for job in jobs.values_mut() {
            job.runs.sort_by_key(|run| run.fence);
        }
        Ok(jobs.into_values().collect())
    }
}

fn snapshot(row: SpecRow) -> Snapshot {
    Snapshot {
        id: JobId(row.id),
        job_type: row.job_type.into(),
        unique_type: row.unique_type,
        config: Payload::from_json(row.config),
        spawned_at: Timestamp::from_micros(row.spawned_at),
        trace: row.trace,
        live: None,
        runs: Vec::new(),
        earlier: None,
    }
}

fn live(row: LiveRow) -> Result<Live, String> {
    let lease = match (
        row.state,
        row.worker,
        row.claim_seq,
        row.claimed_at,
        row.lease_expires_at,
    ) {
        (0, None, None, None, None) => None,
        (1, Some(worker), Some(claim_seq), Some(claimed_at), Some(expires_at)) => Some(Lease {
            worker: WorkerId(worker),
            claim_seq,
            claimed_at: Timestamp::from_micros(claimed_at),
            expires_at: Timestamp::from_micros(expires_at),
        }),
        _ => return Err(format!("neither pending nor running: {row:?}")),
    };
    Ok(Live {
        attempt: count(row.attempt)?,
        crashes: count(row.crashes)?,
        interruptions: count(row.interruptions)?,
        undecodable_since: row.undecodable_since.map(Timestamp::from_micros),
        due_at: Timestamp::from_micros(row.due_at),
        fence: Fence(row.fence),
        state: None,
        lease,
    })
}

fn run(row: RunRow) -> Result<RunRecord, String> {
    let end = i16::try_from(row.run_end).ok().and_then(RunEnd::from_code);
    Ok(RunRecord {
        fence: Fence(row.fence),
        attempt: count(row.attempt)?,
        worker: WorkerId(row.worker),
        claim_seq: row.claim_seq,
        claimed_at: Timestamp::from_micros(row.claimed_at),
        ended_at: Timestamp::from_micros(row.ended_at),
        end: end.ok_or_else(|| format!("no such end: {}", row.run_end))?,
        error: row.error.as_deref().map(ErrorText::new),
        next_due_at: row.next_due_at.map(Timestamp::from_micros),
    })
}

fn count(count: i64) -> Result<u32, String> {
    u32::try_from(count).map_err(|_| format!("no count: {count}"))
}

/// The tables on Postgres, in one schema.
#[derive(Debug)]
pub struct PostgresTables {
    pool: PgPool,
    /// Quoted, with the point after it; or empty.
    schema: String,
}

impl PostgresTables {
    pub fn new(pool: PgPool, schema: Option<&str>) -> Self {
        let schema = schema.map(|schema| format!("\"{}\".", schema.replace('"', "\"\"")));
        Self {
            pool,
            schema: schema.unwrap_or_default(),
        }
    }
}

/// Microseconds since 1970; exact, as `extract` gives a numeric.
fn micros(column: &str) -> String {
    format!("(extract(epoch FROM {column}) * 1000000)::bigint AS {column}")
}

impl Tables for PostgresTables {
    async fn rows(&self) -> Rows {
        let schema = &self.schema;
        let specs = format!(
            "SELECT id, job_type, unique_type, config::text AS config, trace, {} \
             FROM {schema}job_specs",
            micros("spawned_at")
        );
        let live = format!(
            "SELECT id, job_type, state::bigint AS state, {}, fence, attempt::bigint AS attempt, \
             crashes::bigint AS crashes, interruptions::bigint AS interruptions, {}, worker, \
             claim_seq, {}, {} FROM {schema}job_live",
            micros("due_at"),
            micros("undecodable_since"),
            micros("claimed_at"),
            micros("lease_expires_at")
        );
        let checkpoints = format!(
            "SELECT job_id, execution_state::text AS execution_state \
             FROM {schema}job_checkpoints"
        );
        let runs = format!(
            "SELECT job_id, fence, attempt::bigint AS attempt, worker, claim_seq, {}, {}, \
             run_end::bigint AS run_end, error, {} FROM {schema}job_runs",
            micros("claimed_at"),
            micros("ended_at"),
            micros("next_due_at")
        );
        let pool = &self.pool;
        let read = async {
            Ok::<_, sqlx::Error>(Rows {
                specs: sqlx::query_as(&specs).fetch_all(pool).await?,
                live: sqlx::query_as(&live).fetch_all(pool).await?,
                checkpoints: sqlx::query_as(&checkpoints).fetch_all(pool).await?,
                runs: sqlx::query_as(&runs).fetch_all(pool).await?,
            })
        };
        read.await.expect("the tables can be read")
    }

    async fn clear(&self) {
        let schema = &self.schema;
        let clear = format!(
            "TRUNCATE {schema}job_specs, {schema}job_live, {schema}job_checkpoints, {schema}job_runs"
        );
        self.pool.execute(&*clear).await.expect("it can be cleared");
    }
}

/// The tables on SQLite.
#[derive(Debug)]
pub struct SqliteTables(pub SqlitePool);

impl Tables for SqliteTables {
    async fn rows(&self) -> Rows {
        let pool = &self.0;
        let read = async {
            Ok::<_, sqlx::Error>(Rows {
                specs: sqlx::query_as("SELECT * FROM job_specs")
                    .fetch_all(pool)
                    .await?,
                live: sqlx::query_as("SELECT * FROM job_live")
                    .fetch_all(pool)
                    .await?,
                checkpoints: sqlx::query_as("SELECT * FROM job_checkpoints")
                    .fetch_all(pool)
                    .await?,
                runs: sqlx::query_as("SELECT * FROM job_runs")
                    .fetch_all(pool)
                    .await?,
            })
        };
        read.await.expect("the tables can be read")
    }

    async fn clear(&self) {
        let clear = "DELETE FROM job_specs; DELETE FROM job_live; DELETE FROM job_checkpoints; \
                     DELETE FROM job_runs";
        self.0.execute(clear).await.expect("it can be cleared");
    }
}
