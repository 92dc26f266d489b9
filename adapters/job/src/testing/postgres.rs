//! A schema for each test.

use std::time::{Duration, UNIX_EPOCH};

use sqlx::PgPool;
use uuid::Uuid;

use super::TestJobs;
use crate::error::JobError;
use crate::{JobSvcConfig, Postgres};

const SCHEMA_PREFIX: &str = "job_test_";
/// For so long it may be looked at what a test that failed has left.
const SCHEMA_AGE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// So many are removed at the start of a test, which is not to take long.
const SCHEMAS_SWEPT_MAX: usize = 3;

/// Those whose tables no service uses with an artificial clock, as that of each test is: it
/// holds a lock which stands for one of them.
const UNUSED_SCHEMAS: &str = "
    SELECT nspname FROM pg_namespace AS schema
    WHERE nspname LIKE $1 AND NOT EXISTS (
        SELECT FROM pg_locks AS held
        JOIN pg_class AS relation ON relation.oid = held.classid
        WHERE held.locktype = 'advisory' AND held.objsubid = 2
            AND held.database = (
                SELECT oid FROM pg_database WHERE datname = current_database()
            )
            AND relation.relnamespace = schema.oid
    )
    ORDER BY nspname
";

impl TestJobs<Postgres> {
    /// A service on Postgres, in a schema of its own in the database of this connection
    /// string, so that tests can run side by side. Only the tables of jobs are in it:
    /// those of the application are where they always are.
    ///
    /// [`TestJobs::drop_schema`] removes the schema. A test that fails before leaves it
    /// there to be looked at; its name begins with `job_test_`. What was left for longer than
    /// a day, and no service of a test uses, is dropped here, three schemas a call at most.
    /// Each lock that this takes is waited for up to 5 s; a schema that cannot be dropped
    /// stays, which is no error.
    ///
    /// # Errors
    ///
    /// As [`Jobs::init`](crate::Jobs::init).
    pub async fn postgres(pg_con: impl Into<String>) -> Result<Self, JobError> {
        let schema = format!("{SCHEMA_PREFIX}{}", Uuid::now_v7().simple());
        let config = JobSvcConfig::builder().pg_con(pg_con);
        // Tests are many, and each does one thing at a time.
        let config = config.max_connections(4).schema(&schema);
        let mut test = Self::open(config).await?;
        test.schema = Some(schema);
        sweep(test.jobs().pool()).await;
        Ok(test)
    }

    /// A service on a pool, such as `#[sqlx::test]` gives to each test. Tables that are
    /// missing are made.
    ///
    /// # Errors
    ///
    /// As [`Jobs::init`](crate::Jobs::init).
    ///
    /// # Examples
    ///
    #[doc = "```no_run"]
    #[doc = include_str!("../../../../examples/sqlx_test.rs")]
    #[doc = "```"]
    pub async fn from_pool(pool: PgPool) -> Result<Self, JobError> {
        let config = JobSvcConfig::builder().pool(pool);
        Self::open(config.exec_migrations(true)).await
    }

    /// Removes the schema that [`TestJobs::postgres`] made, with all that is in it.
    ///
    /// # Errors
    ///
    /// When the database does not do it, within 5 s: most likely a transaction of the
    /// test is still open. [`JobError::Config`] if the schema is not of this test.
    pub async fn drop_schema(self) -> Result<(), JobError> {
        let Some(schema) = &self.schema else {
            let text = "only a schema that TestJobs::postgres made is dropped";
            return Err(JobError::Config(text.to_owned()));
        };
        drop_schema(self.jobs().pool(), schema).await?;
        Ok(())
    }
}

/// Removes schemas of tests that failed long ago, a few at a time. Whatever goes wrong with
/// that is no business of the test that does it.
async fn sweep(pool: &PgPool) {
    let schemas: Result<Vec<String>, sqlx::Error> = sqlx::query_scalar(UNUSED_SCHEMAS)
        .bind(format!("{SCHEMA_PREFIX}%").replace('_', r"\_"))
        .fetch_all(pool)
        .await;
    let schemas = schemas.unwrap_or_default();
    let old = schemas.iter().filter(|schema| is_old(schema));
    for schema in old.take(SCHEMAS_SWEPT_MAX) {
        // Another test may be faster, or the schema another's: all that may stay.
        let _ = drop_schema(pool, schema).await;
    }
}

/// Whether a schema of that name was made long ago: its id says when.
fn is_old(schema: &str) -> bool {
    let id = schema.strip_prefix(SCHEMA_PREFIX);
    let id = id.and_then(|name| {
        let id = Uuid::try_parse(name).ok()?;
        (id.get_version_num() == 7 && id.simple().to_string() == name).then_some(id)
    });
    let made = id.and_then(|id| id.get_timestamp());
    made.is_some_and(|made| {
        let made = UNIX_EPOCH + Duration::from_secs(made.to_unix().0);
        made.elapsed().is_ok_and(|age| age > SCHEMA_AGE_MAX)
    })
}

async fn drop_schema(pool: &PgPool, schema: &str) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    for statement in [
        "SET LOCAL lock_timeout = '5s'",
        &format!("DROP SCHEMA \"{schema}\" CASCADE"),
    ] {
        sqlx::query(statement).execute(&mut *transaction).await?;
    }
    transaction.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_schemas_of_tests_of_days_before_are_old() {
        let name = |id: Uuid| format!("{SCHEMA_PREFIX}{}", id.simple());
        assert!(!is_old(&name(Uuid::now_v7())));
        let long_ago = uuid::Timestamp::from_unix(uuid::NoContext, 1_700_000_000, 0);
        assert!(is_old(&name(Uuid::new_v7(long_ago))));
        let upper = name(Uuid::new_v7(long_ago))
            .to_uppercase()
            .replace("JOB_TEST_", "job_test_");
        for others in [
            "job_test_data",
            "public",
            "jobs",
            &name(Uuid::nil()),
            &upper,
        ] {
            assert!(!is_old(others), "{others}");
        }
    }
}
