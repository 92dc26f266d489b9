//! Taking back jobs whose lease ran out.

use job_engine::lifecycle::RunEnd;
use job_engine::store::{AfterCrash, Reclaim, Reclaimed};
use job_engine::{JobType, Reply, StoreError, Timestamp};
use serde_json::Value;
use sqlx::SqliteConnection;

use crate::error::failed;
use crate::finish::{End, end_runs};
use crate::row::{count, get, run, time};
use crate::sql;

pub(crate) async fn reclaim(
    connection: &mut SqliteConnection,
    now: Timestamp,
    reclaim: &Reclaim,
) -> Result<Reply, StoreError> {
    let types = reclaim.policies.iter();
    let types = types.map(|policy| Value::from(policy.job_type.as_str()));
    let rows = sqlx::query(sql::LAPSED)
        .bind(types.collect::<Value>().to_string())
        .bind(now.as_micros())
        .bind(reclaim.jobs_max)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    let mut ends = Vec::with_capacity(rows.len());
    let mut reclaimed = Vec::with_capacity(rows.len());
    for row in &rows {
        let job_type = JobType::from(get::<String>(row, "job_type")?);
        let policies = &mut reclaim.policies.iter();
        let Some(policy) = policies.find(|policy| policy.job_type == job_type) else {
            continue;
        };
        let (run, attempt) = (run(row)?, count(row, "attempt")?);
        let alive = time(row, "lease_expires_at")?.saturating_since(time(row, "claimed_at")?);
        let end = match policy.after_crash(attempt, count(row, "crashes")?, alive) {
            AfterCrash::Retry { attempt, crashes } => End {
                run,
                end: RunEnd::Lost,
                error: None,
                next_attempt: Some(attempt),
                next_due: Some(now),
                crashes: Some(crashes),
            },
            AfterCrash::Abandon(reason) => End {
                run,
                end: RunEnd::Abandoned,
                error: Some(reason.to_owned()),
                next_attempt: None,
                next_due: None,
                crashes: None,
            },
        };
        reclaimed.push(Reclaimed {
            run,
            job_type,
            attempt,
            end: end.end,
        });
        ends.push(end);
    }
    if !ends.is_empty() {
        end_runs(connection, now, ends.into_iter()).await?;
    }
    Ok(Reply::Reclaimed(reclaimed))
}
