//! Where jobs are kept: Postgres, SQLite, or memory.

mod any;
mod memory;
#[cfg(feature = "es-entity-operations")]
mod operations;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(all(feature = "postgres", not(feature = "es-entity-operations")))]
mod transactions;
mod url;
#[cfg(not(feature = "postgres"))]
mod without_postgres;

use std::fmt;
use std::future::Future;

use job_engine::{Command, Reply, StoreError, Timestamp};
use job_tokio::{ClockHandle, Store};

pub(crate) use any::same_type;
pub use any::{AnyBackend, AnyOptions, AnyPool, AnyStore, AnyTransaction};
#[cfg(feature = "postgres")]
pub use job_postgres::is_in_transaction;
#[cfg(feature = "sqlite")]
pub use job_sqlite::begin_immediate;
pub use memory::{Memory, MemoryOptions, MemoryPool, MemoryTransaction};
#[cfg(feature = "postgres")]
pub use postgres::PostgresOptions;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteOptions;
#[cfg(feature = "postgres")]
pub use sqlx::Postgres;
#[cfg(feature = "sqlite")]
pub use sqlx::Sqlite;
#[cfg(not(feature = "postgres"))]
pub use without_postgres::Postgres;

use crate::error::JobError;

/// The backend that types like [`Jobs`](crate::Jobs) mean when they name none: Postgres,
/// also where the feature `postgres` is off, and then it cannot be opened. Code for another
/// backend names it, as in `Jobs<Sqlite>`, or is generic.
pub type DefaultBackend = Postgres;

