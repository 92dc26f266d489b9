//! Creating jobs.

use std::collections::{BTreeMap, BTreeSet};

use job_engine::store::{NewJob, Spawned};
use job_engine::{JobId, Reply, StoreError, Timestamp};
use sqlx::SqliteConnection;

use crate::error::failed;
use crate::row::{corrupt, get, hex, json};
use crate::sql;

/// Bytes of configs that go into one statement, except when a single one is
/// longer: the parameter exists several times over on its way into the tables,
/// and SQLite takes a gigabyte at most.
const PART_BYTES_MAX: usize = 8 * 1024 * 1024;

pub(crate) async fn spawn(
    connection: &mut SqliteConnection,
    now: Timestamp,
    jobs: &[NewJob],
) -> Result<Reply, StoreError> {
    let mut spawned = Vec::with_capacity(jobs.len());
    let mut rest = jobs;
    while !rest.is_empty() {
        let (part, after) = rest.split_at(part_len(rest));
        spawned.extend(spawn_part(connection, now, part).await?);
        rest = after;
    }
    Ok(Reply::Spawned(spawned))
}

/// How many of the jobs go into one statement: no id twice, so that the rows
/// which it returns tell of which job they are.
fn part_len(jobs: &[NewJob]) -> usize {
    let mut ids = BTreeSet::new();
    let mut bytes = 0;
    let fitting = jobs.iter().take_while(|job| {
        bytes += job.config.as_str().len();
        ids.insert(job.id) && bytes <= PART_BYTES_MAX
    });
    fitting.count().max(1)
}

async fn spawn_part(
    connection: &mut SqliteConnection,
    now: Timestamp,
    jobs: &[NewJob],
) -> Result<Vec<Spawned>, StoreError> {
    let specs: Vec<_> = jobs
        .iter()
        .map(|job| {
            (
                hex(job.id.0),
                job.job_type.as_str(),
                i64::from(job.unique_type),
                job.config.as_str(),
                job.trace.as_deref(),
                job.token,
            )
        })
        .collect();
    let rows = sqlx::query(sql::SPAWN)
        .bind(json(&specs))
        .bind(now.as_micros())
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    let created: BTreeSet<JobId> = rows
        .iter()
        .map(|row| get(row, "id").map(JobId))
        .collect::<Result<_, _>>()?;

    let (new, refused): (Vec<_>, Vec<_>) = jobs.iter().partition(|job| created.contains(&job.id));
    if !new.is_empty() {
        let live: Vec<_> = new
            .iter()
            .map(|job| {
                let due_at = job.due.resolve(now).as_micros();
                (hex(job.id.0), job.job_type.as_str(), due_at)
            })
            .collect();
        let live = sqlx::query(sql::SPAWN_LIVE).bind(json(&live));
        live.execute(&mut *connection).await.map_err(failed)?;
    }
    let tokens = if refused.is_empty() {
        BTreeMap::new()
    } else {
        tokens(connection, &refused).await?
    };
    let unique = match refused.iter().any(|job| job.unique_type) {
        true => unique_jobs(connection, &refused).await?,
        false => BTreeMap::new(),
    };
    let spawned = jobs.iter().map(|job| match tokens.get(&job.id) {
        _ if created.contains(&job.id) => Ok(Spawned::Created),
        Some(token) if *token == job.token => Ok(Spawned::Created),
        Some(_) => Ok(Spawned::DuplicateId),
        // Nothing else can have kept it out.
        None => match unique.get(job.job_type.as_str()) {
            Some(existing) => Ok(Spawned::DuplicateUniqueType(*existing)),
            None => Err(corrupt("no trace of what kept a job from being created")),
        },
    });
    spawned.collect()
}

/// The unique jobs of the types of these.
async fn unique_jobs(
    connection: &mut SqliteConnection,
    jobs: &[&NewJob],
) -> Result<BTreeMap<String, JobId>, StoreError> {
    let types: Vec<_> = jobs.iter().map(|job| job.job_type.as_str()).collect();
    let rows = sqlx::query(sql::UNIQUE_JOBS).bind(json(&types));
    let rows = rows.fetch_all(connection).await.map_err(failed)?;
    let rows = rows.iter();
    rows.map(|row| Ok((get(row, "job_type")?, JobId(get(row, "id")?))))
        .collect()
}

/// The spawns that made the jobs which have these ids.
async fn tokens(
    connection: &mut SqliteConnection,
    jobs: &[&NewJob],
) -> Result<BTreeMap<JobId, i64>, StoreError> {
    let ids: Vec<_> = jobs.iter().map(|job| hex(job.id.0)).collect();
    let rows = sqlx::query(sql::SPAWNED).bind(json(&ids));
    let rows = rows.fetch_all(connection).await.map_err(failed)?;
    let rows = rows.iter();
    rows.map(|row| Ok((JobId(get(row, "id")?), get(row, "spawn_token")?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use job_engine::{Due, JobType, Payload};
    use sqlx::types::Uuid;

    use super::*;

    fn job(n: u128, bytes: usize) -> NewJob {
        NewJob {
            id: JobId(Uuid::from_u128(n)),
            job_type: JobType::new("mail"),
            unique_type: false,
            due: Due::Now,
            config: Payload::from_json("1".repeat(bytes)),
            trace: None,
            token: 0,
        }
    }

    #[test]
    fn a_part_has_no_id_twice_and_a_limit_on_its_bytes() {
        let batch = [job(1, 9), job(2, 9), job(1, 9), job(3, 9)];
        assert_eq!(part_len(&batch), 2);
        assert_eq!(part_len(&batch[2..]), 2);
        let half = PART_BYTES_MAX / 2;
        assert_eq!(part_len(&[job(1, half), job(2, half), job(3, 1)]), 2);
        assert_eq!(part_len(&[job(1, PART_BYTES_MAX + 1), job(2, 1)]), 1);
    }
}
