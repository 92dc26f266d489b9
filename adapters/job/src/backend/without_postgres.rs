//! What stands for Postgres in a program that was built without it.

use job_engine::StoreError;
use job_tokio::ClockHandle;

use super::{AnyPool, AnyStore, Backend, NoOperation, NotAnOperationOf};
use crate::error::JobError;

const WITHOUT: &str = "this program was built without Postgres, which is meant where no backend \
                       is named; name one, as in Jobs<Sqlite>, or add the feature `postgres`";

/// Postgres, where the feature `postgres` is off. It is what types mean that name no
/// backend, and cannot be opened.
///
/// So such a type does not mean another database as soon as another crate of the program
/// turns the feature on.
#[derive(Debug)]
pub enum Postgres {}

impl Backend for Postgres {
    type Options = ();
    type Pool = AnyPool;
    type Transaction = NoOperation;
    type Operation = NoOperation;
    type Store = AnyStore;

    fn check((): &Self::Options) -> Result<(), String> {
        Err(WITHOUT.to_owned())
    }

    async fn open(
        (): Self::Options,
        _: &ClockHandle,
    ) -> Result<(Self::Pool, Self::Store), JobError> {
        Err(JobError::Config(WITHOUT.to_owned()))
    }

    async fn begin_transaction(_: &Self::Pool) -> Result<Self::Transaction, StoreError> {
        Err(StoreError::Failed(WITHOUT.to_owned()))
    }

    async fn close(_: &Self::Store) {}
}

impl NotAnOperationOf<Postgres> for NoOperation {}
