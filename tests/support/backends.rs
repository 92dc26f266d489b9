//! Each backend, opened afresh for a test.

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

impl TestBackend for Postgres {
    type Place = TestDatabase;

    async fn place() -> Self::Place {
        TestDatabase::create().await
    }

    fn on(place: &Self::Place) -> JobSvcConfigBuilder<Self> {
        JobSvcConfig::builder()
            .pg_con(place.url())
            .max_connections(5)
    }

    async fn begin(pool: &Self::Pool) -> Self::Transaction {
        pool.begin().await.expect("a transaction can be begun")
    }
}