/// A place where jobs are kept.
///
/// A runner that is to work on any of them is generic over it:
/// `impl<B: Backend> JobRunner<B> for MyRunner`.
///
/// # Examples
///
/// A backend of one's own: a store that other services of the process use too.
///
/// ```
/// use job::backend::{AfterCommit, AtomicWrite, Backend, CallerTransaction};
/// use job::{ClockHandle, JobError, JobSvcConfig, Jobs};
/// use job::store::{
///     Command, JobType, MemoryStore, MemoryTransaction, Reply, StoreError, Timestamp,
/// };
///
/// enum Shared {}
///
/// #[derive(Clone, Debug, Default)]
/// struct Options {
///     store: Option<MemoryStore>,
/// }
///
/// impl Backend for Shared {
///     type Options = Options;
///     type Pool = MemoryStore;
///     type Transaction = Transaction;
///     type Operation = NoOperation;
///     type Store = MemoryStore;
///
///     fn check(options: &Options) -> Result<(), String> {
///         options.store.as_ref().map(|_| ()).ok_or("no store".into())
///     }
///
///     async fn open(
///         options: Options,
///         _: &ClockHandle,
///     ) -> Result<(MemoryStore, MemoryStore), JobError> {
///         let store = options.store.expect("it was checked");
///         Ok((store.clone(), store))
///     }
///
///     async fn begin_transaction(pool: &MemoryStore) -> Result<Transaction, StoreError> {
///         Ok(Transaction(pool.begin().await))
///     }
///
///     async fn close(_: &MemoryStore) {}
/// }
///
/// struct Transaction(MemoryTransaction);
///
/// impl AtomicWrite<Shared> for Transaction {
///     async fn execute(
///         &mut self,
///         _: &MemoryStore,
///         now: Option<Timestamp>,
///         command: &Command,
///     ) -> Result<Reply, StoreError> {
///         self.0.execute(now, command)
///     }
///
///     async fn after_commit(
///         &mut self,
///         _: &MemoryStore,
///         _: &JobType,
///         wake: AfterCommit,
///     ) -> Result<(), StoreError> {
///         wake();
///         Ok(())
///     }
/// }
///
/// impl CallerTransaction<Shared> for Transaction {
///     async fn commit(self) -> Result<(), StoreError> {
///         self.0.commit();
///         Ok(())
///     }
///
///     async fn rollback(self) {
///         self.0.rollback();
///     }
/// }
///
/// /// There are none.
/// enum NoOperation {}
/// # impl AtomicWrite<Shared> for NoOperation {
/// #     async fn execute(
/// #         &mut self,
/// #         _: &MemoryStore,
/// #         _: Option<Timestamp>,
/// #         _: &Command,
/// #     ) -> Result<Reply, StoreError> {
/// #         match *self {}
/// #     }
/// #     async fn after_commit(
/// #         &mut self,
/// #         _: &MemoryStore,
/// #         _: &JobType,
/// #         _: AfterCommit,
/// #     ) -> Result<(), StoreError> {
/// #         match *self {}
/// #     }
/// # }
/// # impl CallerTransaction<Shared> for NoOperation {
/// #     async fn commit(self) -> Result<(), StoreError> {
/// #         match self {}
/// #     }
/// #     async fn rollback(self) {
/// #         match self {}
/// #     }
/// # }
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let store = Some(MemoryStore::new(|| Timestamp::EPOCH));
/// let jobs = JobSvcConfig::<Shared>::with_backend(Options { store }).await?;
/// assert!(jobs.pool().jobs().await.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
pub trait Backend: Sized + Send + Sync + 'static {
    /// What to open, as the builder gathers it.
    type Options: Clone + Default + fmt::Debug + Send + Sync;
    /// What an application begins its own transactions on.
    type Pool: Clone + Send + Sync + 'static;
    /// A transaction of the application that a run can complete with.
    type Transaction: CallerTransaction<Self> + 'static;
    /// An operation of es-entity that a run can complete with, where there is
    /// one.
    type Operation: CallerTransaction<Self> + 'static;
    /// What carries out the engine's commands.
    type Store: Store;
    /// Checks what can be checked without opening anything.
    ///
    /// # Errors
    ///
    /// A text that says what to change.
    fn check(options: &Self::Options) -> Result<(), String>;

    /// Told before it is opened how many jobs the process may run at once, each of which
    /// may want a connection of the pool. Default: nothing depends on it.
    fn size_for(options: &mut Self::Options, runs_max: usize) {
        let _ = (options, runs_max);
    }

    /// Opens the database, migrates it if asked to, and checks that its tables
    /// fit this version, and that no other artificial clock is in use on them
    /// ([`ClockHandle::artificial_id`]).
    ///
    /// # Errors
    ///
    /// When any of that fails.
    fn open(
        options: Self::Options,
        clock: &ClockHandle,
    ) -> impl Future<Output = Result<(Self::Pool, Self::Store), JobError>> + Send;

    /// Begins a transaction of the application.
    ///
    /// # Errors
    ///
    /// When none can be begun.
    fn begin_transaction(
        pool: &Self::Pool,
    ) -> impl Future<Output = Result<Self::Transaction, StoreError>> + Send;

    /// What the event at the start of a worker says of the store. Nothing in it may be
    /// secret.
    ///
    /// The default names the type of the backend.
    fn about(store: &Self::Store) -> About {
        let _ = store;
        About {
            backend: std::any::type_name::<Self>(),
            ..About::default()
        }
    }

    /// Lets go of what the store holds of its own, when polling has stopped.
    fn close(store: &Self::Store) -> impl Future<Output = ()> + Send;

    /// How many connections the pool may have, where that can be said.
    ///
    /// The default is `None`.
    fn pool_size(pool: &Self::Pool) -> Option<u32> {
        let _ = pool;
        None
    }

    /// Whether runs that hold transactions of the pool wait for one another only where it
    /// has fewer connections: then [`Jobs::start_poll`](crate::Jobs::start_poll) looks at
    /// its size.
    ///
    /// The default is `false`.
    fn transactions_take_connections(pool: &Self::Pool) -> bool {
        let _ = pool;
        false
    }
}

