//! Whichever database there is, known when the program runs.

use std::any::{Any, TypeId, type_name};
use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use async_trait::async_trait;
use job_engine::{Command, JobType, Reply, StoreError, Timestamp};
use job_tokio::{ClockHandle, Store, Wake};
use tokio::sync::mpsc;

use super::url::Chosen;
use super::{About, AfterCommit, AtomicWrite, Backend, CallerTransaction, Memory};
use crate::error::JobError;

/// The backend of a service that [`Jobs::connect`](crate::Jobs::connect) has opened, and
/// the one through which every [`Task`](crate::Task) sees its service: Postgres, SQLite,
/// memory, or one of the application's own.
///
/// Its pool and its transactions are told which one they are of, where that matters:
/// [`AnyPool::on`], [`AnyTransaction::on`]. Jobs are spawned in its own transactions, in those
/// of each of the other backends, and in a `DbOp` of es-entity; other operations of es-entity
/// are for services whose backend is part of their type.
#[derive(Debug)]
pub enum AnyBackend {}

/// What to open, as the builder gathers it.
#[derive(Clone, Debug, Default)]
pub struct AnyOptions {
    pub(crate) chosen: Chosen,
    /// What of it cannot be.
    pub(crate) wrong: Option<String>,
}

/// A store and its pool, without their type.
#[derive(Clone)]
pub struct AnyStore(Arc<dyn Erased>);

/// The pool of whichever backend there is.
#[derive(Clone)]
pub struct AnyPool(Arc<dyn Erased>);

/// A transaction, or an operation of es-entity, on whichever backend there is. Dropped, it
/// is rolled back. What an operation is made of cannot be had back; a run can complete with it.
pub struct AnyTransaction(Box<dyn ErasedTransaction>);

impl AnyPool {
    /// Begins a transaction; on SQLite, one that holds the write lock from the start.
    ///
    /// ```
    /// # use job::{JobError, JobType, Jobs};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), JobError> {
    /// let jobs = Jobs::connect("memory:").await?;
    /// let reports = jobs.spawner::<u32>(JobType::new("report"));
    /// let mut tx = jobs.pool().begin().await?;
    /// reports.job(2026).in_tx(&mut tx).await?;
    /// tx.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`JobError::Store`] if none can be begun.
    pub async fn begin(&self) -> Result<AnyTransaction, JobError> {
        Ok(self.0.begin().await?)
    }

    /// The pool, where it is one of this backend:
    ///
    /// ```no_run
    /// # async fn example(jobs: job::Jobs<job::AnyBackend>) -> Result<(), Box<dyn std::error::Error>> {
    /// let pool: &sqlx::PgPool = jobs.pool().on::<job::Postgres>()?;
    /// let mut tx = pool.begin().await?;
    /// # drop(tx);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`JobError::OtherBackend`] where the jobs are kept elsewhere.
    pub fn on<B: Backend>(&self) -> Result<&B::Pool, JobError> {
        if let Some(same) = (self as &dyn Any).downcast_ref() {
            return Ok(same);
        }
        opened::<B>(&*self.0).map(|opened| &opened.pool)
    }
}

impl AnyStore {
    pub(crate) fn new<B: Backend>(store: B::Store, pool: B::Pool) -> Self {
        Self(Arc::new(Opened::<B> { pool, store }))
    }

    pub(crate) fn pool(&self) -> AnyPool {
        AnyPool(Arc::clone(&self.0))
    }

    /// The store, for what is written in a transaction of this backend.
    fn of<B: Backend>(&self) -> Result<&B::Store, StoreError> {
        let opened = opened::<B>(&*self.0).map_err(|error| StoreError::Failed(error.to_string()));
        opened.map(|opened| &opened.store)
    }
}

impl AnyTransaction {
    /// What is a transaction of `B`, or else an operation with which its runs can complete.
    pub fn new<B: Backend>(transaction: impl CallerTransaction<B> + 'static) -> Self {
        Self(Box::new(Begun {
            transaction,
            backend: PhantomData::<fn() -> B>,
        }))
    }

    /// A transaction that may be without its type already.
    pub(crate) fn new_on<B: Backend>(transaction: B::Transaction) -> Self {
        same_type(transaction).unwrap_or_else(Self::new::<B>)
    }

