//! What a run writes while it runs: heartbeats and checkpoints.

use job_engine::store::{Checkpoint, Heartbeat, Written};
use job_engine::{Reply, StoreError, Timestamp};
use serde_json::{Value, json};
use sqlx::SqliteConnection;

use crate::error::failed;
use crate::row::{hex, runs};
use crate::sql;

pub(crate) async fn heartbeat(
    connection: &mut SqliteConnection,
    now: Timestamp,
    heartbeat: &Heartbeat,
) -> Result<Reply, StoreError> {
    let input = heartbeat.runs.iter();
    let input = input.map(|run| json!([hex(run.job), run.fence.0]));
    let rows = sqlx::query(sql::HEARTBEAT)
        .bind(input.collect::<Value>().to_string())
        .bind(now.saturating_add(heartbeat.lease).as_micros())
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    let renewed = runs(&rows)?;
    let written = heartbeat
        .runs
        .iter()
        .map(|run| match renewed.contains(run) {
            true => Written::Applied,
            false => Written::Stale,
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
