//! Opening a database: which file, and how its connections behave.

use std::path::Path;
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqlitePoolOptions,
    SqliteSynchronous,
};

/// How long what the store writes waits for others that write. Longer than any
/// of them should take.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes that the write-ahead log keeps for later when it begins anew. SQLite
/// does that about every 1,000 pages, 4 MiB, unless a reader pins what is in it;
/// with room for four times that, an ordinary log is never cut and grown again,
/// and what a slow reader made of it is given back. SQLite's own default is to
/// keep all of it for ever.
const LOG_KEPT_BYTES: &str = "16777216";

/// How SQLite writes a database without a file.
const IN_MEMORY: &str = ":memory:";
/// What sqlx calls the ones that it opens by the URL `sqlite::memory:`.
const IN_MEMORY_BY_URL: &str = "file:sqlx-in-memory-";

/// How [`SqliteStore::open_with`](crate::SqliteStore::open_with) opens a
/// database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// How long a transaction waits for the one that writes. Default: 20 s.
    pub busy_timeout: Duration,
    /// Connections of [`SqliteStore::pool`](crate::SqliteStore::pool), for what
    /// the application itself reads and writes; at least one. Default: 5.
    ///
    /// In memory there is one connection in all.
    pub connections_max: u32,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            busy_timeout: BUSY_TIMEOUT,
            connections_max: 5,
        }
    }
}

/// The pool of an application, and the connection for what writes.
pub(crate) struct Pools {
    pub(crate) pool: SqlitePool,
    /// `None` where the pool has the only connection.
    pub(crate) writer: Option<SqlitePool>,
}

impl Pools {
    /// Opens nothing yet.
    pub(crate) fn at(place: &Path, options: &OpenOptions) -> Result<Self, sqlx::Error> {
        let connect = connect_options(place)?.busy_timeout(options.busy_timeout);
        if is_in_memory(&connect) {
            return Ok(Self {
                pool: only_connection(connect),
                writer: None,
            });
        }
        let connect = in_wal_mode(connect)
            .create_if_missing(true)
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new()
            .max_connections(options.connections_max.max(1))
            .connect_lazy_with(connect.clone());
        let writer = Some(only_connection(connect));
        Ok(Self { pool, writer })
    }

    /// Opens nothing yet.
    pub(crate) fn of(pool: SqlitePool) -> Self {
        let connect = pool.connect_options();
        let writer = (!is_in_memory(&connect)).then(|| {
            // The application may have none, or keep a file to one connection.
            let connect = in_wal_mode(connect.as_ref().clone())
                .busy_timeout(BUSY_TIMEOUT)
                .locking_mode(SqliteLockingMode::Normal);
            only_connection(connect)
        });
        Self { pool, writer }
    }
}

fn in_wal_mode(options: SqliteConnectOptions) -> SqliteConnectOptions {
    options
        .journal_mode(SqliteJournalMode::Wal)
        .pragma("journal_size_limit", LOG_KEPT_BYTES)
}

/// A path, or a URL that begins with `sqlite:`.
fn connect_options(place: &Path) -> Result<SqliteConnectOptions, sqlx::Error> {
    match place.to_str() {
        Some(IN_MEMORY) => Ok(SqliteConnectOptions::new().in_memory(true)),
        Some(url) if url.starts_with("sqlite:") => url.parse(),
        _ => Ok(SqliteConnectOptions::new().filename(place)),
    }
}

/// Whether another connection would see another database, or have to wait for
/// the locks of single tables.
fn is_in_memory(options: &SqliteConnectOptions) -> bool {
    let name = options.get_filename().to_string_lossy();
    name.is_empty()
        || name == IN_MEMORY
        || name.starts_with(IN_MEMORY_BY_URL)
        || name.contains("mode=memory")
}

/// A pool of one connection that is never given up: in memory, it is the
/// database.
fn only_connection(options: SqliteConnectOptions) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        // A file does not go away as a server does, and each test is a round
        // trip to the connection's thread.
        .test_before_acquire(false)
        .connect_lazy_with(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_memory(place: &str) -> bool {
        is_in_memory(&connect_options(Path::new(place)).unwrap())
    }

    #[test]
    fn a_database_without_a_file_is_told_from_one_with() {
        for place in [":memory:", "sqlite::memory:", "sqlite://:memory:"] {
            assert!(in_memory(place), "{place}");
        }
        for place in [
            "jobs.db",
            "/var/memory/jobs.db",
            "sqlite:jobs.db",
            "sqlite:///var/:memory:/jobs.db?mode=rwc",
        ] {
            assert!(!in_memory(place), "{place}");
        }
    }
}
