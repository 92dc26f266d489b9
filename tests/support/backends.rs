//! Each backend, opened afresh for a test.

use std::time::Duration;

use job::{Backend, JobSvcConfig, JobSvcConfigBuilder, Memory, Postgres, Sqlite};

use super::TestDatabase;

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
    type Place = tempfile::TempDir;

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
