//! Each command of the store port, on each store.
//!
//! Postgres is the server that `DATABASE_URL` names; without one it is left out.
//! SQLite writes to a file in the directory for temporary files. All of them start
//! empty, and keep what was done before: the history grows, as it does in production.

mod commands;

use criterion::Criterion;
use job_bench::database::Server;
use job_engine::Timestamp;
use job_postgres::{PostgresStore, StoreOptions};
use job_sqlite::SqliteStore;
use job_tokio::MemoryStore;
use sqlx::PgPool;
use tokio::runtime::Runtime;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    memory(&mut criterion);
    sqlite(&mut criterion);
    postgres(&mut criterion);
    criterion.final_summary();
}

fn memory(criterion: &mut Criterion) {
    let runtime = runtime();
    let store = MemoryStore::new(|| Timestamp::EPOCH);
    commands::bench(criterion, &runtime, "memory", &store);
}

fn sqlite(criterion: &mut Criterion) {
    let runtime = runtime();
    let dir = tempfile::tempdir().expect("a directory can be made");
    let store = runtime.block_on(async {
        let store = SqliteStore::open(dir.path().join("jobs.db")).await;
        let store = store.expect("a new file can be opened");
        store.migrate().await.expect("a new file has no tables");
        store
    });
    commands::bench(criterion, &runtime, "sqlite", &store);
}

fn postgres(criterion: &mut Criterion) {
    let Ok(server) = Server::from_env() else {
        eprintln!("postgres is left out: set DATABASE_URL to a server to measure it");
        return;
    };
    let runtime = runtime();
    let (store, database) = runtime.block_on(async {
        let database = server.create_database().await;
        let database = database.expect("DATABASE_URL names a server that answers");
        let pool = PgPool::connect(&database.url()).await;
        let pool = pool.expect("the database was created");
        let store = PostgresStore::new(pool, StoreOptions::default());
        let store = store.expect("the defaults are allowed");
        store.migrate().await.expect("a new database has no tables");
        (store, database)
    });
    commands::bench(criterion, &runtime, "postgres", &store);
    runtime.block_on(store.close());
    drop(database);
}

fn runtime() -> Runtime {
    Runtime::new().expect("a runtime can be made")
}
