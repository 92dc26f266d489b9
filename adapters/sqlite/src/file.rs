//! What the file of a store must be like: in WAL mode, and writable.
//!
//! In any other journal mode a reader keeps the worker from writing, and the
//! worker keeps readers from reading; its leases run out while it waits.

use std::fs;
use std::path::{self, PathBuf};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row};
use thiserror::Error;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::sql;
use crate::store::SqliteStore;

/// How long to wait for the moment in which nobody uses a file that is to change
/// its mode. SQLite's busy timeout does not hold for that.
const MOMENT_MAX: Duration = Duration::from_secs(5);
const MOMENT_LOOK: Duration = Duration::from_millis(20);
/// Transactions of the application that wait for a shorter time than this fail
/// where a worker writes.
const BUSY_TIMEOUT_MIN: Duration = Duration::from_secs(1);
const WAL: &str = "wal";
/// The first byte of an error code of SQLite tells its kind.
const KIND: u32 = 0xFF;
const BUSY: u32 = 5;
const READ_ONLY: u32 = 8;
const CANNOT_OPEN: u32 = 14;

/// A file that a store cannot work on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FileError {
    /// It is in another journal mode, and in use.
    #[error(
        "the file {file:?} is not in WAL mode, in which a worker and the application do not \
         wait for each other, and could not be set to it within 5 s, as another connection is \
         using it: {source}; end what reads or writes there and start again, or run `PRAGMA \
         journal_mode = WAL` once while nobody uses it"
    )]
    InUse {
        /// Which one.
        file: PathBuf,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// It cannot be in WAL mode where it is.
    #[error(
        "the file {file:?} cannot be set to WAL mode and stays in the journal mode `{mode}`: its \
         file system or VFS has no memory that processes share (is it a network share?); put \
         the file on a local disk"
    )]
    NoWal {
        /// Which one.
        file: PathBuf,
        /// Its journal mode.
        mode: String,
    },
    /// The pool of the application takes it out of WAL mode.
    #[error(
        "the pool of the application cannot share the file {file:?} with a worker: {reason}; \
         leave `journal_mode` and `locking_mode` out of its options, or set them to WAL and \
         NORMAL"
    )]
    Pool {
        /// Which one.
        file: PathBuf,
        /// What its next connection would do.
        reason: String,
    },
    /// It is not there, and cannot be made.
    #[error(
        "the file {file:?} cannot be opened: {source}; its directory must exist, and this \
         process must be allowed to write in it"
    )]
    CannotOpen {
        /// Which one: from the root, since a relative path depends on where the process was
        /// started.
        file: PathBuf,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// It can only be read.
    #[error(
        "the file {file:?} can only be read, and jobs are written; allow this process to write \
         it and its directory, and leave `mode=ro`, `read_only` and `immutable` out of the \
         options"
    )]
    ReadOnly {
        /// Which one.
        file: PathBuf,
    },
    /// The database failed.
    #[error("the database could not be opened: {0}")]
    Database(#[from] sqlx::Error),
}

impl SqliteStore {
    /// Sets the mode, which any connection of the store does, and opens the one that
    /// writes.
    pub(crate) async fn enter_wal_mode(&self) -> Result<(), FileError> {
        if !self.has_file() {
            self.writer().acquire().await?;
            return Ok(());
        }
        let options = self.writer().connect_options();
        // It gives up after a time of ours.
        let options = options.as_ref().clone().busy_timeout(Duration::ZERO);
        let give_up_at = Instant::now() + MOMENT_MAX;
        let habits = loop {
            match Habits::of(&options).await {
                Ok(habits) => break habits,
                Err(error) if is(&error, READ_ONLY) => return Err(self.read_only()),
                Err(error) if !is(&error, BUSY) => return Err(self.not_opened(error)),
                Err(source) if Instant::now() >= give_up_at => {
                    let file = self.filename();
                    return Err(FileError::InUse { file, source });
                }
                Err(_) => sleep(MOMENT_LOOK).await,
            }
        };
        if habits.mode != WAL {
            let (file, mode) = (self.filename(), habits.mode);
            return Err(FileError::NoWal { file, mode });
        }
        self.writer().acquire().await?;
        Ok(())
    }

