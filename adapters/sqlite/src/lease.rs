//! What a run writes while it runs: heartbeats and checkpoints.

use job_engine::store::{Checkpoint, Heartbeat, Written};
use job_engine::{Reply, StoreError, Timestamp};
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
    let input: Vec<_> = input.map(|run| (hex(run.job), run.fence.0)).collect();
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
        .execute(connection)
        .await
        .map_err(failed)?;
    Ok(Reply::Checkpointed(match kept.rows_affected() {
        0 => Written::Stale,
        _ => Written::Applied,
    }))
}
