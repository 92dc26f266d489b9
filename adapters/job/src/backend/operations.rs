//! Operations of es-entity on Postgres.

use es_entity::AtomicOperation;
#[cfg(feature = "es-entity")]
use es_entity::DbOp;
use es_entity::operation::hooks::CommitHook;
use job_engine::{Command, Reply, StoreError, Timestamp};
use job_postgres::PostgresStore;
use sqlx::Postgres;

#[cfg(feature = "es-entity")]
use super::CallerTransaction;
#[cfg(feature = "es-entity")]
use super::postgres::commit_error;
use super::{AfterCommit, AtomicWrite};

impl<O: AtomicOperation + ?Sized> AtomicWrite<Postgres> for O {
    async fn execute(
        &mut self,
        store: &PostgresStore,
        now: Option<Timestamp>,
        command: &Command,
    ) -> Result<Reply, StoreError> {
        store.execute_on(self.connection(), now, command).await
    }

    async fn after_commit(
        &mut self,
        store: &PostgresStore,
        job_type: &job_engine::JobType,
        wake: AfterCommit,
    ) -> Result<(), StoreError> {
        let mut op = self;
        // Through the reference: what is behind it may be a trait object.
        match AtomicOperation::add_commit_hook(&mut op, WakeHook(vec![wake])) {
            Ok(()) => Ok(()),
            // A plain transaction does not tell when it commits, so the
            // announcement goes along with it.
            Err(_hook) => {
                let types = [job_type.clone()].into();
                store.announce_on(op.connection(), &types).await
            }
        }
    }
}

/// Wakes the workers after the commit of an es-entity operation.
struct WakeHook(Vec<AfterCommit>);

impl CommitHook for WakeHook {
    fn post_commit(self) {
        self.0.into_iter().for_each(|wake| wake());
    }

    fn merge(&mut self, other: &mut Self) -> bool {
        self.0.append(&mut other.0);
        true
    }
}

#[cfg(feature = "es-entity")]
impl CallerTransaction<Postgres> for DbOp<'static> {
    async fn commit(self) -> Result<(), StoreError> {
        DbOp::commit(self).await.map_err(commit_error)
    }

    async fn rollback(self) {
        // Dropped, it is rolled back before the connection is used again.
        drop(self);
    }
}
