//! Taking back jobs whose lease ran out.

use job_engine::lifecycle::RunEnd;
use job_engine::store::{AfterCrash, Reclaim, Reclaimed};
use job_engine::{JobType, Reply, StoreError, Timestamp};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use crate::error::failed;
use crate::finish::{End, Next, end_runs};
use crate::row::{corrupt, count, get, json, run, time};
use crate::sql;

pub(crate) async fn reclaim(
    connection: &mut SqliteConnection,
    now: Timestamp,
    reclaim: &Reclaim,
) -> Result<Reply, StoreError> {
    let policies = reclaim.policies.iter();
    let types: Vec<_> = policies.map(|policy| policy.job_type.as_str()).collect();
    let lapsed = sqlx::query(sql::LAPSED)
        .bind(json(&types))
        .bind(now.as_micros())
        .bind(reclaim.jobs_max)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    let lost = lapsed.iter().map(|row| lose(now, reclaim, row));
    let lost: Vec<_> = lost.collect::<Result<_, _>>()?;
    let (ends, reclaimed): (Vec<_>, Vec<_>) = lost.into_iter().unzip();
    end_runs(connection, now, &ends).await?;
    Ok(Reply::Reclaimed(reclaimed))
}

/// What follows from the lapsed lease that this row tells of.
fn lose(
    now: Timestamp,
    reclaim: &Reclaim,
    row: &SqliteRow,
) -> Result<(End<'static>, Reclaimed), StoreError> {
    let job_type = JobType::from(get::<String>(row, "job_type")?);
    let mut policies = reclaim.policies.iter();
    let policy = policies
        .find(|policy| policy.job_type == job_type)
        .ok_or_else(|| corrupt("a job type that compares equal to another"))?;
    let (run, attempt) = (run(row)?, count(row, "attempt")?);
    let alive = time(row, "lease_expires_at")?.saturating_since(time(row, "claimed_at")?);
    let (end, error, next) = match policy.after_crash(attempt, count(row, "crashes")?, alive) {
        AfterCrash::Retry { attempt, crashes } => {
            let next = Next {
                due_at: now,
                attempt: Some(attempt),
                crashes: Some(crashes),
            };
            (RunEnd::Lost, None, Some(next))
        }
        AfterCrash::Abandon(reason) => (RunEnd::Abandoned, Some(reason), None),
    };
    let reclaimed = Reclaimed {
        run,
        job_type,
        attempt,
        end,
    };
    let end = End {
        run,
        end,
        error,
        next,
    };
    Ok((end, reclaimed))
}
