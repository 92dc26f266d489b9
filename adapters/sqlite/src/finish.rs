//! Ending runs.

use std::collections::{BTreeMap, BTreeSet};

use job_engine::lifecycle::RunEnd;
use job_engine::limits::COUNT_MAX;
use job_engine::store::{Finish, Outcome, Written};
use job_engine::{Reply, Run, StoreError, Timestamp};
use sqlx::SqliteConnection;

use crate::error::failed;
use crate::row::{get, hex, json, run, runs};
use crate::sql;

pub(crate) async fn finish(
    connection: &mut SqliteConnection,
    now: Timestamp,
    finishes: &[Finish],
) -> Result<Reply, StoreError> {
    let ends: Vec<_> = finishes.iter().map(|finish| end(now, finish)).collect();
    let ended = end_runs(connection, now, &ends).await?;
    let others: Vec<_> = finishes
        .iter()
        .filter(|finish| !ended.contains(&finish.run))
        .collect();
    let before = if others.is_empty() {
        BTreeMap::new()
    } else {
        ended_before(connection, &others).await?
    };
    let written = finishes.iter().map(|finish| {
        // A repeat of the write that ended the run is no news.
        let repeated = before.get(&finish.run) == Some(&finish.outcome.end().code());
        if repeated || ended.contains(&finish.run) {
            Written::Applied
        } else {
            Written::Stale
        }
    });
    Ok(Reply::Finished(written.collect()))
}

fn end(now: Timestamp, finish: &Finish) -> End<'_> {
    let next = match &finish.outcome {
        Outcome::Completed | Outcome::Errored { .. } => None,
        Outcome::Rescheduled { due } => Some((due.resolve(now), Some(1), Some(0))),
        Outcome::Snoozed { due } => Some((due.resolve(now), None, Some(0))),
        Outcome::Retried { delay, attempt, .. } => {
            let attempt = (*attempt).min(COUNT_MAX);
            Some((now.saturating_add(*delay), Some(attempt), Some(0)))
        }
        Outcome::Undecodable { delay, .. } => Some((now.saturating_add(*delay), None, None)),
        Outcome::Released | Outcome::Interrupted => Some((now, None, None)),
    };
    End {
        run: finish.run,
        end: finish.outcome.end(),
        error: finish.outcome.error().map(|error| error.as_str()),
        next: next.map(|(due_at, attempt, crashes)| Next {
            due_at,
            attempt,
            crashes,
        }),
    }
}

/// How these runs ended, by the number of their [`RunEnd`].
async fn ended_before(
    connection: &mut SqliteConnection,
    finishes: &[&Finish],
) -> Result<BTreeMap<Run, i16>, StoreError> {
    let input: Vec<_> = finishes
        .iter()
        .map(|finish| (hex(finish.run.job.0), finish.run.fence.0))
        .collect();
    let rows = sqlx::query(sql::FINISHED).bind(json(&input));
    let rows = rows.fetch_all(connection).await.map_err(failed)?;
    let rows = rows.iter();
    rows.map(|row| Ok((run(row)?, get(row, "run_end")?)))
        .collect()
}

/// The end of one run, and what follows for its job.
pub(crate) struct End<'a> {
    pub(crate) run: Run,
    pub(crate) end: RunEnd,
    pub(crate) error: Option<&'a str>,
    /// `None` if the job is over.
    pub(crate) next: Option<Next>,
}

/// A job that is pending again.
pub(crate) struct Next {
    pub(crate) due_at: Timestamp,
    /// `None` keeps the attempt.
    pub(crate) attempt: Option<u32>,
    /// Crashes in a row; `None` keeps them.
    pub(crate) crashes: Option<u32>,
}

/// Ends those runs that hold the current fence, and tells which.
pub(crate) async fn end_runs(
    connection: &mut SqliteConnection,
    now: Timestamp,
    ends: &[End<'_>],
) -> Result<BTreeSet<Run>, StoreError> {
    if ends.is_empty() {
        return Ok(BTreeSet::new());
    }
    let input: Vec<_> = ends
        .iter()
        .map(|end| {
            let next = end.next.as_ref();
            (
                hex(end.run.job.0),
                end.run.fence.0,
                end.end.code(),
                end.error,
                next.and_then(|next| next.attempt),
                next.map(|next| next.due_at.as_micros()),
                next.map(|next| next.crashes),
                hex(end.run.claim.worker.0),
                end.run.claim.seq,
            )
        })
        .collect();
    let input = json(&input);
    let ended = sqlx::query(sql::FINISH)
        .bind(&input)
        .bind(now.as_micros())
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    if ends.iter().any(|end| end.next.is_none()) {
        for statement in [sql::FINISH_FINAL, sql::FORGET] {
            let query = sqlx::query(statement).bind(&input);
            query.execute(&mut *connection).await.map_err(failed)?;
        }
    }
    if ends.iter().any(|end| end.next.is_some()) {
        let query = sqlx::query(sql::FINISH_PENDING).bind(&input);
        let query = query.bind(now.as_micros());
        query.execute(&mut *connection).await.map_err(failed)?;
    }
    runs(&ended)
}
