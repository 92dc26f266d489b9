//! What a run writes while it runs: heartbeats and checkpoints.

use job_engine::store::{Checkpoint, Heartbeat, Written};
use job_engine::{ClaimId, Reply, Run, StoreError, Timestamp};
use sqlx::SqliteConnection;

use crate::error::failed;
use crate::row::{hex, json, runs};
use crate::sql;

pub(crate) async fn heartbeat(
    connection: &mut SqliteConnection,
    now: Timestamp,
    heartbeat: &Heartbeat,
) -> Result<Reply, StoreError> {
    let input = heartbeat.runs.iter();
    let input: Vec<_> = input
        .map(|run| {
            let ClaimId { worker, seq } = run.claim;
            (hex(run.job.0), run.fence.0, hex(worker.0), seq)
        })
        .collect();
    let rows = sqlx::query(sql::HEARTBEAT)
        .bind(json(&input))
        .bind(now.saturating_add(heartbeat.lease).as_micros())
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    let renewed = runs(&rows)?;
    let written = heartbeat.runs.iter().map(|run| {
        if renewed.contains(run) {
            Written::Applied
        } else {
            Written::Stale
        }
    });
    Ok(Reply::Heartbeat(written.collect()))
}

pub(crate) async fn checkpoint(
    connection: &mut SqliteConnection,
    checkpoint: &Checkpoint,
) -> Result<Reply, StoreError> {
    let kept = sqlx::query(sql::CHECKPOINT)
        .bind(checkpoint.run.job.0)
        .bind(checkpoint.run.fence.0)
        .bind(checkpoint.state.as_str())
        .bind(checkpoint.run.claim.worker.0)
        .bind(checkpoint.run.claim.seq)
        .execute(connection)
        .await
        .map_err(failed)?;
    Ok(Reply::Checkpointed(match kept.rows_affected() {
        0 => Written::Stale,
        _ => Written::Applied,
    }))
}

pub(crate) async fn hold(connection: &mut SqliteConnection, run: Run) -> Result<Reply, StoreError> {
    let held = sqlx::query(sql::HOLD)
        .bind(run.job.0)
        .bind(run.fence.0)
        .bind(run.claim.worker.0)
        .bind(run.claim.seq);
    let held = held.fetch_optional(connection).await.map_err(failed)?;
    Ok(Reply::Held(match held {
        Some(_) => Written::Applied,
        None => Written::Stale,
    }))
}
