//! Several worker processes on one Postgres database, killed, stopped and
//! continued at random while jobs are spawned all along.
//!
//! It lasts a minute, or `JOB_SOAK_SECONDS`; `JOB_SOAK_SEED` repeats the
//! choices of an earlier one. What happened is printed: run it with
//! `--nocapture`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use job::{Jobs, Postgres};
use tokio::sync::Notify;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

use super::Role;
use super::books::{Books, Clock, Micros};
use super::dice::Dice;
use super::harness::{Happened, judge, lasts, seed};
use super::process::Brief;
use super::spawning::{Season, Spawners, spawn_for_a_season};
use super::torment::{Fate, Slot, shutdown_max};
use super::workload::Desk;
use crate::support::TestDatabase;

const LASTS: Duration = Duration::from_secs(60);
const PROCESSES: u64 = 4;
/// How long what is left may take, once nothing more happens to the processes.
const CALM_MAX: Duration = Duration::from_secs(180);
/// A spawner that looked at the clock just before the season was over is done
/// by then.
const LAST_SPAWN: Duration = Duration::from_secs(3);

const FATES: [(u64, Fate); 6] = [
    (36, Fate::Stop),
    (28, Fate::Kill),
    (7, Fate::AskAndStop),
    (10, Fate::StopAndKill),
    (12, Fate::Ask),
    (7, Fate::AskAndKill),
];

const HAPPENED: Happened = Happened {
    always: &[
        "runs killed at work",
        "lost",
        "interrupted",
        "overlaps",
        "losers at work",
        "begins cut",
        "unanswered spawns that happened",
    ],
    in_the_long_run: &[
        "unanswered spawns that did not happen",
        "abandoned",
        "losers told",
        "losers dropped",
        "stale completions",
    ],
};

// Streams of the dice; those from 1,000 on belong to the processes.
const SPAWNS: u64 = 0;
const CALAMITIES: u64 = 1;
const SLOTS: u64 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_are_killed_and_stopped_at_random_keep_every_promise() {
    let (seed, lasts) = (seed(), lasts(LASTS));
    let database = TestDatabase::create().await;
    let place = database.url();
    let pool = Postgres::pool(&place, 5).await.unwrap();
    Postgres::create(&pool).await.unwrap();
    let service = Postgres::service(&place).build().unwrap();
    let mut jobs = Jobs::init(service).await.unwrap();
    let from = Postgres::now(&pool).await.unwrap();
    let clock = Clock::set(from);
    let season = |pause_ms_max| Season {
        from,
        until: from + lasts.as_micros() as Micros,
        backlog_max: 150,
        pause_ms_max,
    };
    let brief = Brief {
        place: place.clone(),
        seed,
        number: 0,
        season: season(400),
        last: false,
    };
    let numbers = Arc::new(AtomicU64::new(0));
    let mut torments = JoinSet::new();
    let mut calamities = Vec::new();
    for n in 0..PROCESSES {
        let calamity = Arc::new(Notify::new());
        calamities.push(Arc::clone(&calamity));
        let mut slot = Slot {
            role: Role::ChaosOnPostgres,
            brief: brief.clone(),
            numbers: Arc::clone(&numbers),
            clock,
            calamity,
            quiet_ms_max: 6_000,
            fates: &FATES,
            fated: 0,
        };
        torments.spawn(async move { slot.torment(&mut Dice::new(seed, SLOTS + n)).await });
    }
    // This process spawns, too, and is the only one that lives on.
    let (dropped, _) = unbounded_channel();
    let desk = Arc::new(Desk::<Postgres> {
        pool: pool.clone(),
        worker: Uuid::nil(),
        clock,
        places: AtomicU64::new(0),
        dropped,
    });
    let spawners = Spawners::register(&mut jobs, &desk);
    let dice = Dice::new(seed, SPAWNS);
    let never_enough = AtomicBool::new(false);
    let spawning = spawn_for_a_season(
        &pool,
        jobs.pool(),
        &spawners,
        season(60),
        dice,
        &never_enough,
    );
    let strike = strike(&calamities, Dice::new(seed, CALAMITIES));
    tokio::select! {
        spawned = spawning => spawned.unwrap(),
        never = strike => match never {},
    }
    let (mut processes, mut survivors) = (Vec::new(), Vec::new());
    while let Some(torment) = torments.join_next().await {
        let (ended, survivor) = torment.expect("what happens to a process is as expected");
        processes.extend(ended);
        survivors.push(survivor);
    }
    sleep(LAST_SPAWN).await;
    let calm = Instant::now();
    while let left @ 1.. = Postgres::backlog(&pool).await.unwrap() {
        if calm.elapsed() > CALM_MAX {
            println!("{left} jobs have not ended within {CALM_MAX:?}");
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    println!("calm after {:?}", calm.elapsed());
    for mut survivor in survivors {
        survivor.ask();
        processes.push(survivor.end_by_itself(shutdown_max()).await);
    }
    judge(&jobs, &pool, processes, lasts, &HAPPENED).await;
}

/// Kills two processes at once, now and then.
async fn strike(calamities: &[Arc<Notify>], mut dice: Dice) -> std::convert::Infallible {
    loop {
        sleep(dice.millis(5_000, 12_000)).await;
        let first = dice.within(0, PROCESSES - 1);
        let second = (first + dice.within(1, PROCESSES - 1)) % PROCESSES;
        for n in [first, second] {
            calamities[n as usize].notify_one();
        }
    }
}
