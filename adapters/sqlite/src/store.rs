//! The store: which connection carries out which command.

use std::path::Path;
use std::time::Duration;

use job_engine::{Command, Rejection, Reply, StoreError, Timestamp};
use job_tokio::Store;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{SqliteConnection, SqlitePool};

use crate::error::{commit_failed, failed};
use crate::{claim, find, finish, lease, reclaim, spawn, sql};

/// How long a transaction waits for the one writer to be done.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);
/// Connections for what the application reads and writes itself.
const POOL_CONNECTIONS: u32 = 5;
/// No file; the data is gone with the connection.
const IN_MEMORY: &str = ":memory:";

/// The store on SQLite. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    pool: SqlitePool,
    /// One connection for all commands that write: within the process they
    /// queue for it, in order, instead of trying again and again.
    writer: SqlitePool,
}

impl SqliteStore {
    /// Opens a file, which is made if it is missing, or `:memory:`.
    ///
    /// Writes are durable: WAL, `synchronous = FULL`.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, or is no database.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, sqlx::Error> {
        let path = path.as_ref();
        if path == Path::new(IN_MEMORY) {
            let options = SqliteConnectOptions::new().in_memory(true);
            return Ok(Self::new(only_connection(options)));
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new().max_connections(POOL_CONNECTIONS);
        Ok(Self::new(pool.connect_with(options).await?))
    }

    /// A store on the database of an application's pool. Give its connections
    /// WAL mode and a busy timeout.
    pub fn new(pool: SqlitePool) -> Self {
        let options = pool.connect_options();
        let writer = if is_in_memory(options.get_filename()) {
            pool.clone()
        } else {
            only_connection(options.as_ref().clone())
        };
        Self { pool, writer }
    }

    /// The application's pool.
    pub fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// Closes what a shutdown can close: nothing, since spawning goes on
    /// working. The file is closed with the last clone.
    pub async fn close(&self) {}

    pub(crate) fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    /// Carries out a command in a transaction of the caller. It takes effect
    /// when, and only when, that commits.
    ///
    /// The transaction should have begun with `BEGIN IMMEDIATE`
    /// (`pool.begin_with`): one that began as a reader fails when another wrote
    /// since.
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
        match command {
            Command::Claim(_) | Command::Reclaim(_) => Err(Rejection::NotInTransaction.into()),
            _ => run(connection, now, command).await,
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
        let mut transaction = match command {
            Command::Find(_) => self.pool.begin().await,
            _ => self.writer.begin_with("BEGIN IMMEDIATE").await,
        }
        .map_err(failed)?;
        let reply = run(&mut transaction, now, command).await?;
        transaction.commit().await.map_err(commit_failed)?;
        Ok(reply)
    }
}

/// Whether another connection with the same name would be another database, or
/// one that is locked as a whole.
fn is_in_memory(name: &Path) -> bool {
    let name = name.to_string_lossy();
    name == IN_MEMORY || name.starts_with("file:sqlx-in-memory") || name.contains("mode=memory")
}

/// A pool of one connection, which is never given up: in memory, it is the
/// database.
fn only_connection(options: SqliteConnectOptions) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(options)
}

async fn run(
    connection: &mut SqliteConnection,
    now: Option<Timestamp>,
    command: &Command,
) -> Result<Reply, StoreError> {
    let now = match now {
        Some(now) => now,
        None => {
            let now = sqlx::query_scalar(sql::NOW).fetch_one(&mut *connection);
            Timestamp::from_micros(now.await.map_err(failed)?)
        }
    };
    match command {
        Command::Spawn(jobs) => spawn::spawn(connection, now, jobs).await,
        Command::Claim(claim) => claim::claim(connection, now, claim).await,
        Command::Finish(finishes) => finish::finish(connection, now, finishes).await,
        Command::Heartbeat(heartbeat) => lease::heartbeat(connection, now, heartbeat).await,
        Command::Checkpoint(checkpoint) => lease::checkpoint(connection, checkpoint).await,
        Command::Reclaim(reclaim) => reclaim::reclaim(connection, now, reclaim).await,
        Command::Find(job) => find::find(connection, *job).await,
    }
}
