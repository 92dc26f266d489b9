//! One process on a SQLite file, killed again and again: whenever a job is at work,
//! and at random moments of its life.
//!
//! The latter lasts half a minute, or `JOB_SOAK_SECONDS`; `JOB_SOAK_SEED` repeats the
//! choices of an earlier one. At most one process has the file open: the
//! harness only reads it when there is none, and all that is spawned is spawned
//! by the processes.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use job::{CurrentJob, JobCompletion, JobEventKind, JobId, JobState, JobSvcConfig, Jobs, Sqlite};
use serde_json::Value;
use sqlx::{Executor, SqlitePool};
use tokio::sync::Notify;

use super::books::{Books, Clock, Micros};
use super::dice::Dice;
use super::harness::{Happened, judge, lasts, seed};
use super::process::Brief;
use super::spawning::Season;
use super::torment::{Fate, Slot};
use super::{Role, Worker};
use crate::support::{TestInitializer, eventually};

const LASTS: Duration = Duration::from_secs(30);
/// How long what is left may take, once nothing more happens to the process.
const CALM_MAX: Duration = Duration::from_secs(180);

const FATES: [(u64, Fate); 8] = [
    (40, Fate::Kill),
    (24, Fate::Stop),
    (10, Fate::Kill),
    (8, Fate::Ask),
    (10, Fate::Kill),
    (4, Fate::AskAndKill),
    (4, Fate::StopAndKill),
    (4, Fate::AskAndStop),
];

const HAPPENED: Happened = Happened {
    always: &[
        "runs killed at work",
        "taken back at a start",
        "stops",
        "asked to shut down",
    ],
    in_the_long_run: &[
        "lost",
        "interrupted",
        "released",
        "abandoned",
        "overlaps",
        "losers told",
        "losers dropped",
        "stale completions",
        "unanswered spawns that happened",
        "unanswered spawns that did not happen",
    ],
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_on_sqlite_that_is_killed_at_random_keeps_every_promise() {
    let (seed, lasts) = (seed(), lasts(LASTS));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.db");
    let place = path.to_str().expect("the path is a text").to_owned();
    let pool = Sqlite::pool(&place, 1).await.unwrap();
    Sqlite::create(&pool).await.unwrap();
    pool.close().await;
    let clock = Clock::of_machine();
    let from = clock.now();
    let season = Season {
        from,
        until: from + lasts.as_micros() as Micros,
        backlog_max: 60,
        pause_ms_max: 60,
    };
    let mut slot = Slot {
        role: Role::ChaosOnSqlite,
        brief: Brief {
            place: place.clone(),
            seed,
            number: 0,
            season,
            last: false,
        },
        numbers: Arc::new(AtomicU64::new(0)),
        clock,
        calamity: Arc::new(Notify::new()),
        quiet_ms_max: 2_000,
        fates: &FATES,
        fated: 0,
    };
    let (mut processes, survivor) = slot.torment(&mut Dice::new(seed, 0)).await;
    processes.push(survivor.kill());
    slot.brief.last = true;
    let last = slot.start();
    processes.push(last.end_by_itself(CALM_MAX).await);
    let service = Sqlite::service(&place).build().unwrap();
    let jobs = Jobs::init(service).await.unwrap();
    judge(&jobs, jobs.pool(), processes, lasts, &HAPPENED).await;
}

/// One more than the crashes in a row that end a job by default.
const KILLS: i64 = 11;

/// The life of a process whose jobs take longer than it lives, until there is a row in
/// the table `gates`. The lease is the default, minutes.
pub async fn be_stuck(path: &str) {
    let mut jobs = service(path).await;
    jobs.add_initializer(TestInitializer::new("stuck", wait_for_the_gate));
    jobs.start_poll().await.unwrap();
    std::future::pending::<()>().await;
}

async fn service(path: &str) -> Jobs<Sqlite> {
    let config = JobSvcConfig::sqlite().path(path).build();
    Jobs::init(config.unwrap()).await.unwrap()
}

async fn wait_for_the_gate(
    job: CurrentJob<Sqlite>,
    _: Value,
) -> Result<JobCompletion<Sqlite>, String> {
    let begun = sqlx::query("INSERT INTO begun (attempt) VALUES ($1)").bind(job.attempt());
    let begun = begun.execute(job.pool()).await;
    begun.map_err(|error| error.to_string())?;
    while count(job.pool(), "gates").await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(JobCompletion::Complete)
}

async fn count(pool: &SqlitePool, table: &str) -> i64 {
    let count = format!("SELECT count(*) FROM {table}");
    sqlx::query_scalar(&count).fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_process_is_killed_again_and_again_runs_at_each_start_at_its_first_attempt() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.db");
    let place = path.to_str().expect("the path is a text");
    let mut jobs = service(place).await;
    let tables = "CREATE TABLE begun (attempt integer); CREATE TABLE gates (open integer)";
    jobs.pool().execute(tables).await.unwrap();
    let spawner = jobs.add_initializer(TestInitializer::completing("stuck"));
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    // This process must not be one that uses the file.
    jobs.shutdown().await.unwrap();
    jobs.pool().close().await;
    drop((jobs, spawner));
    let pool = Sqlite::pool(place, 1).await.unwrap();
    for kill in 1..=KILLS {
        let _killed = Worker::start(Role::StuckOnSqlite, place);
        eventually("the job is at work", async || {
            (count(&pool, "begun").await >= kill).then_some(())
        })
        .await;
    }
    pool.execute("INSERT INTO gates VALUES (1)").await.unwrap();
    let last = Worker::start(Role::StuckOnSqlite, place);
    eventually("the job ends", async || {
        (count(&pool, "job_live").await == 0).then_some(())
    })
    .await;
    drop(last);
    let job = service(place).await.find(id).await.unwrap();
    assert_eq!(job.state(), JobState::Completed);
    let events = job.events().iter().map(|event| &event.kind);
    let aborted = events
        .clone()
        .filter(|kind| matches!(kind, JobEventKind::Aborted));
    assert_eq!(aborted.count() as i64, KILLS);
    let attempts = events.filter_map(|kind| match kind {
        JobEventKind::Started { attempt, .. } => Some(*attempt),
        _ => None,
    });
    assert_eq!(Vec::from_iter(attempts), [1; KILLS as usize + 1]);
}
