//! Reading a job with its history.

use job_engine::history::{HistoryPage, Lease, Live, RunRecord, Snapshot};
use job_engine::lifecycle::RunEnd;
use job_engine::limits::HISTORY_LEN_MAX;
use job_engine::store::History;
use job_engine::{ErrorText, Fence, JobId, Payload, Reply, StoreError, Timestamp, WorkerId};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use crate::error::failed;
use crate::row::{corrupt, count, get, some_time, time};
use crate::sql;

pub(crate) async fn find(
    connection: &mut SqliteConnection,
    id: JobId,
) -> Result<Reply, StoreError> {
    let job = sqlx::query(sql::FIND_JOB).bind(id.0);
    let job = job.fetch_optional(&mut *connection).await.map_err(failed)?;
    let Some(row) = job else {
        return Ok(Reply::Found(None));
    };
    let page = page(connection, id, i64::MAX).await?;
    Ok(Reply::Found(Some(Box::new(Snapshot {
        id,
        job_type: get::<String>(&row, "job_type")?.into(),
        unique_type: get(&row, "unique_type")?,
        config: Payload::from_json(get::<String>(&row, "config")?),
        spawned_at: time(&row, "spawned_at")?,
        trace: get(&row, "trace")?,
        live: if get(&row, "is_live")? {
            Some(live(&row)?)
        } else {
            None
        },
        runs: page.runs,
        earlier: page.earlier,
    }))))
}

pub(crate) async fn history(
    connection: &mut SqliteConnection,
    history: History,
) -> Result<Reply, StoreError> {
    let History { job, before } = history;
    Ok(Reply::History(page(connection, job, before.0).await?))
}

async fn page(
    connection: &mut SqliteConnection,
    job: JobId,
    before: i64,
) -> Result<HistoryPage, StoreError> {
    let page = sqlx::query(sql::FIND_RUNS).bind(job.0).bind(before);
    let page = page.bind(HISTORY_LEN_MAX as i64);
    let rows = page.fetch_all(connection).await.map_err(failed)?;
    let mut page = HistoryPage::default();
    for row in &rows {
        let first: Option<i64> = get(row, "first")?;
        page.earlier = HistoryPage::earlier_than(first.map(Fence));
        if get::<Option<i64>>(row, "fence")?.is_some() {
            page.runs.push(run(row)?);
        }
    }
    Ok(page)
}

/// The configs of the jobs of a type that the connection sees, in the order of their ids. For
/// tests.
///
/// # Errors
///
/// When they cannot be read.
pub async fn configs_of_type(
    connection: &mut SqliteConnection,
    job_type: &str,
) -> Result<Vec<String>, sqlx::Error> {
    let configs = sqlx::query_scalar(sql::CONFIGS_OF_TYPE).bind(job_type);
    configs.fetch_all(connection).await
}

fn live(row: &SqliteRow) -> Result<Live, StoreError> {
    let lease = match get::<Option<_>>(row, "worker")? {
        Some(worker) => Some(Lease {
            worker: WorkerId(worker),
            claim_seq: get(row, "claim_seq")?,
            claimed_at: time(row, "claimed_at")?,
            expires_at: time(row, "lease_expires_at")?,
        }),
        None => None,
    };
    Ok(Live {
        attempt: count(row, "attempt")?,
        crashes: count(row, "crashes")?,
        interruptions: count(row, "interruptions")?,
        undecodable_since: some_time(row, "undecodable_since")?,
        due_at: time(row, "due_at")?,
        fence: Fence(get(row, "fence")?),
        state: get::<Option<String>>(row, "execution_state")?.map(Payload::from_json),
        lease,
    })
}

fn run(row: &SqliteRow) -> Result<RunRecord, StoreError> {
    let end = RunEnd::from_code(get(row, "run_end")?);
    let error: Option<String> = get(row, "error")?;
    let next_due_at: Option<i64> = get(row, "next_due_at")?;
    Ok(RunRecord {
        fence: Fence(get(row, "fence")?),
        attempt: count(row, "attempt")?,
        worker: WorkerId(get(row, "worker")?),
        claim_seq: get(row, "claim_seq")?,
        claimed_at: time(row, "claimed_at")?,
        ended_at: time(row, "ended_at")?,
        end: end.ok_or_else(|| corrupt("an end of a run that this version does not know"))?,
        error: error.map(|error| ErrorText::new(&error)),
        next_due_at: next_due_at.map(Timestamp::from_micros),
    })
}