    /// The transaction, where it is one of this backend:
    ///
    /// ```no_run
    /// # async fn example(cx: job::TaskContext) -> Result<(), job::TaskError> {
    /// let mut tx = cx.begin().await?;
    /// sqlx::query("UPDATE orders SET sent = TRUE WHERE id = 7")
    ///     .execute(&mut **tx.on::<job::Postgres>()?)
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`JobError::OtherBackend`] if it is one of another backend.
    pub fn on<B: Backend>(&mut self) -> Result<&mut B::Transaction, JobError> {
        if (self as &dyn Any).is::<B::Transaction>() {
            let same = (self as &mut dyn Any).downcast_mut();
            return Ok(same.expect("its type was asked"));
        }
        let used = self.0.name();
        let begun = self.0.as_any();
        match begun.downcast_mut::<Begun<B, B::Transaction>>() {
            Some(begun) => Ok(&mut begun.transaction),
            None => Err(other_backend(name_of::<B>(), used)),
        }
    }

    /// Commits it. Dropped without that, it is rolled back.
    ///
    /// # Errors
    ///
    /// [`JobError::Store`] if the commit failed, or may have failed.
    pub async fn commit(self) -> Result<(), JobError> {
        Ok(self.0.commit().await?)
    }

    /// Rolls it back.
    pub async fn rollback(self) {
        self.0.rollback().await;
    }

    /// As [`AnyTransaction::on`], by value.
    ///
    /// # Errors
    ///
    /// As [`AnyTransaction::on`]; it is rolled back then.
    pub fn into_on<B: Backend>(self) -> Result<B::Transaction, JobError> {
        let this = match same_type(self) {
            Ok(same) => return Ok(same),
            Err(this) => this,
        };
        let made_of = this.made_of::<B, B::Transaction>();
        made_of.map_err(|this| other_backend(name_of::<B>(), this.0.name()))
    }

    /// What it was made of, if it was of this.
    pub(crate) fn made_of<B: Backend, T: 'static>(mut self) -> Result<T, Self> {
        if self.0.as_any().is::<Begun<B, T>>() {
            let begun = self.0.into_any().downcast::<Begun<B, T>>();
            return Ok(begun.expect("its type was asked").transaction);
        }
        Err(self)
    }

    /// It cannot be used on this backend.
    pub(crate) fn is_other_than<B: Backend>(&self) -> JobError {
        other_backend(self.0.name(), name_of::<B>())
    }
}

/// The value as a `U`, where that is what `T` is.
pub(crate) fn same_type<T: 'static, U: 'static>(value: T) -> Result<U, T> {
    let mut value = Some(value);
    let same = (&mut value as &mut dyn Any).downcast_mut::<Option<U>>();
    match same.and_then(Option::take) {
        Some(same) => Ok(same),
        None => Err(value.expect("it was not taken")),
    }
}

fn opened<B: Backend>(erased: &dyn Erased) -> Result<&Opened<B>, JobError> {
    let opened = erased.as_any().downcast_ref::<Opened<B>>();
    opened.ok_or_else(|| other_backend(name_of::<B>(), erased.backend()))
}

fn other_backend(asked: &'static str, used: &'static str) -> JobError {
    JobError::OtherBackend { asked, used }
}

/// The last part of its path, without what it is generic over.
fn name_of<B>() -> &'static str {
    let path = type_name::<B>();
    let path = path.split_once('<').map_or(path, |(path, _)| path);
    path.rsplit("::").next().unwrap_or(path)
}

impl Backend for AnyBackend {
    type Options = AnyOptions;
    type Pool = AnyPool;
    type Transaction = AnyTransaction;
    type Operation = AnyTransaction;
    type Store = AnyStore;

    fn check(options: &Self::Options) -> Result<(), String> {
        match (&options.wrong, &options.chosen) {
            (Some(wrong), _) => Err(wrong.clone()),
            (None, chosen) => chosen.check(),
        }
    }

    fn size_for(options: &mut Self::Options, runs_max: usize) {
        options.chosen.size_for(runs_max);
    }

    async fn open(
        options: Self::Options,
        clock: &ClockHandle,
    ) -> Result<(Self::Pool, Self::Store), JobError> {
        let store = options.chosen.open(clock).await?;
        Ok((store.pool(), store))
    }

    async fn begin_transaction(pool: &Self::Pool) -> Result<Self::Transaction, StoreError> {
        pool.0.begin().await
    }

    fn about(store: &Self::Store) -> About {
        store.0.about()
    }

    async fn close(store: &Self::Store) {
        store.0.close().await;
    }

    fn pool_size(pool: &Self::Pool) -> Option<u32> {
        pool.0.pool_size()
    }

    fn transactions_take_connections(pool: &Self::Pool) -> bool {
        pool.0.transactions_take_connections()
    }
}

