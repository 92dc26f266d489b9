//! Ending runs.

use std::collections::BTreeSet;

use job_engine::store::{Finish, Outcome, Written};
use job_engine::{Due, Reply, Run, StoreError, Timestamp, WorkerId};
use sqlx::postgres::types::PgInterval;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres};

use crate::convert::{Time, corrupt, count, due, get, get_run, get_runs, time, time_max};
use crate::error::{reply_lost, store_error};
use crate::lease::{Columns, columns};
use crate::store::{Owner, PostgresStore};

/// One statement ends the runs. When it did not find some of them running,
/// another reads how they ended: the history is only appended to, so its answer
/// holds whenever it is given, and they need no transaction around them.
pub(crate) async fn finish(
    store: &PostgresStore,
    owner: Owner,
    connection: &mut PgConnection,
    now: Option<Timestamp>,
    finishes: &[Finish],
) -> Result<Reply, StoreError> {
    // In which order it locks several is up to its plan, and so to the settings.
    let ordered = owner == Owner::Worker || finishes.len() == 1;
    let ended = if ordered && let Some(worker) = final_of(finishes) {
        let finish = store.query_on(owner, &store.sql().finish_final);
        // In the order of their ids, in which the rows are to be locked.
        let mut in_order: Vec<&Finish> = finishes.iter().collect();
        in_order.sort_unstable_by_key(|f| f.run);
        let row = bind_final(finish, now, worker, &in_order).fetch_one(&mut *connection);
        let row = row.await.map_err(store_error)?;
        let Some(ended) = some_ended(&row, &in_order).map_err(reply_lost)? else {
            return Ok(Reply::Finished(vec![Written::Applied; finishes.len()]));
        };
        ended
    } else {
        let finish = store.query_on(owner, &store.sql().finish);
        let rows = bind(finish, now, finishes).fetch_all(&mut *connection);
        get_runs(&rows.await.map_err(store_error)?).map_err(reply_lost)?
    };
    let repeated = if ended.len() == finishes.len() {
        BTreeSet::new()
    } else {
        let others = finishes.iter().map(|f| &f.run);
        let Columns { jobs, fences, .. } = columns(others.filter(|run| !ended.contains(run)));
        let rows = store.query_on(owner, &store.sql().finished);
        let rows = rows
            .bind(jobs)
            .bind(fences)
            .fetch_all(connection)
            .await
            .map_err(reply_lost)?;
        let ends = rows.iter().map(ended_run).collect::<Result<_, _>>();
        ends.map_err(reply_lost)?
    };
    let written = finishes.iter().map(|f| {
        let code = f.outcome.end().code();
        if ended.contains(&f.run) || repeated.contains(&(f.run, code)) {
            Written::Applied
        } else {
            Written::Stale
        }
    });
    Ok(Reply::Finished(written.collect()))
}

/// Whose runs all of these are, if it is one worker, and no job goes back to pending.
fn final_of(finishes: &[Finish]) -> Option<WorkerId> {
    let worker = finishes.first()?.run.claim.worker;
    let mut finishes = finishes.iter();
    finishes
        .all(|f| f.outcome.end().is_final() && f.run.claim.worker == worker)
        .then_some(worker)
}

/// Which runs were ended; `None` if all of `asked` were.
fn some_ended(row: &PgRow, asked: &[&Finish]) -> Result<Option<BTreeSet<Run>>, sqlx::Error> {
    if usize::try_from(get::<i64>(row, "ended")?) == Ok(asked.len()) {
        return Ok(None);
    }
    // Counted from one.
    let places: Option<Vec<i64>> = get(row, "places")?;
    let runs = places.into_iter().flatten().map(|place| {
        let place = usize::try_from(place - 1).ok();
        let finish = place.and_then(|place| asked.get(place));
        finish
            .map(|finish| finish.run)
            .ok_or_else(|| corrupt("places", "no place in the input"))
    });
    runs.collect::<Result<_, _>>().map(Some)
}

/// When the job runs next, as a time or as a delay; neither if it does not.
fn next_due(outcome: &Outcome) -> (Option<Time>, Option<PgInterval>) {
    match outcome {
        Outcome::Completed | Outcome::Errored { .. } => (None, None),
        Outcome::Rescheduled { due: at } | Outcome::Snoozed { due: at } => due(*at),
        Outcome::Retried { delay, .. } | Outcome::Undecodable { delay, .. } => due(Due::In(*delay)),
        Outcome::Released | Outcome::Interrupted => due(Due::Now),
    }
}

/// The attempt of the next run; `None` keeps it.
fn next_attempt(outcome: &Outcome) -> Option<i32> {
    match outcome {
        Outcome::Rescheduled { .. } => Some(1),
        Outcome::Retried { attempt, .. } => Some(count(*attempt)),
        Outcome::Snoozed { .. }
        | Outcome::Released
        | Outcome::Interrupted
        | Outcome::Undecodable { .. }
        | Outcome::Completed
        | Outcome::Errored { .. } => None,
    }
}

fn ended_run(row: &PgRow) -> Result<(Run, i16), sqlx::Error> {
    Ok((get_run(row)?, get(row, "run_end")?))
}

fn bind<'q>(
    finish: Query<'q, Postgres, PgArguments>,
    now: Option<Timestamp>,
    finishes: &'q [Finish],
) -> Query<'q, Postgres, PgArguments> {
    let (due_at, delay): (Vec<Option<Time>>, Vec<Option<PgInterval>>) =
        finishes.iter().map(|f| next_due(&f.outcome)).unzip();
    finish
        .bind(of(finishes, |f| f.run.job.0))
        .bind(of(finishes, |f| f.run.fence.0))
        .bind(of(finishes, |f| f.outcome.end().code()))
        .bind(of(finishes, |f| f.outcome.error().map(|e| e.as_str())))
        .bind(of(finishes, |f| next_attempt(&f.outcome)))
        .bind(due_at)
        .bind(delay)
        .bind(now.map(time))
        .bind(time_max())
        .bind(of(finishes, |f| f.run.claim.worker.0))
        .bind(of(finishes, |f| f.run.claim.seq))
}

fn bind_final<'q>(
    finish: Query<'q, Postgres, PgArguments>,
    now: Option<Timestamp>,
    worker: WorkerId,
    finishes: &[&'q Finish],
) -> Query<'q, Postgres, PgArguments> {
    finish
        .bind(of(finishes.iter().copied(), |f| f.run.job.0))
        .bind(of(finishes.iter().copied(), |f| f.run.fence.0))
        .bind(of(finishes.iter().copied(), |f| f.outcome.end().code()))
        .bind(of(finishes.iter().copied(), |f| {
            f.outcome.error().map(|e| e.as_str())
        }))
        .bind(now.map(time))
        .bind(worker.0)
        .bind(of(finishes.iter().copied(), |f| f.run.claim.seq))
}

fn of<'a, T>(
    finishes: impl IntoIterator<Item = &'a Finish>,
    field: impl Fn(&'a Finish) -> T,
) -> Vec<T> {
    finishes.into_iter().map(field).collect()
}
