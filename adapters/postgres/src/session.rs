//! Connections: those of the worker, and what becomes of one whose command did
//! not end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use job_engine::StoreError;
use job_engine::gather::UNDER_WAY_MAX;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, Executor, PgConnection, PgPool, Postgres, Transaction};

use crate::error::read_error;
use crate::pools::OwnPool;

/// The worker's connections: one for each kind of command, so that none waits for
/// another, heartbeats least of all.
const WORKER_CONNECTIONS: u32 = 4;
/// One for each batch of spawns that may be under way.
const SPAWNER_CONNECTIONS: u32 = UNDER_WAY_MAX as u32;
/// How long a command waits for a connection of the worker.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long that may take.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// The code of "current transaction is aborted".
const IN_FAILED_TRANSACTION: &str = "25P02";

/// What holds for the worker's commands.
///
/// The statistics of a queue are out of date as soon as they are made. So plans that
/// read a whole table are ruled out, and the statements are written so that each finds
/// its rows in one way only, whatever the statistics say. Plans that are made whenever
/// it pleases autovacuum are then good enough to be kept in between. Pinned by
/// `no_statement_costs_more_among_a_million_jobs` and its kin. Compiling a plan because
/// its estimate is absurd is ruled out too. The timeouts are shorter than the driver's
/// longest, so that a command which was given up on does not linger.
const WORKER_SETTINGS: [(&str, &str); 8] = [
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_indexscan", "on"),
    ("enable_nestloop", "on"),
    ("jit", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    ("statement_timeout", "'20s'"),
    ("lock_timeout", "'5s'"),
];

/// What holds for spawns that share a commit, except behind a pooler: they look nothing
/// up, so one plan serves for ever, and they wait for nobody for long, since each of
/// them can go alone.
const SPAWNER_SETTINGS: [(&str, &str); 4] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
    ("statement_timeout", "'5s'"),
    ("lock_timeout", "'1s'"),
];

/// What holds for announcements, except behind a pooler. They are hints, so their
/// commits need not wait for the disk.
const ANNOUNCER_SETTINGS: [(&str, &str); 2] =
    [("synchronous_commit", "off"), ("statement_timeout", "'5s'")];

/// The statements rely on what READ COMMITTED does with rows that change while
/// they wait, whatever the default of the database is.
pub(crate) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// Pools of our own, on the database of the application's pool. They open nothing
/// until it is needed.
///
/// They share no connection with the application, so runners that use up the pool
/// of the application cannot keep the worker from renewing its leases.
#[derive(Debug)]
pub(crate) struct OwnPools {
    pub(crate) worker: OwnPool,
    /// For spawns that share a commit.
    pub(crate) spawner: OwnPool,
    pub(crate) announcer: OwnPool,
}

impl OwnPools {
    pub(crate) fn new(pool: &PgPool, poll_only: bool) -> Self {
        let own = |connections, settings: &[(&str, &str)]| {
            let settings = (!poll_only).then(|| set_all("SET", settings));
            let own = sqlx_pool(pool, connections, settings);
            OwnPool::new(own, pool.clone(), poll_only)
        };
        Self {
            worker: own(WORKER_CONNECTIONS, &WORKER_SETTINGS),
            spawner: own(SPAWNER_CONNECTIONS, &SPAWNER_SETTINGS),
            announcer: own(1, &ANNOUNCER_SETTINGS),
        }
    }

    /// Closes those of the worker. The others go on, as spawning does.
    pub(crate) async fn close(&self) {
        self.worker.close().await;
    }
}

/// Without `settings` where a pooler would give them to others.
fn sqlx_pool(pool: &PgPool, connections: u32, settings: Option<String>) -> PgPool {
    let connect = connect_options(pool, settings.is_none());
    let own_pool = PgPoolOptions::new()
        .min_connections(0)
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT);
    let Some(settings) = settings else {
        return own_pool.connect_lazy_with(connect);
    };
    // Not as parameters of the connection: many proxies refuse those.
    let isolation = "SET default_transaction_isolation = 'read committed'";
    let settings: Arc<str> = format!("{isolation}; {settings}").into();
    own_pool
        .after_connect(move |connection, _| {
            let settings = Arc::clone(&settings);
            Box::pin(async move {
                connection.execute(&*settings).await?;
                Ok(())
            })
        })
        .connect_lazy_with(connect)
}

/// The options that the application's pool has now, with a name if it gave none.
pub(crate) fn connect_options(pool: &PgPool, poll_only: bool) -> PgConnectOptions {
    let mut options = pool.connect_options().as_ref().clone();
    if options.get_application_name().is_none() {
        options = options.application_name("job");
    }
    if poll_only {
        options = for_poolers(options);
    }
    options
}

/// Poolers refuse parameters that they do not know, of which sqlx sends one. It makes
/// floats exact, of which we read none, and which servers do by themselves by now.
pub(crate) fn for_poolers(options: PgConnectOptions) -> PgConnectOptions {
    options.extra_float_digits(None)
}

/// Begins a transaction with the worker's settings, for poolers that do not
/// keep those of a session. It also keeps a statement and its parameters on one
/// connection. One round trip.
pub(crate) async fn begin_with_settings(
    connection: &mut PgConnection,
) -> Result<Transaction<'_, Postgres>, StoreError> {
    let begin = format!("{BEGIN}; {}", set_all("SET LOCAL", &WORKER_SETTINGS));
    connection.begin_with(begin).await.map_err(read_error)
}

fn set_all(set: &str, settings: &[(&str, &str)]) -> String {
    let settings = settings.iter();
    let settings = settings.map(|(name, value)| format!("{set} {name} = {value}"));
    settings.collect::<Vec<_>>().join("; ")
}

/// Whether the server has the connection in a transaction, where sqlx only knows of
/// those whose `begin` has ended. For a hook of a pool:
///
/// ```
/// # mod job { pub use job_postgres as backend; } // Its readers have the crate `job`.
/// use job::backend::is_in_transaction;
/// use sqlx::postgres::PgPoolOptions;
///
/// let pool = PgPoolOptions::new().after_release(|connection, _| {
///     Box::pin(async move { Ok(!is_in_transaction(connection).await?) })
/// });
/// ```
///
/// With sqlx 0.8 a `begin` whose future is dropped before it ends, by a timeout or
/// an abort, gives its connection back to the pool in the middle of a transaction.
/// What is written on it next, and not in a transaction, is acknowledged and never
/// committed. With this hook such a connection is closed. One round trip.
///
/// # Errors
///
/// Those of the connection.
pub async fn is_in_transaction(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    // All of sqlx that shows it: this fails where its statement, whatever it is, has
    // not begun a transaction.
    match connection.begin_with("SELECT").await {
        Ok(_) => Ok(true),
        Err(sqlx::Error::BeginFailed) => Ok(false),
        Err(sqlx::Error::Database(error))
            if error.code().as_deref() == Some(IN_FAILED_TRANSACTION) =>
        {
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// The same of a connection that is between two uses, and must answer soon: a peer
/// that is gone without a word never does.
pub(crate) async fn is_left_behind(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let asked = tokio::time::timeout(PING_TIMEOUT, is_in_transaction(connection)).await;
    asked.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
