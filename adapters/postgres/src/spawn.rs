//! Creating jobs.

use std::collections::{BTreeMap, BTreeSet};

use job_engine::store::{NewJob, Spawned};
use job_engine::{Command, JobId, Reply, StoreError, Timestamp};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use sqlx::postgres::types::PgInterval;
use uuid::Uuid;

use crate::convert::{Time, due, get, time, time_max};
use crate::error::{reply_lost, store_error};
use crate::store::PostgresStore;

/// Bytes of configs in one statement, unless a single one is longer. Postgres
/// takes messages up to 1 GiB, and holds the text more than once meanwhile.
const STATEMENT_LEN_MAX: usize = 64 * 1024 * 1024;

/// Whether a command takes more than one statement that writes.
pub(crate) fn needs_transaction(command: &Command) -> bool {
    matches!(command, Command::Spawn(jobs) if split(jobs).len() > 1)
}

/// Creates jobs by one statement, or a few in the transaction of `connection`.
pub(crate) async fn spawn(
    store: &PostgresStore,
    connection: &mut PgConnection,
    now: Option<Timestamp>,
    jobs: &[NewJob],
) -> Result<Reply, StoreError> {
    let mut spawned = Vec::with_capacity(jobs.len());
    for part in split(jobs) {
        spawned.extend(spawn_part(store, connection, now, part).await?);
    }
    Ok(Reply::Spawned(spawned))
}

/// Parts that one statement each can create: without an id twice, and not too
/// long. Consecutive, so that each job is still decided after those before it.
fn split(jobs: &[NewJob]) -> Vec<&[NewJob]> {
    let mut parts = Vec::new();
    let (mut start, mut len) = (0, 0);
    let mut ids = BTreeSet::new();
    for (at, job) in jobs.iter().enumerate() {
        len += job.config.as_str().len();
        if (len > STATEMENT_LEN_MAX && at > start) || ids.contains(&job.id) {
            parts.push(&jobs[start..at]);
            (start, len) = (at, job.config.as_str().len());
            ids.clear();
        }
        ids.insert(job.id);
    }
    if start < jobs.len() {
        parts.push(&jobs[start..]);
    }
    parts
}

/// The order in which two batches with jobs in common, in ids or in unique
/// types, wait for each other in one direction only. Of those with the same
/// unique type the first stays the first.
fn lock_order(jobs: &[NewJob]) -> Vec<&NewJob> {
    let mut sorted: Vec<&NewJob> = jobs.iter().collect();
    sorted.sort_by(|a, b| match (a.unique_type, b.unique_type) {
        (true, true) => a.job_type.cmp(&b.job_type),
        (false, false) => a.id.cmp(&b.id),
        (a, b) => a.cmp(&b),
    });
    sorted
}

async fn spawn_part(
    store: &PostgresStore,
    connection: &mut PgConnection,
    now: Option<Timestamp>,
    jobs: &[NewJob],
) -> Result<Vec<Spawned>, StoreError> {
    let sorted = lock_order(jobs);
    let (due_at, delay): (Vec<Option<Time>>, Vec<Option<PgInterval>>) =
        sorted.iter().map(|job| due(job.due)).unzip();
    let rows = store
        .query(&store.sql().spawn)
        .bind(of(&sorted, |job| job.id.0))
        .bind(of(&sorted, |job| job.job_type.as_str()))
        .bind(of(&sorted, |job| job.unique_type))
        .bind(of(&sorted, |job| job.config.as_str()))
        .bind(of(&sorted, |job| job.trace.as_deref()))
        .bind(of(&sorted, |job| job.token))
        .bind(due_at)
        .bind(delay)
        .bind(now.map(time))
        .bind(time_max())
        .fetch_all(&mut *connection)
        .await
        .map_err(store_error)?;
    let ids = rows.iter().map(|row| get(row, "id").map(JobId));
    let created: BTreeSet<JobId> = ids.collect::<Result<_, _>>().map_err(reply_lost)?;
    let refused: Vec<Uuid> = jobs
        .iter()
        .filter(|job| !created.contains(&job.id))
        .map(|job| job.id.0)
        .collect();
    let existing = if refused.is_empty() {
        BTreeMap::new()
    } else {
        let rows = store.query(&store.sql().spawned).bind(refused);
        let rows = rows.fetch_all(connection).await.map_err(reply_lost)?;
        let tokens = rows.iter().map(token).collect::<Result<_, _>>();
        tokens.map_err(reply_lost)?
    };
    jobs.iter()
        .map(|job| {
            if created.contains(&job.id) {
                return Ok(Spawned::Created);
            }
            match existing.get(&job.id) {
                Some(token) if *token == job.token => Ok(Spawned::Created),
                Some(_) => Ok(Spawned::DuplicateId),
                None if job.unique_type => Ok(Spawned::DuplicateUniqueType),
                // Only somebody who deletes jobs by hand gets here.
                None => Err(StoreError::Unknown(format!(
                    "the job that kept {} from being created is gone",
                    job.id
                ))),
            }
        })
        .collect()
}

fn of<'a, T>(jobs: &[&'a NewJob], field: impl Fn(&'a NewJob) -> T) -> Vec<T> {
    jobs.iter().copied().map(field).collect()
}

fn token(row: &PgRow) -> Result<(JobId, i64), sqlx::Error> {
    Ok((JobId(get(row, "id")?), get(row, "spawn_token")?))
}

#[cfg(test)]
mod tests {
    use job_engine::{Due, JobType, Payload};

    use super::*;

    fn job(id: u128, job_type: &'static str, unique_type: bool, len: usize) -> NewJob {
        NewJob {
            id: JobId(Uuid::from_u128(id)),
            job_type: JobType::new(job_type),
            unique_type,
            due: Due::Now,
            config: Payload::from_json(" ".repeat(len)),
            trace: None,
            token: 1,
        }
    }

    fn check_split(jobs: &[NewJob], expected: &[usize]) {
        let lens: Vec<usize> = split(jobs).iter().map(|part| part.len()).collect();
        assert_eq!(lens, expected);
    }

    #[test]
    fn a_batch_is_split_before_an_id_that_it_has_already() {
        check_split(&[], &[]);
        let [a, b] = [job(1, "a", false, 0), job(2, "a", false, 0)];
        check_split(&[a.clone(), b.clone()], &[2]);
        check_split(&[a.clone(), b.clone(), a.clone(), b.clone()], &[2, 2]);
        check_split(&[a.clone(), a.clone(), a, b], &[1, 1, 2]);
    }

    #[test]
    fn a_batch_is_split_where_it_gets_too_long() {
        let long = STATEMENT_LEN_MAX;
        let jobs = [job(1, "a", false, long), job(2, "a", false, 1)];
        check_split(&jobs, &[1, 1]);
        let jobs = [job(1, "a", false, long - 1), job(2, "a", false, 1)];
        check_split(&jobs, &[2]);
    }

    #[test]
    fn of_two_unique_jobs_of_a_type_the_first_stays_the_first() {
        let jobs = [
            job(9, "b", true, 0),
            job(1, "b", true, 0),
            job(8, "a", true, 0),
            job(7, "z", false, 0),
            job(3, "z", false, 0),
        ];
        let ids = lock_order(&jobs).into_iter().map(|job| job.id.0.as_u128());
        assert_eq!(ids.collect::<Vec<_>>(), [3, 7, 8, 9, 1]);
    }
}
