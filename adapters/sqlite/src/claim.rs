//! Taking due jobs.

use job_engine::store::{Claim, Claimed, ClaimedJob, Quota};
use job_engine::{Payload, Reply, StoreError, Timestamp};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use crate::error::failed;
use crate::row::{count, get, run, time};
use crate::sql;

pub(crate) async fn claim(
    connection: &mut SqliteConnection,
    now: Timestamp,
    claim: &Claim,
) -> Result<Reply, StoreError> {
    let mut jobs = Vec::new();
    let mut next_due = Vec::new();
    if claim.repeat {
        jobs = renew(connection, now, claim).await?;
    }
    if jobs.is_empty() {
        for quota in &claim.quotas {
            let taken = take(connection, now, claim, quota).await?;
            if taken.len() < quota.jobs_max as usize {
                let next = next_due_of(connection, now, quota).await?;
                next_due.extend(next.map(|at| (quota.job_type.clone(), at)));
            }
            jobs.extend(taken);
        }
    }
    jobs.sort_by_key(|job| (job.due_at, job.run.job));
    Ok(Reply::Claimed(Claimed {
        now,
        jobs,
        next_due,
    }))
}

/// The jobs that run by this very claim, their leases renewed.
async fn renew(
    connection: &mut SqliteConnection,
    now: Timestamp,
    claim: &Claim,
) -> Result<Vec<ClaimedJob>, StoreError> {
    let renewed = sqlx::query(sql::RENEW_CLAIM)
        .bind(claim.id.worker.0)
        .bind(claim.id.seq)
        .bind(now.saturating_add(claim.lease).as_micros())
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    renewed.iter().map(claimed_job).collect()
}

async fn take(
    connection: &mut SqliteConnection,
    now: Timestamp,
    claim: &Claim,
    quota: &Quota,
) -> Result<Vec<ClaimedJob>, StoreError> {
    if quota.jobs_max == 0 {
        return Ok(Vec::new());
    }
    let taken = sqlx::query(sql::CLAIM)
        .bind(quota.job_type.as_str())
        .bind(now.as_micros())
        .bind(quota.jobs_max)
        .bind(claim.id.worker.0)
        .bind(claim.id.seq)
        .bind(now.saturating_add(claim.lease).as_micros())
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    taken.iter().map(claimed_job).collect()
}

async fn next_due_of(
    connection: &mut SqliteConnection,
    now: Timestamp,
    quota: &Quota,
) -> Result<Option<Timestamp>, StoreError> {
    let next: Option<i64> = sqlx::query_scalar(sql::NEXT_DUE)
        .bind(quota.job_type.as_str())
        .bind(now.as_micros())
        .fetch_optional(connection)
        .await
        .map_err(failed)?;
    Ok(next.map(Timestamp::from_micros))
}

fn claimed_job(row: &SqliteRow) -> Result<ClaimedJob, StoreError> {
    let state: Option<String> = get(row, "execution_state")?;
    Ok(ClaimedJob {
        run: run(row)?,
        job_type: get::<String>(row, "job_type")?.into(),
        attempt: count(row, "attempt")?,
        due_at: time(row, "due_at")?,
        spawned_at: time(row, "spawned_at")?,
        config: Payload::from_json(get::<String>(row, "config")?),
        state: state.map(Payload::from_json),
        trace: get(row, "trace")?,
    })
}
