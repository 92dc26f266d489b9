//! Reading a job with its history.

use job_engine::history::{HistoryPage, Lease, Live, RunRecord, Snapshot};
use job_engine::lifecycle::RunEnd;
use job_engine::limits::HISTORY_LEN_MAX;
use job_engine::store::History;
use job_engine::{ErrorText, Fence, JobId, Payload, Reply, StoreError, WorkerId};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

use crate::convert::{Time, corrupt, get, get_count, get_time, timestamp};
use crate::error::read_error;
use crate::sql::Sql;
use crate::store::{Owner, PostgresStore};

pub(crate) async fn find(
    store: &PostgresStore,
    connection: &mut PgConnection,
    id: JobId,
) -> Result<Reply, StoreError> {
    let rows = store.query_on(Owner::Application, &store.sql().find);
    let rows = rows
        .bind(id.0)
        .bind(HISTORY_LEN_MAX as i64)
        .fetch_all(connection)
        .await
        .map_err(read_error)?;
    let job = snapshot(id, &rows).map_err(read_error)?;
    Ok(Reply::Found(job.map(Box::new)))
}

pub(crate) async fn history(
    store: &PostgresStore,
    connection: &mut PgConnection,
    history: History,
) -> Result<Reply, StoreError> {
    let rows = store.query_on(Owner::Application, &store.sql().history);
    let rows = rows
        .bind(history.job.0)
        .bind(HISTORY_LEN_MAX as i64)
        .bind(history.before.0)
        .fetch_all(connection)
        .await
        .map_err(read_error)?;
    let page = page(&rows).map_err(read_error)?;
    Ok(Reply::History(page))
}

fn page(rows: &[PgRow]) -> Result<HistoryPage, sqlx::Error> {
    let first = rows.first().ok_or_else(|| corrupt("first", "no row"))?;
    Ok(HistoryPage {
        earlier: earlier(first)?,
        runs: runs(rows)?,
    })
}

/// Those of the rows that have a run.
fn runs(rows: &[PgRow]) -> Result<Vec<RunRecord>, sqlx::Error> {
    let mut runs = Vec::with_capacity(rows.len());
    for row in rows {
        if get::<Option<i64>>(row, "run_fence")?.is_some() {
            runs.push(run(row)?);
        }
    }
    Ok(runs)
}

/// Where earlier runs end, if the page does not begin with the first.
fn earlier(row: &PgRow) -> Result<Option<Fence>, sqlx::Error> {
    let first: Option<i64> = get(row, "first")?;
    Ok(HistoryPage::earlier_than(first.map(Fence)))
}

/// The configs of the jobs of a type that the connection sees, in the order of their ids, on
/// the tables that its `search_path` finds. For tests.
///
/// # Errors
///
/// When they cannot be read.
pub async fn configs_of_type(
    connection: &mut PgConnection,
    job_type: &str,
) -> Result<Vec<String>, sqlx::Error> {
    let sql = Sql::new(None).configs_of_type;
    let configs = sqlx::query_scalar(&sql).bind(job_type);
    configs.persistent(false).fetch_all(connection).await
}

/// The first row has the job, if there is one; each of the others has a run.
fn snapshot(id: JobId, rows: &[PgRow]) -> Result<Option<Snapshot>, sqlx::Error> {
    let Some((job, runs)) = rows.split_first() else {
        return Ok(None);
    };
    let Some(job_type) = get::<Option<String>>(job, "job_type")? else {
        return Ok(None);
    };
    let live = if get(job, "is_live")? {
        Some(live(job)?)
    } else {
        None
    };
    let config: String = get(job, "config")?;
    Ok(Some(Snapshot {
        id,
        job_type: job_type.into(),
        unique_type: get(job, "unique_type")?,
        config: Payload::from_json(config),
        spawned_at: get_time(job, "spawned_at")?,
        trace: get(job, "trace")?,
        live,
        runs: self::runs(runs)?,
        earlier: earlier(job)?,
    }))
}

fn live(row: &PgRow) -> Result<Live, sqlx::Error> {
    let lease = match get::<Option<_>>(row, "worker")? {
        Some(worker) => Some(Lease {
            worker: WorkerId(worker),
            claim_seq: get(row, "claim_seq")?,
            claimed_at: get_time(row, "claimed_at")?,
            expires_at: get_time(row, "lease_expires_at")?,
        }),
        None => None,
    };
    let state: Option<String> = get(row, "execution_state")?;
    let undecodable_since: Option<Time> = get(row, "undecodable_since")?;
    Ok(Live {
        attempt: get_count(row, "attempt")?,
        crashes: get_count(row, "crashes")?,
        interruptions: get_count(row, "interruptions")?,
        undecodable_since: undecodable_since.map(timestamp),
        due_at: get_time(row, "due_at")?,
        fence: Fence(get(row, "fence")?),
        state: state.map(Payload::from_json),
        lease,
    })
}

fn run(row: &PgRow) -> Result<RunRecord, sqlx::Error> {
    let code: i16 = get(row, "run_end")?;
    let unknown = || corrupt("run_end", format!("{code} is of a newer version"));
    let error: Option<String> = get(row, "run_error")?;
    let next_due_at: Option<Time> = get(row, "run_next_due_at")?;
    Ok(RunRecord {
        fence: Fence(get(row, "run_fence")?),
        attempt: get_count(row, "run_attempt")?,
        worker: WorkerId(get(row, "run_worker")?),
        claim_seq: get(row, "run_claim_seq")?,
        claimed_at: get_time(row, "run_claimed_at")?,
        ended_at: get_time(row, "run_ended_at")?,
        end: RunEnd::from_code(code).ok_or_else(unknown)?,
        error: error.map(|error| ErrorText::new(&error)),
        next_due_at: next_due_at.map(timestamp),
    })
}
