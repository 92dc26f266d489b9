//! What was simulated, on the real stores: the commands that the simulated store
//! carried out give the same replies, and leave the same jobs, on Postgres and on
//! SQLite. Needs `DATABASE_URL`; `tests/run` starts a server for it.

#[path = "../../tests/support/database.rs"]
#[expect(dead_code, reason = "no pooler is needed here")]
mod database;
mod kept;

use job_engine::{Command, Timestamp, planted};
use job_postgres::{PostgresStore, StoreOptions};
use job_sim::Keep;
use job_sim::level::Level;
use job_sim::scenario::Scenario;
use job_sqlite::SqliteStore;
use job_tokio::conformance::replay;

use self::database::TestDatabase;

type Commands = Vec<(Timestamp, Command)>;

fn simulated(level: Level, scenario: &Scenario) -> Commands {
    level.run(scenario, Keep::COMMANDS).commands
}

async fn on_postgres(commands: Commands) {
    let database = TestDatabase::create().await;
    let store = PostgresStore::new(database.pool().await, StoreOptions::default()).unwrap();
    store.migrate().await.unwrap();
    replay(store.clone(), commands).await;
    store.close().await;
}

async fn on_sqlite(commands: Commands) {
    let store = SqliteStore::open(":memory:").await.unwrap();
    store.migrate().await.unwrap();
    replay(store, commands).await;
}

async fn on_both(commands: Commands) {
    on_sqlite(commands.clone()).await;
    on_postgres(commands).await;
}

/// Outside of a runtime, as simulations make their own.
fn simulate_and_check(simulate: impl FnOnce() -> Commands) -> usize {
    let commands = simulate();
    let count = commands.len();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(on_both(commands));
    count
}

/// Also as it went while the bug was there, which sends what nothing else sends.
#[test]
fn what_happens_in_every_case_happens_on_the_real_stores() {
    for path in kept::files() {
        let case = kept::read(&path);
        println!("{}", path.display());
        let count = simulate_and_check(|| simulated(case.level, &case.scenario));
        assert!(count > 0);
        if let Some(bug) = case.bug {
            let run = || simulated(case.level, &case.scenario);
            simulate_and_check(|| planted::with(bug, run));
        }
    }
}

fn check_seeds(level: Level, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        println!("seed {seed} of level {}", level.number());
        let count = simulate_and_check(|| simulated(level, &level.scenario(seed)));
        println!("{count} commands");
    }
}

#[test]
fn what_engines_send_in_an_event_loop_gives_the_same_on_the_real_stores() {
    check_seeds(Level::Explorer, 0..10);
}

#[test]
fn what_services_send_on_paused_time_gives_the_same_on_the_real_stores() {
    check_seeds(Level::Paused, 0..3);
}

#[test]
fn what_hosts_of_a_simulated_network_send_gives_the_same_on_the_real_stores() {
    check_seeds(Level::Cluster, 0..3);
}