/// Opens a backend for those who do not know which one it is.
pub(crate) async fn open<B: Backend>(
    options: B::Options,
    clock: &ClockHandle,
) -> Result<AnyStore, JobError> {
    let (pool, store) = B::open(options, clock).await?;
    Ok(AnyStore::new::<B>(store, pool))
}

/// What is known only to those who opened it.
struct Opened<B: Backend> {
    pool: B::Pool,
    store: B::Store,
}

#[async_trait]
trait Erased: Send + Sync {
    async fn execute(&self, now: Option<Timestamp>, command: &Command)
    -> Result<Reply, StoreError>;
    async fn spawn_together(
        &self,
        now: Option<Timestamp>,
        spawn: &Command,
    ) -> Result<Reply, StoreError>;
    async fn spawn_all(
        &self,
        now: Option<Timestamp>,
        spawns: &[Command],
    ) -> Result<Vec<Reply>, StoreError>;
    async fn announce(&self, types: &BTreeSet<JobType>) -> Result<(), StoreError>;
    async fn listen(&self, wakes: mpsc::Sender<Wake>);
    async fn begin(&self) -> Result<AnyTransaction, StoreError>;
    async fn close(&self);
    fn about(&self) -> About;
    fn pool_size(&self) -> Option<u32>;
    fn transactions_take_connections(&self) -> bool;
    fn backend(&self) -> &'static str;
    fn as_any(&self) -> &dyn Any;
}

#[async_trait]
impl<B: Backend> Erased for Opened<B> {
    async fn execute(
        &self,
        now: Option<Timestamp>,
        command: &Command,
    ) -> Result<Reply, StoreError> {
        self.store.execute(now, command).await
    }

    async fn spawn_together(
        &self,
        now: Option<Timestamp>,
        spawn: &Command,
    ) -> Result<Reply, StoreError> {
        self.store.spawn_together(now, spawn).await
    }

    async fn spawn_all(
        &self,
        now: Option<Timestamp>,
        spawns: &[Command],
    ) -> Result<Vec<Reply>, StoreError> {
        self.store.spawn_all(now, spawns).await
    }

    async fn announce(&self, types: &BTreeSet<JobType>) -> Result<(), StoreError> {
        self.store.announce(types).await
    }

    async fn listen(&self, wakes: mpsc::Sender<Wake>) {
        self.store.listen(wakes).await;
    }

    async fn begin(&self) -> Result<AnyTransaction, StoreError> {
        let transaction = B::begin_transaction(&self.pool).await?;
        Ok(AnyTransaction::new::<B>(transaction))
    }

    async fn close(&self) {
        B::close(&self.store).await;
    }

    fn about(&self) -> About {
        B::about(&self.store)
    }

    fn pool_size(&self) -> Option<u32> {
        B::pool_size(&self.pool)
    }

    fn transactions_take_connections(&self) -> bool {
        B::transactions_take_connections(&self.pool)
    }

    fn backend(&self) -> &'static str {
        name_of::<B>()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Store for AnyStore {
    async fn execute(
        &self,
        now: Option<Timestamp>,
        command: &Command,
    ) -> Result<Reply, StoreError> {
        self.0.execute(now, command).await
    }

    async fn spawn_together(
        &self,
        now: Option<Timestamp>,
        spawn: &Command,
    ) -> Result<Reply, StoreError> {
        self.0.spawn_together(now, spawn).await
    }

    async fn spawn_all(
        &self,
        now: Option<Timestamp>,
        spawns: &[Command],
    ) -> Result<Vec<Reply>, StoreError> {
        self.0.spawn_all(now, spawns).await
    }

    async fn announce(&self, types: &BTreeSet<JobType>) -> Result<(), StoreError> {
        self.0.announce(types).await
    }

    async fn listen(&self, wakes: mpsc::Sender<Wake>) {
        self.0.listen(wakes).await;
    }
}

struct Begun<B, T> {
    transaction: T,
    backend: PhantomData<fn() -> B>,
}

#[async_trait]
trait ErasedTransaction: Send {
    fn fits(&self, store: &AnyStore) -> Result<(), JobError>;
    async fn execute(
        &mut self,
        store: &AnyStore,
        now: Option<Timestamp>,
        command: &Command,
    ) -> Result<Reply, StoreError>;
    async fn after_commit(
        &mut self,
        store: &AnyStore,
        job_type: &JobType,
        wake: AfterCommit,
    ) -> Result<(), StoreError>;
    async fn commit(self: Box<Self>) -> Result<(), StoreError>;
    async fn rollback(self: Box<Self>);
    /// What it is of, or what it is if that is no transaction.
    fn name(&self) -> &'static str;
    fn as_any(&mut self) -> &mut dyn Any;
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

#[async_trait]
impl<B: Backend, T: CallerTransaction<B> + 'static> ErasedTransaction for Begun<B, T> {
    fn fits(&self, store: &AnyStore) -> Result<(), JobError> {
        opened::<B>(&*store.0).map(drop)
    }

