//! The store: which connection carries out which command.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use job_engine::{Command, Rejection, Reply, StoreError, Timestamp};
use job_tokio::Store;
use job_tokio::store::all_created;
use sqlx::{Acquire, Sqlite, SqliteConnection, SqlitePool, Transaction};

use crate::clock::InUse;
use crate::error::{begin_failed, commit_failed, failed};
use crate::file::FileError;
use crate::open::{OpenOptions, Pools};
use crate::presence::Presence;
use crate::{claim, find, finish, lease, reclaim, spawn, sql};

/// The store on SQLite. Cheap to clone; clones share their connections.
///
/// All commands that write go through one connection. Within the process they
/// queue for it, in their order; only other processes, and transactions of the
/// application, are waited for by SQLite's busy timeout.
///
/// A command that brings no time along is carried out at the time of the
/// machine, as SQLite tells it: UTC, to the millisecond. There is one machine,
/// so this is the clock of all its workers.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    pool: SqlitePool,
    /// The connection for what writes; `None` where it is that of the pool.
    writer: Option<SqlitePool>,
    /// That its file is in use with an artificial clock, until it is closed.
    clock: Arc<Mutex<Option<InUse>>>,
    /// That this process uses its file, until it is closed.
    presence: Arc<Mutex<Option<Presence>>>,
}

impl SqliteStore {
    /// Opens a database with the default [`OpenOptions`].
    ///
    /// `place` is the path of a file, which is made if it is missing; or
    /// `:memory:`, for a database that is gone with the last clone of the
    /// store; or a URL of either that begins with `sqlite:`.
    ///
    /// What is committed survives a power loss: WAL, `synchronous = FULL`.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, is no database, or cannot be in WAL mode.
    pub async fn open(place: impl AsRef<Path>) -> Result<Self, FileError> {
        Self::open_with(place, &OpenOptions::default()).await
    }

    /// Opens a database. See [`SqliteStore::open`].
    ///
    /// # Errors
    ///
    /// As [`SqliteStore::open`].
    pub async fn open_with(
        place: impl AsRef<Path>,
        options: &OpenOptions,
    ) -> Result<Self, FileError> {
        let store = Self::on(Pools::at(place.as_ref(), options)?);
        store.enter_wal_mode().await?;
        Ok(store)
    }

    /// A store on the database of an application's pool. Opens nothing yet.
    /// [`SqliteStore::on_pool`] does, and finds out whether it fits.
    ///
    /// The store opens one connection of its own with the options of the pool,
    /// so that an application which uses up its pool cannot keep a worker from
    /// renewing its leases; but in WAL mode, with a busy timeout of 20 s. In
    /// memory, the store uses the pool itself; give it exactly one connection,
    /// without an idle timeout and a maximal lifetime, because each connection
    /// is a database of its own.
    pub fn new(pool: SqlitePool) -> Self {
        Self::on(Pools::of(pool))
    }

    /// As [`SqliteStore::new`], and sets the file to WAL mode if it is in another.
    /// That is for ever and for all connections, and is told to `tracing`.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or cannot be in WAL mode, or when the options
    /// of the pool take it out of that.
    pub async fn on_pool(pool: SqlitePool) -> Result<Self, FileError> {
        let store = Self::new(pool);
        store.enter_wal_mode_beside_pool().await?;
        Ok(store)
    }

    fn on(Pools { pool, writer }: Pools) -> Self {
        Self {
            pool,
            writer,
            clock: Arc::default(),
            presence: Arc::default(),
        }
    }

    /// Notes that its file is in use, until it is closed, or the last clone is dropped.
    pub(crate) fn noting(self, in_use: InUse) -> Self {
        *locked(&self.clock) = Some(in_use);
        self
    }

    /// Notes that this process uses its file, until it is closed, or the last clone is
    /// dropped.
    pub(crate) fn present(self, presence: Presence) -> Self {
        *locked(&self.presence) = Some(presence);
        self
    }

    /// The application's pool.
    pub fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// Carries out a command in a transaction of the caller. It takes effect
    /// when, and only when, that commits. If it fails, the transaction is as it
    /// was before, and can go on. If the future is dropped, the command is
    /// part of the transaction wholly or not at all.
    ///
    /// The transaction must have begun by sqlx, best with
    /// [`begin_immediate`]: one that has read before it writes
    /// fails when another has written meanwhile. A connection without a
    /// transaction gets one for the command.
    ///
    /// # Errors
    ///
    /// As [`Store::execute`]. [`Rejection::NotInTransaction`] for commands that
    /// only workers send.
    pub async fn execute_on(
        &self,
        connection: &mut SqliteConnection,
        now: Option<Timestamp>,
        command: &Command,
    ) -> Result<Reply, StoreError> {
        command.check()?;
        if matches!(command, Command::Claim(_) | Command::Reclaim(_)) {
            return Err(Rejection::NotInTransaction.into());
        }
        // A savepoint within the caller's transaction: a command has several
        // statements, and half of it must not be committed with the rest.
        let mut transaction = connection.begin().await.map_err(failed)?;
        let reply = run(&mut transaction, now, command).await?;
        transaction.commit().await.map_err(commit_failed)?;
        Ok(reply)
    }

