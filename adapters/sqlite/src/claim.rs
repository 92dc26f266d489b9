//! Taking due jobs.

use std::collections::BTreeMap;

use job_engine::store::{Claim, Claimed, ClaimedJob, Left, LeftOut, Quota};
use job_engine::{Fence, JobId, JobType, Payload, Reply, Run, StoreError, Timestamp};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use crate::error::failed;
use crate::row::{count, get, some_time, time};
use crate::sql;

pub(crate) async fn claim(
    connection: &mut SqliteConnection,
    now: Timestamp,
    claim: &Claim,
) -> Result<Reply, StoreError> {
    let mut rows = Vec::new();
    let mut next_due = Vec::new();
    if claim.repeat {
        rows = renew(connection, now, claim).await?;
    }
    let repeated = !rows.is_empty();
    if !repeated {
        for quota in &claim.quotas {
            let taken = take(connection, now, claim, quota).await?;
            if taken.len() < quota.jobs_max as usize {
                let next = next_due_of(connection, now, quota).await?;
                next_due.extend(next.map(|at| (quota.job_type.clone(), at)));
            }
            rows.extend(taken);
        }
    }
    let taken = rows.iter().map(|row| Taken::read(row, claim));
    let mut taken: Vec<Taken<'_>> = taken.collect::<Result<_, _>>()?;
    taken.sort_by_key(|taken| (taken.due_at, taken.run.job));
    let quotas = claim.quotas.iter();
    let mut room: BTreeMap<&str, u32> = quotas
        .map(|quota| (quota.job_type.as_str(), quota.jobs_max))
        .collect();
    let (mut jobs, mut left) = (Vec::new(), Vec::new());
    for taken in taken {
        let room = room.get_mut(taken.job_type.as_str());
        let fits = !repeated || room.is_some_and(take_one);
        match taken.job(fits)? {
            Ok(job) => jobs.push(job),
            Err(one) => left.push(one),
        }
    }
    Ok(Reply::Claimed(Claimed {
        now,
        jobs,
        left,
        next_due,
    }))
}

fn take_one(room: &mut u32) -> bool {
    let fits = *room > 0;
    *room -= u32::from(fits);
    fits
}

/// The jobs that run by this very claim, their leases renewed.
async fn renew(
    connection: &mut SqliteConnection,
    now: Timestamp,
    claim: &Claim,
) -> Result<Vec<SqliteRow>, StoreError> {
    sqlx::query(sql::RENEW_CLAIM)
        .bind(claim.id.worker.0)
        .bind(claim.id.seq)
        .bind(now.saturating_add(claim.lease).as_micros())
        .fetch_all(connection)
        .await
        .map_err(failed)
}

async fn take(
    connection: &mut SqliteConnection,
    now: Timestamp,
    claim: &Claim,
    quota: &Quota,
) -> Result<Vec<SqliteRow>, StoreError> {
    if quota.jobs_max == 0 {
        return Ok(Vec::new());
    }
    sqlx::query(sql::CLAIM)
        .bind(quota.job_type.as_str())
        .bind(now.as_micros())
        .bind(quota.jobs_max)
        .bind(claim.id.worker.0)
        .bind(claim.id.seq)
        .bind(now.saturating_add(claim.lease).as_micros())
        .fetch_all(connection)
        .await
        .map_err(failed)
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

/// A row of a job that the claim took.
struct Taken<'r> {
    row: &'r SqliteRow,
    run: Run,
    job_type: String,
    due_at: Timestamp,
}

impl<'r> Taken<'r> {
    fn read(row: &'r SqliteRow, claim: &Claim) -> Result<Self, StoreError> {
        Ok(Self {
            row,
            run: Run {
                job: JobId(get(row, "id")?),
                fence: Fence(get(row, "fence")?),
                claim: claim.id,
            },
            job_type: get(row, "job_type")?,
            due_at: time(row, "due_at")?,
        })
    }

    /// The job, or why it is only named.
    fn job(self, fits: bool) -> Result<Result<ClaimedJob, Left>, StoreError> {
        let Self {
            row,
            run,
            job_type,
            due_at,
        } = self;
        let job_type = JobType::from(job_type);
        let left = |why| Left {
            run,
            job_type: job_type.clone(),
            why,
        };
        // Null only where its row is gone: the table allows none.
        let Some(spawned_at) = some_time(row, "spawned_at")? else {
            return Ok(Err(left(LeftOut::SpecGone)));
        };
        if !fits {
            return Ok(Err(left(LeftOut::BeyondQuota)));
        }
        let state: Option<String> = get(row, "execution_state")?;
        Ok(Ok(ClaimedJob {
            run,
            job_type,
            attempt: count(row, "attempt")?,
            due_at,
            spawned_at,
            interruptions: count(row, "interruptions")?,
            undecodable_since: some_time(row, "undecodable_since")?,
            config: Payload::from_json(get::<String>(row, "config")?),
            state: state.map(Payload::from_json),
            trace: get(row, "trace")?,
        }))
    }
}
