//! One process on a SQLite file, killed again and again, at random moments of
//! its life.
//!
//! It lasts half a minute, or `JOB_SOAK_SECONDS`; `JOB_SOAK_SEED` repeats the
//! choices of an earlier one. At most one process has the file open: the
//! harness only reads it when there is none, and all that is spawned is spawned
//! by the processes.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use job::{Jobs, Sqlite};
use tokio::sync::Notify;

use super::Role;
use super::books::{Books, Clock, Micros};
use super::dice::Dice;
use super::harness::{Happened, judge, lasts, seed};
use super::process::Brief;
use super::spawning::Season;
use super::torment::{Fate, Slot};

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
    always: &["runs killed at work", "lost", "stops", "asked to shut down"],
    in_the_long_run: &[
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
