//! Creating jobs.

use std::collections::{BTreeMap, BTreeSet};

use job_engine::store::{NewJob, Spawned};
use job_engine::{Command, JobId, Reply, StoreError, Timestamp};
use sqlx::postgres::types::PgInterval;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres};

use crate::convert::{Time, due, get, time, time_max};
use crate::error::{reply_lost, store_error};
use crate::store::{Owner, PostgresStore};

/// Bytes of configs in one statement, unless a single one is longer. Postgres
/// takes messages up to 1 GiB, and holds the text more than once meanwhile.
const STATEMENT_LEN_MAX: usize = 64 * 1024 * 1024;

/// Whether a command may take more than one statement that writes.
pub(crate) fn needs_transaction(command: &Command) -> bool {
    let Command::Spawn(jobs) = command else {
        return false;
    };
    let ids: BTreeSet<JobId> = jobs.iter().map(|job| job.id).collect();
    ids.len() < jobs.len() || split(jobs.iter().collect()).len() > 1
}

/// Creates jobs by one statement, or a few in the transaction of `connection`.
///
/// Each job is decided after those before it. An id that comes again is decided by
/// what became of it before; only where that was refused for its unique type, the id
/// is still free, and takes another statement.
pub(crate) async fn spawn(
    store: &PostgresStore,
    connection: &mut PgConnection,
    now: Option<Timestamp>,
    jobs: &[NewJob],
) -> Result<Reply, StoreError> {
    let mut told: Vec<Option<Spawned>> = vec![None; jobs.len()];
    while told.contains(&None) {
        let round = round(jobs, &told);
        let mut there = There::default();
        for part in split(lock_order(round.iter().map(|at| &jobs[*at]).collect())) {
            spawn_part(store, connection, now, &part, &mut there).await?;
        }
        for at in round {
            told[at] = Some(spawned(&jobs[at], &there)?);
        }
        for (job, told) in jobs.iter().zip(&mut told) {
            if told.is_none() && there.tokens.contains_key(&job.id) {
                *told = Some(spawned(job, &there)?);
            }
        }
    }
    Ok(Reply::Spawned(told.into_iter().flatten().collect()))
}

/// The jobs that can be decided next, at once: the first of each id, unless one that
/// comes before it could take its unique type.
fn round(jobs: &[NewJob], told: &[Option<Spawned>]) -> Vec<usize> {
    let (mut ids, mut types) = (BTreeSet::new(), BTreeSet::new());
    let mut round = Vec::new();
    for (at, job) in jobs.iter().enumerate() {
        if told[at].is_some() {
            continue;
        }
        let first = ids.insert(job.id);
        if first && !(job.unique_type && types.contains(&job.job_type)) {
            round.push(at);
        } else if job.unique_type {
            types.insert(&job.job_type);
        }
    }
    round
}

/// What there is, of the ids and unique types of a batch, once it is carried out.
#[derive(Default)]
struct There {
    tokens: BTreeMap<JobId, i64>,
    unique: BTreeMap<String, JobId>,
}

/// What became of a job, given what there is.
fn spawned(job: &NewJob, there: &There) -> Result<Spawned, StoreError> {
    let existing = there.unique.get(job.job_type.as_str());
    match (there.tokens.get(&job.id), existing) {
        (Some(token), _) if *token == job.token => Ok(Spawned::Created),
        (Some(_), _) => Ok(Spawned::DuplicateId),
        (None, Some(existing)) if job.unique_type => Ok(Spawned::DuplicateUniqueType(*existing)),
        // Only somebody who deletes jobs by hand gets here.
        (None, _) => Err(StoreError::Unknown(format!(
            "the job that kept {} from being created is gone",
            job.id
        ))),
    }
}

/// The order in which two batches with jobs in common, in ids or in unique
/// types, wait for each other in one direction only. Of those with the same
/// unique type the first stays the first.
///
/// A unique job is waited for by its id as well, and no order is right for both: a
/// batch with one can deadlock with a batch that has its id in another way. Then one
/// of them fails, and can be repeated.
fn lock_order(mut jobs: Vec<&NewJob>) -> Vec<&NewJob> {
    jobs.sort_by(|a, b| match (a.unique_type, b.unique_type) {
        (true, true) => a.job_type.cmp(&b.job_type),
        (false, false) => a.id.cmp(&b.id),
        (a, b) => a.cmp(&b),
    });
    jobs
}

/// Parts that are not too long for one statement each, in their order.
fn split(jobs: Vec<&NewJob>) -> Vec<Vec<&NewJob>> {
    let mut parts: Vec<Vec<&NewJob>> = Vec::new();
    let mut len = 0;
    for job in jobs {
        len += job.config.as_str().len();
        match parts.last_mut() {
            Some(part) if len <= STATEMENT_LEN_MAX => part.push(job),
            _ => {
                len = job.config.as_str().len();
                parts.push(vec![job]);
            }
        }
    }
    parts
}

