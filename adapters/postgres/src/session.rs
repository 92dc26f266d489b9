//! Connections: those of the worker, and what becomes of one whose command did
//! not end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use job_engine::gather::UNDER_WAY_MAX;
use job_engine::{Command, StoreError};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, Executor, PgConnection, PgPool, Postgres, Transaction};

use crate::error::read_error;

/// Connections for one kind of command of the worker: it sends one at a time.
const CONNECTIONS_OF_KIND: u32 = 1;
/// One for each batch of spawns that may be under way.
const SPAWNER_CONNECTIONS: u32 = UNDER_WAY_MAX as u32;
/// How long a command waits for a connection of the worker.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that was idle for so long is tried out before it is used.
const IDLE_TRUSTED: Duration = Duration::from_secs(20);
/// How long that may take.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// The code of "current transaction is aborted".
const IN_FAILED_TRANSACTION: &str = "25P02";

/// What holds for the worker's commands.
///
/// The statistics of a queue are out of date as soon as they are made. So plans that
/// read a whole table are ruled out, and the statements are written so that one plan
/// is left for each, whatever the statistics say: it is made once and kept. Pinned by
/// `no_statement_costs_more_among_a_million_jobs` and its kin. Compiling a plan because
/// its estimate is absurd is ruled out too. The timeouts are shorter than the driver's
/// longest, so that a command which was given up on does not linger.
const WORKER_SETTINGS: [(&str, &str); 6] = [
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
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
    /// One for each kind of command of the worker. So none waits for another, heartbeats
    /// least of all, and no connection prepares what others carry out.
    claims: PgPool,
    finishes: PgPool,
    heartbeats: PgPool,
    reclaims: PgPool,
    /// For spawns that share a commit.
    pub(crate) spawner: PgPool,
    pub(crate) announcer: PgPool,
}

impl OwnPools {
    pub(crate) fn new(pool: &PgPool, poll_only: bool) -> Self {
        let own = |connections, settings: &[(&str, &str)]| {
            let settings = (!poll_only).then(|| set_all("SET", settings));
            own_pool(pool, connections, settings)
        };
        Self {
            claims: own(CONNECTIONS_OF_KIND, &WORKER_SETTINGS),
            finishes: own(CONNECTIONS_OF_KIND, &WORKER_SETTINGS),
            heartbeats: own(CONNECTIONS_OF_KIND, &WORKER_SETTINGS),
            reclaims: own(CONNECTIONS_OF_KIND, &WORKER_SETTINGS),
            spawner: own(SPAWNER_CONNECTIONS, &SPAWNER_SETTINGS),
            announcer: own(1, &ANNOUNCER_SETTINGS),
        }
    }

    /// Those of the worker for this kind of command, if it sends it.
    pub(crate) fn of(&self, command: &Command) -> Option<&PgPool> {
        match command {
            Command::Claim(_) => Some(&self.claims),
            Command::Finish(_) => Some(&self.finishes),
            Command::Heartbeat(_) => Some(&self.heartbeats),
            Command::Reclaim(_) => Some(&self.reclaims),
            Command::Spawn(_) | Command::Checkpoint(_) | Command::Find(_) => None,
        }
    }

    /// Closes those of the worker. The others go on, as spawning does.
    pub(crate) async fn close(&self) {
        for pool in [
            &self.claims,
            &self.finishes,
            &self.heartbeats,
            &self.reclaims,
        ] {
            pool.close().await;
            // A connection that was just being given back may have come too late to
            // be closed; now it is there.
            pool.close().await;
        }
    }
}

/// Without `settings` where a pooler would give them to others.
fn own_pool(pool: &PgPool, connections: u32, settings: Option<String>) -> PgPool {
    let connect = connect_options(pool);
    let own_pool = PgPoolOptions::new()
        .min_connections(0)
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // Asking each time would double the round trips; a connection that
        // broke since shows at the command itself, which is repeated then.
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for >= IDLE_TRUSTED {
                    let ping = tokio::time::timeout(PING_TIMEOUT, connection.ping()).await;
                    ping.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                }
                Ok(true)
            })
        });
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

/// The options of the application's pool, with a name if it gave none.
pub(crate) fn connect_options(pool: &PgPool) -> PgConnectOptions {
    let options = pool.connect_options().as_ref().clone();
    match options.get_application_name() {
        Some(_) => options,
        None => options.application_name("job"),
    }
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
/// use sqlx::postgres::PgPoolOptions;
///
/// let pool = PgPoolOptions::new().after_release(|connection, _| {
///     Box::pin(async move { Ok(!job_postgres::is_in_transaction(connection).await?) })
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

/// A pooled connection while a command runs on it.
///
/// A command that does not end well, because its future was dropped or the
/// connection broke, takes its connection out of the pool. Returned, it would first
/// be waited for, and a peer that is gone without a word answers never: a few of
/// those and the pool would be empty for good.
pub(crate) struct Busy(Option<PoolConnection<Postgres>>);

impl Busy {
    pub(crate) async fn acquire(pool: &PgPool) -> Result<Self, sqlx::Error> {
        Ok(Self(Some(pool.acquire().await?)))
    }

    /// A connection of the application, in no transaction.
    ///
    /// One that somebody left in a transaction ([`is_in_transaction`], sqlx issue
    /// 4393) is closed, and so is one that turns out to be dead. One round trip.
    /// Pinned by
    /// `a_begin_that_is_dropped_at_any_await_takes_no_later_spawn_with_it`.
    pub(crate) async fn acquire_idle(pool: &PgPool) -> Result<Self, sqlx::Error> {
        // After all that were in the pool it makes a new one.
        let mut tries = pool.options().get_max_connections();
        loop {
            let mut busy = Self::acquire(pool).await?;
            match is_left_behind(busy.connection()).await {
                Ok(false) => return Ok(busy),
                Ok(true) if tries == 0 => {
                    let text = "every connection of the pool is in a transaction that was begun \
                                past sqlx; begin none in the hooks of the pool";
                    return Err(sqlx::Error::Configuration(text.into()));
                }
                Err(error) if tries == 0 => return Err(error),
                Ok(true) | Err(_) => tries -= 1,
            }
        }
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        self.0
            .as_mut()
            .expect("only give_back() takes the connection")
    }

    /// The command has ended with this result.
    pub(crate) fn done<T>(self, result: &Result<T, StoreError>) {
        match result {
            // A begin that failed half way leaves a transaction behind.
            Err(StoreError::Unknown(_) | StoreError::Failed(_)) => {}
            Ok(_) | Err(StoreError::Rejected(_)) => self.give_back(),
        }
    }

    /// Back to the pool: nothing was left undone.
    pub(crate) fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}
