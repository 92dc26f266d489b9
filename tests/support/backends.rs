//! Each backend, opened afresh for a test.

use std::time::Duration;

use job::{
    AnyBackend, Backend, JobSpawner, JobSvcConfig, JobSvcConfigBuilder, Jobs, Memory, Postgres,
    Sqlite,
};
use serde_json::Value;
use tempfile::TempDir;

use super::{TestDatabase, TestInitializer};

/// A backend that a test can open.
pub trait TestBackend: Backend {
    /// What keeps the database alive until the test ends.
    type Place: Send;

    /// A new, empty place for jobs.
    async fn place() -> Self::Place;

    /// A service on it.
    fn on(place: &Self::Place) -> JobSvcConfigBuilder<Self>;

    /// Begins a transaction of the application.
    fn begin(pool: &Self::Pool) -> impl Future<Output = Self::Transaction> + Send;

    /// Registers an initializer.
    fn add(jobs: &mut Jobs<Self>, initializer: TestInitializer<Self>) -> JobSpawner<Value, Self> {
        jobs.add_initializer(initializer)
    }
}

impl TestBackend for Memory {
    type Place = ();

    async fn place() {}

    fn on((): &()) -> JobSvcConfigBuilder<Self> {
        JobSvcConfig::memory()
    }

    async fn begin(pool: &Self::Pool) -> Self::Transaction {
        pool.begin().await
    }
}

impl TestBackend for Sqlite {
    type Place = TempDir;

    async fn place() -> Self::Place {
        tempfile::tempdir().expect("a temporary directory can be made")
    }

    fn on(place: &Self::Place) -> JobSvcConfigBuilder<Self> {
        JobSvcConfig::sqlite().path(place.path().join("jobs.db"))
    }

    async fn begin(pool: &Self::Pool) -> Self::Transaction {
        let begun = job::backend::begin_immediate(pool).await;
        begun.expect("a transaction can be begun")
    }
}

tokio::task_local! {
    static BEHIND_A_POOLER: ();
}

/// Runs a test with the databases of Postgres behind a pooler in transaction mode.
pub async fn behind_a_pooler(test: impl Future<Output = ()>) {
    BEHIND_A_POOLER.scope((), test).await;
}

impl TestBackend for Postgres {
    type Place = TestDatabase;

    async fn place() -> Self::Place {
        let database = TestDatabase::create().await;
        match BEHIND_A_POOLER.try_get() {
            Ok(()) => database.behind_a_pooler(),
            Err(_) => database,
        }
    }

    fn on(place: &Self::Place) -> JobSvcConfigBuilder<Self> {
        let config = JobSvcConfig::builder()
            .pg_con(place.url())
            .max_connections(5);
        match place.is_behind_a_pooler() {
            // Some tests let hours pass, and each poll of them takes its time.
            true => config.poll_only(true).poll_interval(Duration::from_secs(3)),
            false => config,
        }
    }

    async fn begin(pool: &Self::Pool) -> Self::Transaction {
        pool.begin().await.expect("a transaction can be begun")
    }
}

tokio::task_local! {
    static DATABASE: Database;
}

#[derive(Clone, Copy)]
enum Database {
    Memory,
    Sqlite,
    Postgres,
}

/// Runs a test with all that is known of the database in a URL of memory.
pub async fn by_url_in_memory(test: impl Future<Output = ()>) {
    DATABASE.scope(Database::Memory, test).await;
}

/// Runs a test with all that is known of the database in a URL of SQLite.
pub async fn by_url_on_sqlite(test: impl Future<Output = ()>) {
    DATABASE.scope(Database::Sqlite, test).await;
}

/// Runs a test with all that is known of the database in a URL of Postgres.
pub async fn by_url_on_postgres(test: impl Future<Output = ()>) {
    DATABASE.scope(Database::Postgres, test).await;
}

/// Where a URL leads to.
pub enum AnyPlace {
    Memory,
    Sqlite(TempDir),
    Postgres(TestDatabase),
}

/// The short way in: a service that was opened by a URL, and functions in place of
/// initializers.
impl TestBackend for AnyBackend {
    type Place = AnyPlace;

    async fn place() -> Self::Place {
        match DATABASE.get() {
            Database::Memory => AnyPlace::Memory,
            Database::Sqlite => AnyPlace::Sqlite(Sqlite::place().await),
            Database::Postgres => AnyPlace::Postgres(TestDatabase::create().await),
        }
    }

    fn on(place: &Self::Place) -> JobSvcConfigBuilder<Self> {
        match place {
            AnyPlace::Memory => Jobs::connect("memory:"),
            AnyPlace::Sqlite(dir) => {
                let file = dir.path().join("jobs.db");
                Jobs::connect(format!("sqlite:{}", file.display()))
            }
            AnyPlace::Postgres(database) => Jobs::connect(database.url()).max_connections(5),
        }
    }

    async fn begin(pool: &Self::Pool) -> Self::Transaction {
        pool.begin().await.expect("a transaction can be begun")
    }

    fn add(jobs: &mut Jobs<Self>, initializer: TestInitializer<Self>) -> JobSpawner<Value, Self> {
        initializer.add_as_function(jobs)
    }
}