    async fn execute(
        &mut self,
        store: &AnyStore,
        now: Option<Timestamp>,
        command: &Command,
    ) -> Result<Reply, StoreError> {
        let store = store.of::<B>()?;
        self.transaction.execute(store, now, command).await
    }

    async fn after_commit(
        &mut self,
        store: &AnyStore,
        job_type: &JobType,
        wake: AfterCommit,
    ) -> Result<(), StoreError> {
        let store = store.of::<B>()?;
        self.transaction.after_commit(store, job_type, wake).await
    }

    async fn commit(self: Box<Self>) -> Result<(), StoreError> {
        self.transaction.commit().await
    }

    async fn rollback(self: Box<Self>) {
        self.transaction.rollback().await;
    }

    fn name(&self) -> &'static str {
        match TypeId::of::<T>() == TypeId::of::<B::Transaction>() {
            true => name_of::<B>(),
            false => name_of::<T>(),
        }
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl AtomicWrite<AnyBackend> for AnyTransaction {
    fn fits(&self, store: &AnyStore) -> Result<(), JobError> {
        self.0.fits(store)
    }

    async fn execute(
        &mut self,
        store: &AnyStore,
        now: Option<Timestamp>,
        command: &Command,
    ) -> Result<Reply, StoreError> {
        self.0.execute(store, now, command).await
    }

    async fn after_commit(
        &mut self,
        store: &AnyStore,
        job_type: &JobType,
        wake: AfterCommit,
    ) -> Result<(), StoreError> {
        self.0.after_commit(store, job_type, wake).await
    }
}

impl CallerTransaction<AnyBackend> for AnyTransaction {
    async fn commit(self) -> Result<(), StoreError> {
        self.0.commit().await
    }

    async fn rollback(self) {
        self.0.rollback().await;
    }
}

/// What is written in of one backend can be written in where it is not known that it is
/// this one.
macro_rules! written_in {
    ($($backend:ty: $($of:ty),+;)+) => { $($(
        impl AtomicWrite<AnyBackend> for $of {
            fn fits(&self, store: &AnyStore) -> Result<(), JobError> {
                opened::<$backend>(&*store.0).map(drop)
            }

            async fn execute(
                &mut self,
                store: &AnyStore,
                now: Option<Timestamp>,
                command: &Command,
            ) -> Result<Reply, StoreError> {
                let store = store.of::<$backend>()?;
                AtomicWrite::<$backend>::execute(self, store, now, command).await
            }

            async fn after_commit(
                &mut self,
                store: &AnyStore,
                job_type: &JobType,
                wake: AfterCommit,
            ) -> Result<(), StoreError> {
                let store = store.of::<$backend>()?;
                AtomicWrite::<$backend>::after_commit(self, store, job_type, wake).await
            }
        }
    )+)+ };
}

/// What a run can complete with, without its type.
macro_rules! completes_with {
    ($($backend:ty: $($of:ty),+;)+) => { $($(
        impl From<$of> for AnyTransaction {
            fn from(transaction: $of) -> Self {
                Self::new::<$backend>(transaction)
            }
        }
    )+)+ };
}

written_in!(Memory: super::MemoryTransaction;);
completes_with!(Memory: super::MemoryTransaction;);

#[cfg(feature = "postgres")]
written_in!(super::Postgres: sqlx::Transaction<'_, super::Postgres>;);
#[cfg(feature = "es-entity-operations")]
written_in!(super::Postgres: es_entity::DbOp<'_>, es_entity::DbOpWithTime<'_>;);
#[cfg(feature = "postgres")]
completes_with!(super::Postgres: sqlx::Transaction<'static, super::Postgres>;);
#[cfg(feature = "es-entity")]
completes_with!(super::Postgres: es_entity::DbOp<'static>;);

#[cfg(feature = "sqlite")]
written_in!(super::Sqlite: sqlx::Transaction<'_, super::Sqlite>;);
#[cfg(feature = "sqlite")]
completes_with!(super::Sqlite: sqlx::Transaction<'static, super::Sqlite>;);

impl fmt::Debug for AnyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyStore").field(&self.0.backend()).finish()
    }
}

impl fmt::Debug for AnyPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyPool").field(&self.0.backend()).finish()
    }
}

impl fmt::Debug for AnyTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.name();
        f.debug_tuple("AnyTransaction").field(&name).finish()
    }
}