    /// The same where the application has connections, and opens more.
    pub(crate) async fn enter_wal_mode_beside_pool(&self) -> Result<(), FileError> {
        if !self.has_file() {
            return Ok(());
        }
        let options = self.pool().connect_options();
        let found = match Habits::of(&options).await {
            Err(error) if is(&error, BUSY) => return Err(self.pool_keeps_it(error.to_string())),
            found => found.map_err(|error| self.not_opened(error))?,
        };
        if found.busy_timeout < BUSY_TIMEOUT_MIN {
            warn!(
                busy_timeout_ms = found.busy_timeout.as_millis(),
                "transactions of the application on the file of its jobs hardly wait while a \
                 worker writes, and fail with \"database is locked\"; give the options of the \
                 pool a busy_timeout of some seconds"
            );
        }
        self.enter_wal_mode().await?;
        if found.mode == WAL {
            return Ok(());
        }
        // Its next connection must not undo it. It has no need to wait.
        let options = options.as_ref().clone().busy_timeout(Duration::ZERO);
        let reason = match Habits::of(&options).await {
            Ok(habits) if habits.mode == WAL => {
                let (file, was) = (self.filename(), found.mode);
                info!(?file, was, "set the file of the jobs to WAL mode, for good");
                return Ok(());
            }
            Ok(habits) => format!("it sets the journal mode `{}`", habits.mode),
            Err(error) => error.to_string(),
        };
        self.close_writer().await;
        Err(self.pool_keeps_it(reason))
    }

    /// Checks that the file can be written, without waiting for anybody. The
    /// tables must exist.
    ///
    /// # Errors
    ///
    /// [`FileError::ReadOnly`], or when the database fails.
    pub async fn check_writable(&self) -> Result<(), FileError> {
        if !self.has_file() {
            return Ok(());
        }
        let options = self.writer().connect_options();
        let options = options.as_ref().clone().busy_timeout(Duration::ZERO);
        let mut connection = options.connect().await?;
        let mut transaction = connection.begin().await?;
        let locked = sqlx::query(sql::LOCK).execute(&mut *transaction).await;
        match locked {
            Err(error) if is(&error, READ_ONLY) => return Err(self.read_only()),
            // Somebody writes.
            Err(error) if is(&error, BUSY) => {}
            locked => {
                locked?;
            }
        }
        transaction.rollback().await?;
        connection.close().await?;
        Ok(())
    }

    /// The file by its one name, without links; `None` in memory.
    pub(crate) async fn file(&self) -> Result<Option<PathBuf>, sqlx::Error> {
        let file = sqlx::query_scalar(sql::DATABASE_FILE).fetch_one(self.writer());
        let file: Option<String> = file.await?;
        let file = file.filter(|file| !file.is_empty());
        // It blocks for no longer than a look at each directory of the path takes.
        Ok(file.map(|file| fs::canonicalize(&file).unwrap_or_else(|_| file.into())))
    }

    fn not_opened(&self, source: sqlx::Error) -> FileError {
        if !is(&source, CANNOT_OPEN) {
            return source.into();
        }
        let file = self.filename();
        let file = path::absolute(&file).unwrap_or(file);
        FileError::CannotOpen { file, source }
    }

    fn read_only(&self) -> FileError {
        let file = self.filename();
        FileError::ReadOnly { file }
    }

    fn pool_keeps_it(&self, reason: String) -> FileError {
        let file = self.filename();
        FileError::Pool { file, reason }
    }

    fn filename(&self) -> PathBuf {
        self.pool().connect_options().get_filename().to_owned()
    }
}

/// What connections with some options are like.
struct Habits {
    mode: String,
    busy_timeout: Duration,
}

impl Habits {
    async fn of(options: &SqliteConnectOptions) -> Result<Self, sqlx::Error> {
        let mut connection = options.connect().await?;
        let row = sqlx::query(sql::DATABASE_MODE);
        let row = row.fetch_one(&mut connection).await?;
        let (mode, busy_ms) = (row.try_get(0)?, row.try_get::<i64, _>(1)?);
        connection.close().await?;
        Ok(Self {
            mode,
            busy_timeout: Duration::from_millis(busy_ms.unsigned_abs()),
        })
    }
}

/// Whether SQLite said so, with whichever detail.
fn is(error: &sqlx::Error, kind: u32) -> bool {
    let sqlx::Error::Database(error) = error else {
        return false;
    };
    let code = error.code().and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| code & KIND == kind)
}
