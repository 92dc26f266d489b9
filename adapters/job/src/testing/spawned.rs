//! What code has spawned in a transaction, without a service.

use std::future::Future;

use crate::Task;
use crate::error::JobError;

/// The tasks of a type that a transaction sees, in the order of the ids of their jobs: what
/// the code under test has spawned in it, and what was there before. This only reads: the
/// transaction goes on, and nothing is committed by it. It needs no service; only the tables
/// must be there ([`MIGRATOR`](crate::MIGRATOR)), where the `search_path` of the connection
/// finds them.
///
/// # Errors
///
/// [`JobError::Sqlx`] when they cannot be read; [`JobError::UndecodableConfig`] if one is no
/// `T`.
///
/// # Examples
///
/// ```no_run
/// # use job::{Task, TaskContext, TaskEnd, TaskResult};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)]
/// # struct Ship { order: i64 }
/// # impl Task for Ship {
/// #     const TYPE: &'static str = "ship";
/// #     type State = ();
/// #     async fn run(self, _: TaskContext) -> TaskResult { Ok(TaskEnd::Complete) }
/// # }
/// # async fn place_order(_: &job::Jobs, _: &mut sqlx::PgTransaction<'_>) -> i64 { 7 }
/// # async fn example(jobs: job::Jobs, pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
/// let mut tx = pool.begin().await?;
/// let order = place_order(&jobs, &mut tx).await;
/// let spawned = job::testing::spawned::<Ship>(&mut *tx).await?;
/// assert_eq!(spawned[0].order, order);
/// # Ok(())
/// # }
/// ```
pub async fn spawned<T: Task>(connection: &mut impl SpawnedOn) -> Result<Vec<T>, JobError> {
    let configs = connection.configs_of_type(T::TYPE).await?;
    let tasks = configs.iter().map(|config| {
        serde_json::from_str(config).map_err(|error| JobError::UndecodableConfig {
            job_type: crate::JobType::new(T::TYPE),
            source: error.into(),
        })
    });
    tasks.collect()
}

/// A connection on which jobs are spawned.
pub trait SpawnedOn: Send {
    /// The configs of the jobs of a type, in the order of their ids.
    ///
    /// # Errors
    ///
    /// [`JobError::Sqlx`] when they cannot be read.
    fn configs_of_type(
        &mut self,
        job_type: &str,
    ) -> impl Future<Output = Result<Vec<String>, JobError>> + Send;
}

#[cfg(feature = "postgres")]
impl SpawnedOn for sqlx::PgConnection {
    async fn configs_of_type(&mut self, job_type: &str) -> Result<Vec<String>, JobError> {
        Ok(job_postgres::configs_of_type(self, job_type).await?)
    }
}

#[cfg(feature = "sqlite")]
impl SpawnedOn for sqlx::SqliteConnection {
    async fn configs_of_type(&mut self, job_type: &str) -> Result<Vec<String>, JobError> {
        Ok(job_sqlite::configs_of_type(self, job_type).await?)
    }
}