    /// Closes the store's own connection. The application's pool stays open,
    /// and from now on the store uses that. Other artificial clocks are let onto the file,
    /// and other processes no longer hear that this one uses it.
    pub async fn close(&self) {
        self.close_writer().await;
        drop(locked(&self.clock).take());
        drop(locked(&self.presence).take());
    }

    pub(crate) async fn close_writer(&self) {
        if let Some(writer) = &self.writer {
            writer.close().await;
        }
    }

    /// Whether it has a file, and so a connection of its own.
    pub(crate) fn has_file(&self) -> bool {
        self.writer.is_some()
    }

    pub(crate) fn writer(&self) -> &SqlitePool {
        match &self.writer {
            Some(writer) if !writer.is_closed() => writer,
            _ => &self.pool,
        }
    }
}

impl Store for SqliteStore {
    async fn execute(
        &self,
        now: Option<Timestamp>,
        command: &Command,
    ) -> Result<Reply, StoreError> {
        command.check()?;
        if matches!(command, Command::Find(_) | Command::History(_)) {
            let mut transaction = self.pool.begin().await.map_err(failed)?;
            let reply = run(&mut transaction, now, command).await?;
            // Nothing was written, so there is no outcome to be unknown.
            transaction.commit().await.map_err(failed)?;
            return Ok(reply);
        }
        if let Command::Claim(claim) = command
            && let Some(presence) = locked(&self.presence).as_ref()
        {
            presence.note_worker(claim.id.worker);
        }
        let mut transaction = begin_immediate(self.writer()).await.map_err(begin_failed)?;
        let reply = run(&mut transaction, now, command).await?;
        transaction.commit().await.map_err(commit_failed)?;
        Ok(reply)
    }

    async fn spawn_all(
        &self,
        now: Option<Timestamp>,
        spawns: &[Command],
    ) -> Result<Vec<Reply>, StoreError> {
        spawns.iter().try_for_each(Command::check)?;
        let mut transaction = begin_immediate(self.writer()).await.map_err(begin_failed)?;
        let mut replies = Vec::with_capacity(spawns.len());
        for spawn in spawns {
            let reply = run(&mut transaction, now, spawn).await?;
            let created = all_created(&reply);
            replies.push(reply);
            if !created {
                transaction.rollback().await.map_err(failed)?;
                return Ok(replies);
            }
        }
        transaction.commit().await.map_err(commit_failed)?;
        Ok(replies)
    }
}

/// Begins a transaction as a writer: it waits for the one that writes now, and
/// nothing in it fails because another has written since it began. The tables
/// of the store must exist.
///
/// While it is open nothing else writes, so do not await anything in it that
/// needs the store.
///
/// # Errors
///
/// When no connection is free, or when the busy timeout ends.
pub async fn begin_immediate(
    pool: &SqlitePool,
) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
    // Not by `BEGIN IMMEDIATE` and sqlx's `begin_with`: a future of that which is
    // dropped in the wrong moment leaves the connection in a transaction that
    // nobody ends. To begin as a reader and write at once is the same to SQLite.
    // Pinned by `a_command_that_is_dropped_at_any_await_leaves_the_store_usable`.
    let mut transaction = pool.begin().await?;
    sqlx::query(sql::LOCK).execute(&mut *transaction).await?;
    Ok(transaction)
}

async fn run(
    connection: &mut SqliteConnection,
    now: Option<Timestamp>,
    command: &Command,
) -> Result<Reply, StoreError> {
    match command {
        Command::Spawn(jobs) => {
            let now = time(connection, now).await?;
            spawn::spawn(connection, now, jobs).await
        }
        Command::Claim(claim) => {
            let now = time(connection, now).await?;
            claim::claim(connection, now, claim).await
        }
        Command::Finish(finishes) => {
            let now = time(connection, now).await?;
            finish::finish(connection, now, finishes).await
        }
        Command::Heartbeat(heartbeat) => {
            let now = time(connection, now).await?;
            lease::heartbeat(connection, now, heartbeat).await
        }
        Command::Reclaim(reclaim) => {
            let now = time(connection, now).await?;
            reclaim::reclaim(connection, now, reclaim).await
        }
        // These do not depend on the time.
        Command::Checkpoint(checkpoint) => lease::checkpoint(connection, checkpoint).await,
        Command::Hold(run) => lease::hold(connection, *run).await,
        Command::Find(job) => find::find(connection, *job).await,
        Command::History(history) => find::history(connection, *history).await,
    }
}

/// The time of a command that brings none along.
pub(crate) async fn time(
    connection: &mut SqliteConnection,
    now: Option<Timestamp>,
) -> Result<Timestamp, StoreError> {
    if let Some(now) = now {
        return Ok(now);
    }
    let now = sqlx::query_scalar(sql::NOW).fetch_one(connection);
    Ok(Timestamp::from_micros(now.await.map_err(failed)?))
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
