//! A schema for each test.

use uuid::Uuid;

use super::TestJobs;
use crate::error::JobError;
use crate::{JobSvcConfig, Postgres};

impl TestJobs<Postgres> {
    /// A service on Postgres, in a schema of its own in the database of this connection
    /// string, so that tests can run side by side.
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
    /// When the database does not do it.
    pub async fn drop_schema(self) -> Result<(), JobError> {
        if let Some(schema) = &self.schema {
            let drop = format!("DROP SCHEMA {schema} CASCADE");
            sqlx::query(&drop).execute(self.jobs().pool()).await?;
        }
        Ok(())
    }
}
