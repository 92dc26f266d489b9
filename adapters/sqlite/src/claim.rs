//! Taking due jobs.

use job_engine::store::{Claim, Claimed, ClaimedJob};
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
    let mut next_due = Vec::new();
    if !(claim.repeat && renew(connection, now, claim).await?) {
        for quota in &claim.quotas {
            let job_type = quota.job_type.as_str();
            let taken = sqlx::query(sql::CLAIM)
                .bind(job_type)
                .bind(now.as_micros())
                .bind(quota.jobs_max)
                .bind(claim.id.worker.0)
                .bind(claim.id.seq)
                .bind(now.saturating_add(claim.lease).as_micros())
                .execute(&mut *connection)
                .await
                .map_err(failed)?;
            if taken.rows_affected() < u64::from(quota.jobs_max) {
                let next = sqlx::query_scalar(sql::NEXT_DUE)
                    .bind(job_type)
                    .bind(now.as_micros())
                    .fetch_optional(&mut *connection)
                    .await
                    .map_err(failed)?;
                let next = next.map(Timestamp::from_micros);
                next_due.extend(next.map(|at| (quota.job_type.clone(), at)));
            }
        }
    }
    let rows = sqlx::query(sql::CLAIMED)
        .bind(claim.id.worker.0)
        .bind(claim.id.seq)
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    let jobs: Result<Vec<_>, _> = rows.iter().map(claimed_job).collect();
    Ok(Reply::Claimed(Claimed {
        now,
        jobs: jobs?,
        next_due,
    }))
}

/// Whether any job runs by this very claim; their leases are renewed.
async fn renew(
    connection: &mut SqliteConnection,
    now: Timestamp,
    claim: &Claim,
) -> Result<bool, StoreError> {
    let renewed = sqlx::query(sql::RENEW_CLAIM)
        .bind(claim.id.worker.0)
        .bind(claim.id.seq)
        .bind(now.saturating_add(claim.lease).as_micros())
        .execute(connection)
        .await
        .map_err(failed)?;
    Ok(renewed.rows_affected() > 0)
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
