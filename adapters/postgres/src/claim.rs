//! Taking due jobs.

use std::collections::BTreeMap;

use job_engine::store::{Claim, Claimed, ClaimedJob, Quota};
use job_engine::{JobType, Payload, Reply, StoreError, Timestamp};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

use crate::convert::{corrupt, count, get, get_count, get_run, get_time, interval, time, time_max};
use crate::error::{reply_lost, store_error};
use crate::store::PostgresStore;

/// One statement takes the jobs. When it took fewer than asked for, another
/// reads when the next are due: a hint, so they need no transaction around them.
/// The same goes for a repeat that finds nothing to renew and claims anew.
pub(crate) async fn claim(
    store: &PostgresStore,
    connection: &mut PgConnection,
    now: Option<Timestamp>,
    claim: &Claim,
) -> Result<Reply, StoreError> {
    if claim.repeat {
        let renewed = renew(store, connection, now, claim).await?;
        if !renewed.jobs.is_empty() {
            return Ok(Reply::Claimed(renewed));
        }
    }
    let mut claimed = take(store, connection, now, claim).await?;
    let hungry = hungry(&claim.quotas, &claimed.jobs);
    if !hungry.is_empty() {
        let next_due = next_due(store, connection, claimed.now, hungry).await;
        // What was taken is committed by now.
        claimed.next_due = next_due.map_err(reply_lost)?;
    }
    Ok(Reply::Claimed(claimed))
}

async fn renew(
    store: &PostgresStore,
    connection: &mut PgConnection,
    now: Option<Timestamp>,
    claim: &Claim,
) -> Result<Claimed, StoreError> {
    let renew = store
        .query(&store.sql().renew_claim)
        .bind(claim.id.worker.0)
        .bind(claim.id.seq)
        .bind(interval(claim.lease))
        .bind(now.map(time))
        .bind(time_max());
    let rows = renew.fetch_all(connection).await.map_err(store_error)?;
    claimed(&rows).map_err(reply_lost)
}

async fn take(
    store: &PostgresStore,
    connection: &mut PgConnection,
    now: Option<Timestamp>,
    claim: &Claim,
) -> Result<Claimed, StoreError> {
    let take = store
        .query(&store.sql().claim)
        .bind(of(&claim.quotas, |quota| quota.job_type.as_str()))
        .bind(of(&claim.quotas, |quota| count(quota.jobs_max)))
        .bind(claim.id.worker.0)
        .bind(claim.id.seq)
        .bind(interval(claim.lease))
        .bind(now.map(time))
        .bind(time_max());
    let rows = take.fetch_all(connection).await.map_err(store_error)?;
    claimed(&rows).map_err(reply_lost)
}

async fn next_due(
    store: &PostgresStore,
    connection: &mut PgConnection,
    now: Timestamp,
    types: Vec<&str>,
) -> Result<Vec<(JobType, Timestamp)>, sqlx::Error> {
    let next_due = store.query(&store.sql().next_due);
    let next_due = next_due.bind(types).bind(time(now));
    let rows = next_due.fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let job_type: String = get(row, "job_type")?;
            Ok((job_type.into(), get_time(row, "due_at")?))
        })
        .collect()
}

/// The types of which there were fewer than their quota.
fn hungry<'a>(quotas: &'a [Quota], jobs: &[ClaimedJob]) -> Vec<&'a str> {
    let mut taken: BTreeMap<&JobType, u32> = BTreeMap::new();
    for job in jobs {
        *taken.entry(&job.job_type).or_default() += 1;
    }
    quotas
        .iter()
        .filter(|quota| taken.get(&quota.job_type).copied().unwrap_or(0) < quota.jobs_max)
        .map(|quota| quota.job_type.as_str())
        .collect()
}

/// One row for each job, or one that has only the time.
fn claimed(rows: &[PgRow]) -> Result<Claimed, sqlx::Error> {
    let first = rows.first().ok_or_else(|| corrupt("now", "no row"))?;
    let now = get_time(first, "now")?;
    let mut jobs = Vec::with_capacity(rows.len());
    for row in rows {
        jobs.extend(claimed_job(row)?);
    }
    Ok(Claimed {
        now,
        jobs,
        next_due: Vec::new(),
    })
}

fn claimed_job(row: &PgRow) -> Result<Option<ClaimedJob>, sqlx::Error> {
    if get::<Option<uuid::Uuid>>(row, "id")?.is_none() {
        return Ok(None);
    }
    let job_type: String = get(row, "job_type")?;
    let config: String = get(row, "config")?;
    let state: Option<String> = get(row, "execution_state")?;
    Ok(Some(ClaimedJob {
        run: get_run(row)?,
        job_type: job_type.into(),
        attempt: get_count(row, "attempt")?,
        due_at: get_time(row, "due_at")?,
        spawned_at: get_time(row, "spawned_at")?,
        config: Payload::from_json(config),
        state: state.map(Payload::from_json),
        trace: get(row, "trace")?,
    }))
}

fn of<'a, T>(quotas: &'a [Quota], field: impl Fn(&'a Quota) -> T) -> Vec<T> {
    quotas.iter().map(field).collect()
}
