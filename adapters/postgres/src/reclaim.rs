//! Taking back jobs whose lease ran out.

use job_engine::lifecycle::RunEnd;
use job_engine::store::{CRASHED_TOO_OFTEN, LOST_AT_LAST_ATTEMPT, Reclaim, Reclaimed, TypePolicy};
use job_engine::{Reply, StoreError, Timestamp};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

use crate::convert::{get, get_count, get_run, interval, time};
use crate::error::{reply_lost, store_error};
use crate::store::PostgresStore;

pub(crate) async fn reclaim(
    store: &PostgresStore,
    connection: &mut PgConnection,
    now: Option<Timestamp>,
    reclaim: &Reclaim,
) -> Result<Reply, StoreError> {
    let policies = &reclaim.policies;
    // Wider than the counts that they are compared with, so nothing is cut.
    let limit = |max: Option<u32>| max.map(|max| i64::from(max.max(1)));
    let rows = store
        .query(&store.sql().reclaim)
        .bind(of(policies, |policy| policy.job_type.as_str()))
        .bind(of(policies, |policy| limit(policy.attempts_max)))
        .bind(of(policies, |policy| limit(policy.crashes_max)))
        .bind(of(policies, |policy| interval(policy.healthy_after)))
        .bind(i64::from(reclaim.jobs_max))
        .bind(now.map(time))
        .bind(CRASHED_TOO_OFTEN)
        .bind(LOST_AT_LAST_ATTEMPT)
        .fetch_all(connection)
        .await
        .map_err(store_error)?;
    let reclaimed = rows.iter().map(reclaimed).collect::<Result<_, _>>();
    Ok(Reply::Reclaimed(reclaimed.map_err(reply_lost)?))
}

fn reclaimed(row: &PgRow) -> Result<Reclaimed, sqlx::Error> {
    let job_type: String = get(row, "job_type")?;
    Ok(Reclaimed {
        run: get_run(row)?,
        job_type: job_type.into(),
        attempt: get_count(row, "attempt")?,
        end: if get(row, "abandoned")? {
            RunEnd::Abandoned
        } else {
            RunEnd::Lost
        },
    })
}

fn of<'a, T>(policies: &'a [TypePolicy], field: impl Fn(&'a TypePolicy) -> T) -> Vec<T> {
    policies.iter().map(field).collect()
}
