//! Taking due jobs.

use std::collections::BTreeMap;

use job_engine::store::{Claim, Claimed, ClaimedJob, Left, LeftOut, Quota};
use job_engine::{Fence, JobId, JobType, Payload, Reply, Run, StoreError, Timestamp};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

use crate::convert::{
    Time, corrupt, count, get, get_count, get_time, interval, time, time_max, timestamp,
};
use crate::error::{reply_lost, store_error};
use crate::store::PostgresStore;

/// A repeat that finds nothing to renew claims anew, under the same number. If the first
/// try takes effect only now, a further repeat finds what it took, or the leases of that
/// run out.
pub(crate) async fn claim(
    store: &PostgresStore,
    connection: &mut PgConnection,
    now: Option<Timestamp>,
    claim: &Claim,
) -> Result<Reply, StoreError> {
    if claim.repeat {
        let renewed = renew(store, connection, now, claim).await?;
        if !renewed.is_empty() {
            return Ok(Reply::Claimed(renewed));
        }
    }
    let taken = take(store, connection, now, claim).await?;
    Ok(Reply::Claimed(taken))
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
        .bind(time_max())
        .bind(of(&claim.quotas, |quota| quota.job_type.as_str()))
        .bind(of(&claim.quotas, |quota| count(quota.jobs_max)));
    let rows = renew.fetch_all(&mut *connection).await;
    let mut claimed = claimed(&rows.map_err(store_error)?, claim).map_err(reply_lost)?;
    // A runner may be at work on them.
    read_checkpoints(store, connection, claimed.jobs.iter_mut().collect()).await?;
    Ok(claimed)
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
    let rows = take.fetch_all(&mut *connection).await;
    let mut claimed = claimed(&rows.map_err(store_error)?, claim).map_err(reply_lost)?;
    claimed.next_due = next_due(&claim.quotas, &claimed);
    // Nobody has kept anything of a job that was never claimed before.
    let before = claimed.jobs.iter_mut();
    let before = before.filter(|job| job.run.fence > Fence::NONE.next());
    read_checkpoints(store, connection, before.collect()).await?;
    Ok(claimed)
}

/// Gives these jobs what was kept of them.
async fn read_checkpoints(
    store: &PostgresStore,
    connection: &mut PgConnection,
    jobs: Vec<&mut ClaimedJob>,
) -> Result<(), StoreError> {
    if jobs.is_empty() {
        return Ok(());
    }
    let ids: Vec<uuid::Uuid> = jobs.iter().map(|job| job.run.job.0).collect();
    let kept = store.query(&store.sql().checkpoints).bind(ids);
    let rows = kept.fetch_all(connection).await.map_err(reply_lost)?;
    let kept = rows
        .iter()
        .map(|row| Ok((JobId(get(row, "job_id")?), get(row, "execution_state")?)));
    let kept: Result<BTreeMap<JobId, String>, sqlx::Error> = kept.collect();
    let mut kept = kept.map_err(reply_lost)?;
    for job in jobs {
        job.state = kept.remove(&job.run.job).map(Payload::from_json);
    }
    Ok(())
}

/// When the next job is due of each type of which there were fewer than its quota.
fn next_due(quotas: &[Quota], claimed: &Claimed) -> Vec<(JobType, Timestamp)> {
    let mut taken: BTreeMap<&JobType, u32> = BTreeMap::new();
    for job_type in claimed.job_types() {
        *taken.entry(job_type).or_default() += 1;
    }
    let told: BTreeMap<&JobType, Timestamp> =
        claimed.next_due.iter().map(|(t, at)| (t, *at)).collect();
    quotas
        .iter()
        .filter(|quota| taken.get(&quota.job_type).copied().unwrap_or(0) < quota.jobs_max)
        .filter_map(|quota| {
            let at = told.get(&quota.job_type)?;
            Some((quota.job_type.clone(), *at))
        })
        .collect()
}

/// A row is a job, or when the next of a type is due, or neither. Each has the time.
fn claimed(rows: &[PgRow], claim: &Claim) -> Result<Claimed, sqlx::Error> {
    let first = rows.first().ok_or_else(|| corrupt("now", "no row"))?;
    let mut claimed = Claimed {
        now: get_time(first, "now")?,
        jobs: Vec::with_capacity(rows.len()),
        left: Vec::new(),
        next_due: Vec::new(),
    };
    for row in rows {
        let Some(job_type) = get::<Option<String>>(row, "job_type")? else {
            continue;
        };
        let job_type = JobType::from(job_type);
        if get::<Option<uuid::Uuid>>(row, "id")?.is_none() {
            let due_at = get_time(row, "due_at")?;
            claimed.next_due.push((job_type, due_at));
        } else {
            match get::<Option<String>>(row, "config")? {
                Some(config) => claimed
                    .jobs
                    .push(claimed_job(row, claim, job_type, config)?),
                None => claimed.left.push(left(row, claim, job_type)?),
            }
        }
    }
    Ok(claimed)
}

fn run(row: &PgRow, claim: &Claim) -> Result<Run, sqlx::Error> {
    Ok(Run {
        job: JobId(get(row, "id")?),
        fence: Fence(get(row, "fence")?),
        claim: claim.id,
    })
}

/// A job whose config did not come along.
fn left(row: &PgRow, claim: &Claim, job_type: JobType) -> Result<Left, sqlx::Error> {
    let spec_is_there = get::<Option<Time>>(row, "spawned_at")?.is_some();
    Ok(Left {
        run: run(row, claim)?,
        job_type,
        why: match spec_is_there {
            true => LeftOut::BeyondQuota,
            false => LeftOut::SpecGone,
        },
    })
}

fn claimed_job(
    row: &PgRow,
    claim: &Claim,
    job_type: JobType,
    config: String,
) -> Result<ClaimedJob, sqlx::Error> {
    let undecodable_since: Option<Time> = get(row, "undecodable_since")?;
    Ok(ClaimedJob {
        run: run(row, claim)?,
        job_type,
        attempt: get_count(row, "attempt")?,
        due_at: get_time(row, "due_at")?,
        spawned_at: get_time(row, "spawned_at")?,
        interruptions: get_count(row, "interruptions")?,
        undecodable_since: undecodable_since.map(timestamp),
        config: Payload::from_json(config),
        state: None,
        trace: get(row, "trace")?,
    })
}

fn of<'a, T>(quotas: &'a [Quota], field: impl Fn(&'a Quota) -> T) -> Vec<T> {
    quotas.iter().map(field).collect()
}
