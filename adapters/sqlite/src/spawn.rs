//! Creating jobs.

use std::collections::{BTreeMap, BTreeSet};

use job_engine::store::{NewJob, Spawned};
use job_engine::{JobId, Reply, StoreError, Timestamp};
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use crate::error::failed;
use crate::row::{get, hex};
use crate::sql;

pub(crate) async fn spawn(
    connection: &mut SqliteConnection,
    now: Timestamp,
    jobs: &[NewJob],
) -> Result<Reply, StoreError> {
    let input = jobs.iter().map(|job| {
        json!([
            hex(job.id),
            job.job_type.as_str(),
            i64::from(job.unique_type),
            job.config.as_str(),
            job.trace,
            job.token,
        ])
    });
    let rows = sqlx::query(sql::SPAWN)
        .bind(input.collect::<Value>().to_string())
        .bind(now.as_micros())
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    let mut created: BTreeSet<(JobId, i64)> = tokens(&rows)?.into_iter().collect();
    // A batch can have the same job twice, of which the first counts.
    let mut to_come = created.clone();
    let live = jobs
        .iter()
        .filter(|job| to_come.remove(&(job.id, job.token)))
        .map(|job| {
            let due_at = job.due.resolve(now).as_micros();
            json!([hex(job.id), job.job_type.as_str(), due_at])
        });
    sqlx::query(sql::SPAWN_LIVE)
        .bind(live.collect::<Value>().to_string())
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    let mut existing = BTreeMap::new();
    if created.len() < jobs.len() {
        let ids = jobs.iter().map(|job| Value::from(hex(job.id)));
        let rows = sqlx::query(sql::SPAWNED)
            .bind(ids.collect::<Value>().to_string())
            .fetch_all(connection)
            .await
            .map_err(failed)?;
        existing = tokens(&rows)?.into_iter().collect();
    }
    let spawned = jobs.iter().map(|job| {
        if created.remove(&(job.id, job.token)) {
            return Spawned::Created;
        }
        match existing.get(&job.id) {
            Some(token) if *token == job.token => Spawned::Created,
            Some(_) => Spawned::DuplicateId,
            None => Spawned::DuplicateUniqueType,
        }
    });
    Ok(Reply::Spawned(spawned.collect()))
}

fn tokens(rows: &[SqliteRow]) -> Result<Vec<(JobId, i64)>, StoreError> {
    let rows = rows.iter();
    rows.map(|row| Ok((JobId(get(row, "id")?), get(row, "spawn_token")?)))
        .collect()
}