/// Creates jobs by one statement, and adds to `there` what there is then: those that are
/// in it by neither their id nor their type are gone.
async fn spawn_part(
    store: &PostgresStore,
    connection: &mut PgConnection,
    now: Option<Timestamp>,
    jobs: &[&NewJob],
    there: &mut There,
) -> Result<(), StoreError> {
    let spawn = store.query(&store.sql().spawn);
    let rows = bind(spawn, now, jobs).fetch_all(&mut *connection).await;
    let rows = rows.map_err(store_error)?;
    let ids = rows.iter().map(|row| get(row, "id").map(JobId));
    let created: BTreeSet<JobId> = ids.collect::<Result<_, _>>().map_err(reply_lost)?;
    let (new, refused): (Vec<&NewJob>, Vec<&NewJob>) =
        jobs.iter().partition(|job| created.contains(&job.id));
    there
        .tokens
        .extend(new.iter().map(|job| (job.id, job.token)));
    if refused.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = refused.iter().map(|job| job.id.0).collect();
    let rows = store.query_on(Owner::Application, &store.sql().spawned);
    let rows = rows.bind(ids).fetch_all(&mut *connection).await;
    for row in &rows.map_err(reply_lost)? {
        let (id, token) = token(row).map_err(reply_lost)?;
        there.tokens.insert(id, token);
    }
    let types = refused.iter().filter(|job| job.unique_type);
    let types: Vec<_> = types.map(|job| job.job_type.as_str()).collect();
    if !types.is_empty() {
        let rows = store.query_on(Owner::Application, &store.sql().unique_jobs);
        let rows = rows.bind(types).fetch_all(connection).await;
        for row in &rows.map_err(reply_lost)? {
            let (job_type, id) = unique_job(row).map_err(reply_lost)?;
            there.unique.insert(job_type, id);
        }
    }
    Ok(())
}

/// Creates jobs by one statement, or a few in the transaction of `connection`, that
/// fails when one of them is there already: cheaper, where that is rare.
pub(crate) async fn spawn_new(
    store: &PostgresStore,
    connection: &mut PgConnection,
    now: Option<Timestamp>,
    jobs: &[NewJob],
) -> Result<Reply, StoreError> {
    for part in split(lock_order(jobs.iter().collect())) {
        let spawn = store.query(&store.sql().spawn_new);
        let spawned = bind(spawn, now, &part).execute(&mut *connection).await;
        spawned.map_err(store_error)?;
    }
    Ok(Reply::Spawned(vec![Spawned::Created; jobs.len()]))
}

fn bind<'q>(
    spawn: Query<'q, Postgres, PgArguments>,
    now: Option<Timestamp>,
    jobs: &[&'q NewJob],
) -> Query<'q, Postgres, PgArguments> {
    let (due_at, delay): (Vec<Option<Time>>, Vec<Option<PgInterval>>) =
        jobs.iter().map(|job| due(job.due)).unzip();
    spawn
        .bind(of(jobs, |job| job.id.0))
        .bind(of(jobs, |job| job.job_type.as_str()))
        .bind(of(jobs, |job| job.unique_type))
        .bind(of(jobs, |job| job.config.as_str()))
        .bind(of(jobs, |job| job.trace.as_deref()))
        .bind(of(jobs, |job| job.token))
        .bind(due_at)
        .bind(delay)
        .bind(now.map(time))
        .bind(time_max())
}

fn of<'a, T>(jobs: &[&'a NewJob], field: impl Fn(&'a NewJob) -> T) -> Vec<T> {
    jobs.iter().copied().map(field).collect()
}

fn unique_job(row: &PgRow) -> Result<(String, JobId), sqlx::Error> {
    Ok((get(row, "job_type")?, JobId(get(row, "id")?)))
}

fn token(row: &PgRow) -> Result<(JobId, i64), sqlx::Error> {
    Ok((JobId(get(row, "id")?), get(row, "spawn_token")?))
}

#[cfg(test)]
mod tests {
    use job_engine::{Due, JobType, Payload};
    use uuid::Uuid;

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
        let parts = split(jobs.iter().collect());
        let lens: Vec<usize> = parts.iter().map(Vec::len).collect();
        assert_eq!(lens, expected);
    }

    #[test]
    fn a_batch_is_split_where_it_gets_too_long() {
        let long = STATEMENT_LEN_MAX;
        check_split(&[], &[]);
        let jobs = [job(1, "a", false, long), job(2, "a", false, 1)];
        check_split(&jobs, &[1, 1]);
        let jobs = [job(1, "a", false, long - 1), job(2, "a", false, 1)];
        check_split(&jobs, &[2]);
        let jobs = [1, 2, 3].map(|id| job(id, "a", false, long / 2));
        check_split(&jobs, &[2, 1]);
    }

    #[test]
    fn an_id_that_comes_again_waits_and_so_does_what_depends_on_it() {
        let jobs = [
            job(1, "a", true, 0),
            job(1, "b", true, 0),
            job(2, "b", true, 0),
            job(2, "b", false, 0),
            job(3, "b", false, 0),
        ];
        let mut told = vec![None; jobs.len()];
        assert_eq!(round(&jobs, &told), [0, 4]);
        told[0] = Some(Spawned::DuplicateUniqueType(JobId(Uuid::from_u128(9))));
        told[4] = Some(Spawned::Created);
        assert_eq!(round(&jobs, &told), [1, 2]);
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
        let ordered = lock_order(jobs.iter().collect());
        let ids = ordered.into_iter().map(|job| job.id.0.as_u128());
        assert_eq!(ids.collect::<Vec<_>>(), [3, 7, 8, 9, 1]);
    }
}
