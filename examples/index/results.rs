//! Where the results are kept: beside the jobs, in the same database.

use std::collections::BTreeSet;
use std::path::Path;

use async_trait::async_trait;
use job::{Backend, JobId, Postgres, Sqlite};

use crate::facts::Facts;

/// The sums over all files.
#[derive(Default)]
pub struct Summary {
    pub files: u64,
    pub bytes: u64,
    pub lines: u64,
    pub duplicates: u64,
    pub unreadable: u64,
    pub largest: Option<(String, u64)>,
}

/// One row of results, as the summary reads it.
type Row = (JobId, String, i64, i64, Option<String>);

/// What the example needs of a database, beyond the jobs.
#[async_trait]
pub trait Results: Backend {
    async fn create_tables(pool: &Self::Pool) -> Result<(), sqlx::Error>;

    async fn begin(pool: &Self::Pool) -> Result<Self::Transaction, sqlx::Error>;

    async fn commit(transaction: Self::Transaction) -> Result<(), sqlx::Error>;

    /// Writes what is known of a file in a transaction, which is returned open.
    async fn store(
        pool: &Self::Pool,
        job: JobId,
        path: &Path,
        facts: &Result<Facts, String>,
    ) -> Result<Self::Transaction, sqlx::Error>;

    /// The jobs whose results are there.
    async fn done(pool: &Self::Pool) -> Result<Vec<JobId>, sqlx::Error>;

    /// All results.
    async fn rows(pool: &Self::Pool) -> Result<Vec<Row>, sqlx::Error>;

    /// The sums over the results of these jobs.
    async fn summary(pool: &Self::Pool, ids: &BTreeSet<JobId>) -> Result<Summary, sqlx::Error> {
        let mut summary = Summary::default();
        let mut seen = BTreeSet::new();
        for (id, path, size, lines, sha256) in Self::rows(pool).await? {
            if !ids.contains(&id) {
                continue; // of another directory, or since changed
            }
            let (size, lines) = (size.unsigned_abs(), lines.unsigned_abs());
            summary.files += 1;
            summary.bytes += size;
            summary.lines += lines;
            match sha256 {
                None => summary.unreadable += 1,
                Some(sha256) => summary.duplicates += u64::from(!seen.insert(sha256)),
            }
            if summary
                .largest
                .as_ref()
                .is_none_or(|(_, largest)| size > *largest)
            {
                summary.largest = Some((path, size));
            }
        }
        Ok(summary)
    }
}

/// Both databases understand the same statements.
macro_rules! impl_results {
    ($backend:ty, $id:literal, $begin:path) => {
        #[async_trait]
        impl Results for $backend {
            async fn create_tables(pool: &Self::Pool) -> Result<(), sqlx::Error> {
                let create = concat!(
                    "CREATE TABLE IF NOT EXISTS file_facts (job_id ",
                    $id,
                    " PRIMARY KEY, path TEXT NOT NULL, size BIGINT NOT NULL, ",
                    "lines BIGINT NOT NULL, sha256 TEXT, error TEXT)"
                );
                sqlx::query(create).execute(pool).await?;
                Ok(())
            }

            async fn begin(pool: &Self::Pool) -> Result<Self::Transaction, sqlx::Error> {
                $begin(pool).await
            }

            async fn commit(transaction: Self::Transaction) -> Result<(), sqlx::Error> {
                transaction.commit().await
            }

            async fn store(
                pool: &Self::Pool,
                job: JobId,
                path: &Path,
                facts: &Result<Facts, String>,
            ) -> Result<Self::Transaction, sqlx::Error> {
                let insert = "INSERT INTO file_facts (job_id, path, size, lines, sha256, error) \
                              VALUES ($1, $2, $3, $4, $5, $6)";
                let known = facts.as_ref().ok();
                let mut transaction = Self::begin(pool).await?;
                sqlx::query(insert)
                    .bind(job)
                    .bind(path.display().to_string())
                    .bind(known.map_or(0, |facts| facts.size.cast_signed()))
                    .bind(known.map_or(0, |facts| facts.lines.cast_signed()))
                    .bind(known.map(|facts| facts.sha256.as_str()))
                    .bind(facts.as_ref().err())
                    .execute(&mut *transaction)
                    .await?;
                Ok(transaction)
            }

            async fn done(pool: &Self::Pool) -> Result<Vec<JobId>, sqlx::Error> {
                let done = sqlx::query_scalar("SELECT job_id FROM file_facts");
                done.fetch_all(pool).await
            }

            async fn rows(pool: &Self::Pool) -> Result<Vec<Row>, sqlx::Error> {
                let rows = "SELECT job_id, path, size, lines, sha256 FROM file_facts";
                sqlx::query_as(rows).fetch_all(pool).await
            }
        }
    };
}

impl_results!(Postgres, "UUID", sqlx::Pool::begin);
// SQLite has one writer: taking its place at once, instead of at the first
// write, makes a transaction wait for it and not fail.
impl_results!(Sqlite, "BLOB", job::backend::begin_immediate);
