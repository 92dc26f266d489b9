//! What can be written in on Postgres where there is no es-entity: transactions.

use job_engine::{Command, Reply, StoreError, Timestamp};
use job_postgres::PostgresStore;
use sqlx::{Postgres, Transaction};

use super::{AfterCommit, AtomicWrite};

impl AtomicWrite<Postgres> for Transaction<'_, Postgres> {
    async fn execute(
        &mut self,
        store: &PostgresStore,
        now: Option<Timestamp>,
        command: &Command,
    ) -> Result<Reply, StoreError> {
        store.execute_on(self, now, command).await
    }

    async fn after_commit(
        &mut self,
        store: &PostgresStore,
        job_type: &job_engine::JobType,
        _: AfterCommit,
    ) -> Result<(), StoreError> {
        // It does not tell when it commits, so the announcement goes along with it.
        let types = [job_type.clone()].into();
        store.announce_on(self, &types).await
    }
}
