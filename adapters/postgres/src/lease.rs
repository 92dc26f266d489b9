//! What a run writes while it runs: heartbeats and checkpoints; and keeping others from
//! writing.

use job_engine::store::{Checkpoint, Heartbeat, Written};
use job_engine::{Reply, Run, StoreError, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::convert::{get_runs, interval, time, time_max};
use crate::error::{read_error, reply_lost, store_error};
use crate::store::{Owner, PostgresStore};

/// One statement renews; when it passed over some runs, another reads which of
/// those go on. It writes nothing, so they need no transaction around them.
pub(crate) async fn heartbeat(
    store: &PostgresStore,
    owner: Owner,
    connection: &mut PgConnection,
    now: Option<Timestamp>,
    heartbeat: &Heartbeat,
) -> Result<Reply, StoreError> {
    let runs = &heartbeat.runs;
    let named = columns(runs.iter());
    let renewed = store
        .query_on(owner, &store.sql().heartbeat)
        .bind(named.jobs)
        .bind(named.fences)
        .bind(interval(heartbeat.lease))
        .bind(now.map(time))
        .bind(time_max())
        .bind(named.workers)
        .bind(named.seqs);
    let rows = renewed.fetch_all(&mut *connection).await;
    let mut running = get_runs(&rows.map_err(store_error)?).map_err(reply_lost)?;
    if running.len() < runs.len() {
        let passed_over = columns(runs.iter().filter(|run| !running.contains(run)));
        let locked = store.query_on(owner, &store.sql().running);
        let rows = locked
            .bind(passed_over.jobs)
            .bind(passed_over.fences)
            .bind(passed_over.workers)
            .bind(passed_over.seqs)
            .fetch_all(connection)
            .await
            .map_err(reply_lost)?;
        running.extend(get_runs(&rows).map_err(reply_lost)?);
    }
    let written = runs.iter().map(|run| {
        if running.contains(run) {
            Written::Applied
        } else {
            Written::Stale
        }
    });
    Ok(Reply::Heartbeat(written.collect()))
}

pub(crate) async fn checkpoint(
    store: &PostgresStore,
    connection: &mut PgConnection,
    checkpoint: &Checkpoint,
) -> Result<Reply, StoreError> {
    let kept = store
        .query_on(Owner::Application, &store.sql().checkpoint)
        .bind(checkpoint.run.job.0)
        .bind(checkpoint.run.fence.0)
        .bind(checkpoint.state.as_str())
        .bind(checkpoint.run.claim.worker.0)
        .bind(checkpoint.run.claim.seq);
    let row = kept.fetch_optional(connection).await.map_err(store_error)?;
    Ok(Reply::Checkpointed(match row {
        Some(_) => Written::Applied,
        None => Written::Stale,
    }))
}

pub(crate) async fn hold(
    store: &PostgresStore,
    connection: &mut PgConnection,
    run: Run,
) -> Result<Reply, StoreError> {
    let hold = store
        .query_on(Owner::Application, &store.sql().hold)
        .bind(run.job.0)
        .bind(run.fence.0)
        .bind(run.claim.worker.0)
        .bind(run.claim.seq);
    let row = hold.fetch_optional(connection).await.map_err(read_error)?;
    Ok(Reply::Held(match row {
        Some(_) => Written::Applied,
        None => Written::Stale,
    }))
}

/// Runs as parameters.
pub(crate) struct Columns {
    pub(crate) jobs: Vec<Uuid>,
    pub(crate) fences: Vec<i64>,
    pub(crate) workers: Vec<Uuid>,
    pub(crate) seqs: Vec<i64>,
}

pub(crate) fn columns<'a>(runs: impl Iterator<Item = &'a Run>) -> Columns {
    let runs: Vec<&Run> = runs.collect();
    Columns {
        jobs: runs.iter().map(|run| run.job.0).collect(),
        fences: runs.iter().map(|run| run.fence.0).collect(),
        workers: runs.iter().map(|run| run.claim.worker.0).collect(),
        seqs: runs.iter().map(|run| run.claim.seq).collect(),
    }
}