/// Whether the pool has room for the runs of a worker. Warns if it has not.
///
/// # Errors
///
/// [`JobError::Config`] if it has one connection only: a run that holds a transaction and
/// keeps its state beside it would wait for itself.
pub(crate) fn check_pool_size<B: Backend>(pool: &B::Pool, runs_max: usize) -> Result<(), JobError> {
    let (true, Some(pool_size)) = (B::transactions_take_connections(pool), B::pool_size(pool))
    else {
        return Ok(());
    };
    if pool_size < 2 {
        return Err(JobError::Config(format!(
            "the pool has room for {pool_size} connection, so that a run that holds a \
             transaction and writes beside it would wait for itself; give it at least 2, and \
             one for each job that runs at once (max_jobs_per_process is {runs_max})"
        )));
    }
    if (pool_size as usize) < runs_max {
        tracing::warn!(
            pool_size,
            max_jobs_per_process = runs_max,
            "the pool has fewer connections than jobs may run at once: runs that hold a \
             transaction will wait for one another; make it larger (max_connections), or set \
             max_jobs_per_process lower"
        );
    }
    Ok(())
}

/// What an operator is told of a store, once, when a worker starts on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// What it is called.
    pub backend: &'static str,
    /// The schema of its tables, if one was named.
    pub schema: Option<String>,
    /// Whether it hears of the jobs of other processes, or needs not to, since there are
    /// none. Otherwise they are found by polling only.
    pub listens: bool,
}

impl Default for About {
    /// One that listens and has no schema.
    fn default() -> Self {
        Self {
            backend: "unnamed",
            schema: None,
            listens: true,
        }
    }
}

/// Something of the application to write in, such as a transaction.
///
/// A `sqlx::Transaction` is one, and with the feature `es-entity-operations` every
/// `es_entity::AtomicOperation` on Postgres.
pub trait AtomicWrite<B: Backend>: Send {
    /// Whether it is of the database of this store; asked before each command. By default it
    /// is: its type says so.
    ///
    /// # Errors
    ///
    /// [`JobError::OtherBackend`] if it is not.
    fn fits(&self, store: &B::Store) -> Result<(), JobError> {
        let _ = store;
        Ok(())
    }

    /// Carries out a command in it.
    ///
    /// # Errors
    ///
    /// As [`Store::execute`].
    fn execute(
        &mut self,
        store: &B::Store,
        now: Option<Timestamp>,
        command: &Command,
    ) -> impl Future<Output = Result<Reply, StoreError>> + Send;

    /// Sees to it that the workers hear of new jobs of this type once they are
    /// committed. `wake` does it, if there is a way to call it then.
    ///
    /// # Errors
    ///
    /// As [`Store::announce`].
    fn after_commit(
        &mut self,
        store: &B::Store,
        job_type: &job_engine::JobType,
        wake: AfterCommit,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// What is to be done after a commit.
pub type AfterCommit = Box<dyn FnOnce() + Send>;

/// A transaction that a runner hands over for the end of its run.
pub trait CallerTransaction<B: Backend>: AtomicWrite<B> {
    /// Commits it.
    ///
    /// # Errors
    ///
    /// When the commit failed, or may have failed.
    fn commit(self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Rolls it back. What cannot be rolled back now is by the database, when it
    /// notices that the connection is gone.
    fn rollback(self) -> impl Future<Output = ()> + Send;
}

/// The operation of backends that have none.
#[derive(Debug)]
pub enum NoOperation {}

impl<B: Backend> AtomicWrite<B> for NoOperation
where
    NoOperation: NotAnOperationOf<B>,
{
    async fn execute(
        &mut self,
        _: &B::Store,
        _: Option<Timestamp>,
        _: &Command,
    ) -> Result<Reply, StoreError> {
        match *self {}
    }

    async fn after_commit(
        &mut self,
        _: &B::Store,
        _: &job_engine::JobType,
        _: AfterCommit,
    ) -> Result<(), StoreError> {
        match *self {}
    }
}

impl<B: Backend> CallerTransaction<B> for NoOperation
where
    NoOperation: NotAnOperationOf<B>,
{
    async fn commit(self) -> Result<(), StoreError> {
        match self {}
    }

    async fn rollback(self) {
        match self {}
    }
}

/// The backends without an operation of their own.
pub trait NotAnOperationOf<B> {}
impl NotAnOperationOf<Memory> for NoOperation {}
#[cfg(feature = "sqlite")]
impl NotAnOperationOf<Sqlite> for NoOperation {}
