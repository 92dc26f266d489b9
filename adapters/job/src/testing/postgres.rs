//! A schema for each test.

use uuid::Uuid;

use super::TestJobs;
use crate::error::JobError;
use crate::{JobSvcConfig, Postgres};

impl TestJobs<Postgres> {
    /// A service on Postgres, in a schema of its own in the database of this connection
    /// string, so that tests can run side by side. Only the tables of jobs are in it:
    /// those of the application are where they always are.
    ///
    /// [`TestJobs::drop_schema`] removes the schema. A test that fails before leaves it
    /// there to be looked at; its name begins with `job_test_`.
    ///
    /// # Errors
    ///
    /// As [`Jobs::init`](crate::Jobs::init).
    pub async fn postgres(pg_con: impl Into<String>) -> Result<Self, JobError> {
        let schema = format!("job_test_{}", Uuid::now_v7().simple());
        let config = JobSvcConfig::builder().pg_con(pg_con);
        // Tests are many, and each does one thing at a time.
        let config = config.max_connections(4).schema(&schema);
        let mut test = Self::open(config).await?;
        test.schema = Some(schema);
        Ok(test)
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
        let mut transaction = self.jobs().pool().begin().await?;
        for statement in [
            "SET LOCAL lock_timeout = '5s'",
            &format!("DROP SCHEMA {schema} CASCADE"),
        ] {
            sqlx::query(statement).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}
