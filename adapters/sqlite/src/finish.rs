//! Ending runs.

use std::collections::{BTreeMap, BTreeSet};

use job_engine::lifecycle::RunEnd;
use job_engine::limits::COUNT_MAX;
use job_engine::store::{Finish, Outcome, Written};
use job_engine::{Reply, Run, StoreError, Timestamp};
use serde_json::{Value, json};
use sqlx::SqliteConnection;

use crate::error::failed;
use crate::row::{get, hex, run, runs};
use crate::sql;

pub(crate) async fn finish(
    connection: &mut SqliteConnection,
    now: Timestamp,
    finishes: &[Finish],
) -> Result<Reply, StoreError> {
    let ends = finishes.iter().map(|finish| {
        let (next_due, next_attempt) = match &finish.outcome {
            Outcome::Completed | Outcome::Errored { .. } => (None, None),
            Outcome::Rescheduled { due } => (Some(due.resolve(now)), Some(1)),
            Outcome::Retried { delay, attempt, .. } => (
                Some(now.saturating_add(*delay)),
                Some((*attempt).min(COUNT_MAX)),
            ),
            Outcome::Released => (Some(now), None),
        };
        End {
            run: finish.run,
            end: finish.outcome.end(),
            error: finish.outcome.error().map(ToString::to_string),
            next_attempt,
            next_due,
            crashes: None,
        }
    });
    let ended = end_runs(connection, now, ends).await?;
    let mut known = BTreeMap::new();
    if ended.len() < finishes.len() {
        let others = finishes.iter().filter(|f| !ended.contains(&f.run));
        let input = others.map(|f| json!([hex(f.run.job), f.run.fence.0]));
        let rows = sqlx::query(sql::FINISHED)
            .bind(input.collect::<Value>().to_string())
            .fetch_all(connection)
            .await
            .map_err(failed)?;
        for row in &rows {
            known.insert(run(row)?, RunEnd::from_code(get(row, "run_end")?));
        }
    }
    let written = finishes.iter().map(|finish| {
        let repeated = known.get(&finish.run) == Some(&Some(finish.outcome.end()));
        if repeated || ended.contains(&finish.run) {
            Written::Applied
        } else {
            Written::Stale
        }
    });
    Ok(Reply::Finished(written.collect()))
}

/// The end of one run, and what follows for its job.
pub(crate) struct End {
    pub(crate) run: Run,
    pub(crate) end: RunEnd,
    pub(crate) error: Option<String>,
    /// `None` keeps the attempt.
    pub(crate) next_attempt: Option<u32>,
    /// `None` if the job is over.
    pub(crate) next_due: Option<Timestamp>,
    /// Crashes in a row; `None` for none.
    pub(crate) crashes: Option<u32>,
}

/// Ends those runs that hold the current fence, and tells which.
pub(crate) async fn end_runs(
    connection: &mut SqliteConnection,
    now: Timestamp,
    ends: impl Iterator<Item = End>,
) -> Result<BTreeSet<Run>, StoreError> {
    let mut any = (false, false, false);
    let input = ends.map(|end| {
        any.0 |= end.next_due.is_none();
        any.1 |= end.next_due.is_some();
        any.2 |= end.crashes.is_some();
        json!([
            hex(end.run.job),
            end.run.fence.0,
            end.end.code(),
            end.error,
            end.next_attempt,
            end.next_due.map(Timestamp::as_micros),
            end.crashes,
        ])
    });
    let input = input.collect::<Value>().to_string();
    let (any_final, any_pending, any_crashed) = any;
    let rows = sqlx::query(sql::FINISH)
        .bind(&input)
        .bind(now.as_micros())
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    let follow_ups = [
        (any_final, sql::FINISH_FINAL),
        (any_pending, sql::FINISH_PENDING),
        (any_crashed, sql::LOSE),
    ];
    for (needed, statement) in follow_ups {
        if needed {
            let query = sqlx::query(statement).bind(&input);
            query.execute(&mut *connection).await.map_err(failed)?;
        }
    }
    runs(&rows)
}
