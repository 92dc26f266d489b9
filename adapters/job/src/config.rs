//! How a service is configured.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use job_tokio::{Clock, ClockHandle};
use serde::{Deserialize, Serialize};

use crate::backend::{Backend, DefaultBackend, Memory};
use crate::error::JobError;
use crate::{Jobs, RunTraces};

/// How often a worker looks for due jobs while it also hears of them: a
/// fallback for what was not heard.
const POLL_INTERVAL: Duration = Duration::from_secs(15);
/// How often a worker looks for due jobs while it cannot hear of them.
const POLL_INTERVAL_DEAF: Duration = Duration::from_secs(1);

/// How the worker of a process behaves. In serialized form durations are
/// seconds, whole or with a fraction, and every field may be left out. A value out of
/// its range is no error: it counts as the nearest one in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobPollerConfig {
    /// How long a running job may go without a heartbeat before it counts as
    /// lost and is run again. Heartbeats are sent every quarter of it, lost jobs
    /// looked for every half: so a job of a dead process runs again one to one and a half
    /// times as long after its last heartbeat, 5 to 7.5 minutes by default. Default 5 min;
    /// less than 40 ms counts as 40 ms. Give all processes on one database the same.
    #[serde(with = "seconds")]
    pub job_lost_interval: Duration,
    /// At most so many jobs run at once in this process, 1 to 1,000; more counts as 1,000.
    /// While fewer run and a job is due, it is claimed. Default 50.
    /// Where runs end within milliseconds, more are claimed ahead, 2,000 at most, so
    /// that none waits for the database; they go back if they do not start soon.
    pub max_jobs_per_process: usize,
    /// A hint for the size of claims, 1 to `max_jobs_per_process`: while at least so many
    /// jobs run, claims are 50 ms apart, so that one of them fills the places of several
    /// jobs that have ended. Below that, each place is filled at once. Default 30.
    pub min_jobs_per_process: usize,
    /// How long a shutdown waits for running jobs before it aborts them and puts
    /// them back. Default 5 s; with 0 they are aborted at once. What a runner started in
    /// `spawn_blocking` or in a task of its own goes on all the same, while its job runs
    /// elsewhere: see [`RunGuard`](crate::RunGuard).
    #[serde(with = "seconds")]
    pub shutdown_timeout: Duration,
}

impl Default for JobPollerConfig {
    fn default() -> Self {
        Self {
            job_lost_interval: Duration::from_secs(5 * 60),
            max_jobs_per_process: 50,
            min_jobs_per_process: 30,
            shutdown_timeout: Duration::from_secs(5),
        }
    }
}

impl JobPollerConfig {
    /// Jobs of a process that died run again within so long, by a shorter
    /// [`job_lost_interval`](Self::job_lost_interval): two thirds of it. Give all processes on
    /// one database the same. A runner that blocks the runtime for three quarters of that
    /// interval loses its lease, and heartbeats are as often as it asks, so do not make it
    /// shorter than you need.
    ///
    /// Less than 60 ms counts as 60 ms. What the database takes to answer comes on top, and so
    /// does the wait for a process that has room: do not count on fractions of a second.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use job::JobPollerConfig;
    ///
    /// let config = JobPollerConfig::default().recovery_within(Duration::from_secs(30));
    /// assert_eq!(config.job_lost_interval, Duration::from_secs(20));
    /// ```
    #[must_use]
    pub fn recovery_within(mut self, within: Duration) -> Self {
        self.job_lost_interval = within / 3 * 2;
        self
    }
}

/// What [`Jobs::init`](crate::Jobs::init) needs: where the jobs are, how to
/// poll, and what time it is.
#[derive(Clone, Debug)]
pub struct JobSvcConfig<B: Backend = DefaultBackend> {
    pub(crate) backend: B::Options,
    pub(crate) poll_interval: Duration,
    pub(crate) poll_interval_deaf: Duration,
    pub(crate) seed: Option<[u8; 32]>,
    pub(crate) run_traces: RunTraces,
    /// How the worker behaves. Default [`JobPollerConfig::default`].
    pub poller_config: JobPollerConfig,
    /// What time it is. Default the global [`Clock`], as it was when this was built: real
    /// time, unless installed otherwise.
    pub clock: ClockHandle,
}

/// Gathers a [`JobSvcConfig`]. Awaited, it opens the service by itself: what
/// [`Jobs::connect`] returns is one.
#[derive(Clone, Debug)]
#[must_use]
pub struct JobSvcConfigBuilder<B: Backend = DefaultBackend> {
    backend: B::Options,
    poller_config: JobPollerConfig,
    poll_interval: Option<Duration>,
    poll_interval_deaf: Option<Duration>,
    clock: Option<ClockHandle>,
    seed: Option<[u8; 32]>,
    run_traces: RunTraces,
}

impl<B: Backend> JobSvcConfigBuilder<B> {
    fn new(backend: B::Options) -> Self {
        Self {
            backend,
            poller_config: JobPollerConfig::default(),
            poll_interval: None,
            poll_interval_deaf: None,
            clock: None,
            seed: None,
            run_traces: RunTraces::default(),
        }
    }

    /// How the worker behaves. Default [`JobPollerConfig::default`].
    pub fn poller_config(mut self, poller_config: JobPollerConfig) -> Self {
        self.poller_config = poller_config;
        self
    }

    /// How often to look for due jobs that nobody announced. Default 15 s while
    /// announcements of other processes arrive, and 1 s while they cannot; a
    /// value given here holds for both. Less than 10 ms counts as 10 ms.
    pub fn poll_interval(mut self, poll_interval: Duration) -> Self {
        self.poll_interval = Some(poll_interval);
        self
    }

    /// How often to look while no announcement can arrive, if not as often as
    /// else; for simulations.
    #[cfg(feature = "sim")]
    #[doc(hidden)]
    pub fn poll_interval_deaf(mut self, poll_interval_deaf: Duration) -> Self {
        self.poll_interval_deaf = Some(poll_interval_deaf);
        self
    }

    /// The clock. Default: the global [`Clock`], which is real time unless
    /// installed otherwise.
    ///
    /// All services on the same tables need the same artificial clock: clones of one
    /// [`ClockHandle`]. With two, each would lose the jobs of the other, or keep them
    /// for ever. So [`Jobs::init`](crate::Jobs::init) refuses the second with
    /// [`JobError::Config`](crate::JobError::Config): on Postgres if it is in the same
    /// schema of the same database, in any process; on SQLite if it is in the same
    /// file. It does so until the first service is shut down, or dropped with its spawners;
    /// what was dropped just now it waits for, 5 s at most.
    ///
    /// What is not detected: a service in real time beside an artificial clock; clocks
    /// that follow tokio's time or one of es-entity; services with `poll_only`; databases
    /// of SQLite in memory that share a cache; and a service on Postgres that has lost its
    /// connection to the server since it began.
    pub fn clock(mut self, clock: impl Into<ClockHandle>) -> Self {
        self.clock = Some(clock.into());
        self
    }

    /// What the randomness of the service is seeded with: the identity of its
    /// worker, the keys of its spawns, all jitter. Default: the operating
    /// system.
    ///
    /// For simulations and tests that are to be repeated. Two processes on one
    /// database must never have the same seed, nor a process the seed of an
    /// earlier one: the database could not tell them apart.
    pub fn seed(mut self, seed: [u8; 32]) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How the traces of runs hang together with those in which their jobs were spawned.
    /// Default [`RunTraces::Auto`]. For the feature `opentelemetry`.
    pub fn run_traces(mut self, run_traces: RunTraces) -> Self {
        self.run_traces = run_traces;
        self
    }

    /// As [`JobSvcConfigBuilder::build`], with an error that `?` takes.
    ///
    /// # Errors
    ///
    /// [`JobError::Config`] with what is missing or contradicts itself.
    pub fn try_build(self) -> Result<JobSvcConfig<B>, JobError> {
        self.build().map_err(JobError::Config)
    }

    /// Checks what was gathered.
    ///
    /// # Errors
    ///
    /// A text that says what is missing or contradicts itself.
    pub fn build(self) -> Result<JobSvcConfig<B>, String> {
        B::check(&self.backend)?;
        Ok(JobSvcConfig {
            backend: self.backend,
            poll_interval: self.poll_interval.unwrap_or(POLL_INTERVAL),
            poll_interval_deaf: self
                .poll_interval_deaf
                .or(self.poll_interval)
                .unwrap_or(POLL_INTERVAL_DEAF),
            poller_config: self.poller_config,
            seed: self.seed,
            run_traces: self.run_traces,
            clock: self.clock.unwrap_or_else(|| Clock::handle().clone()),
        })
    }
}

impl<B: Backend> IntoFuture for JobSvcConfigBuilder<B> {
    type Output = Result<Jobs<B>, JobError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    /// Checks what was gathered, and opens the service, as [`Jobs::init`] does.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Jobs::init(self.try_build()?).await })
    }
}

impl<B: Backend> JobSvcConfig<B> {
    /// A service on any backend, one of the application's own in particular.
    /// [`Backend`] has an example.
    pub fn with_backend(options: B::Options) -> JobSvcConfigBuilder<B> {
        JobSvcConfigBuilder::new(options)
    }
}

impl JobSvcConfig<Memory> {
    /// A service in memory: its jobs are gone with the process.
    pub fn memory() -> JobSvcConfigBuilder<Memory> {
        Self::with_backend(Default::default())
    }
}

mod any {
    use super::*;
    use crate::AnyBackend;

    impl JobSvcConfigBuilder<AnyBackend> {
        /// Whether the tables are made, or upgraded, if they do not fit. Default `true`. It
        /// has no effect in memory, where there are none.
        pub fn exec_migrations(mut self, exec_migrations: bool) -> Self {
            self.backend.exec_migrations(exec_migrations);
            self
        }
    }

    /// Settings of Postgres. Where the URL names another database, they are refused when the
    /// service is opened.
    #[cfg(feature = "postgres")]
    impl JobSvcConfigBuilder<AnyBackend> {
        /// The size of the pool, from 1; 0 is refused with [`JobError::Config`], and a worker
        /// needs 2. Connections are opened when they are needed. Default: 10 more than
        /// [`JobPollerConfig::max_jobs_per_process`], so 60. The service opens up to eight
        /// more, beside the pool.
        pub fn max_connections(mut self, max_connections: u32) -> Self {
            self.backend.on_postgres("max_connections", |of| {
                of.max_connections = Some(max_connections)
            });
            self
        }

        /// How long the first connection may take, and at the start each answer of the
        /// database. The lock of other migrations is waited for that long, or 30 s if
        /// that is longer. Default 10 s.
        pub fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
            self.backend
                .on_postgres("connect_timeout", |of| of.connect_timeout = connect_timeout);
            self
        }

        /// The schema that the tables are in, created by the migrations if need be.
        /// Default: none is named, so it is the one in which the `search_path` of the
        /// connection finds them at the start.
        pub fn schema(mut self, schema: impl Into<String>) -> Self {
            self.backend
                .on_postgres("schema", |of| of.store.schema = Some(schema.into()));
            self
        }

        /// For connections through a transaction pooler such as PgBouncer: no
        /// LISTEN and no session settings, so jobs of other processes are found
        /// by polling only, and no NOTIFY in transactions of the application. Default
        /// `false`.
        pub fn poll_only(mut self, poll_only: bool) -> Self {
            self.backend
                .on_postgres("poll_only", |of| of.store.poll_only = poll_only);
            self
        }

        /// Whether a job that is spawned in a transaction of the application is announced by
        /// a NOTIFY in that transaction. Default `true`, except with
        /// [`poll_only`](Self::poll_only).
        ///
        /// What it costs: the transaction cannot be prepared (PREPARE TRANSACTION); its
        /// commit takes a lock that all commits with a NOTIFY share; and it fails if some
        /// session that listens stays in a transaction until the server's queue of
        /// notifications is full. Without it the next poll finds the job, also in the
        /// process that spawned it: within 15 s by default
        /// ([`poll_interval`](Self::poll_interval)). Operations of es-entity announce after
        /// their commit, whatever is set.
        pub fn notify_in_transactions(mut self, notify_in_transactions: bool) -> Self {
            self.backend.on_postgres("notify_in_transactions", |of| {
                of.store.notify_in_transactions = notify_in_transactions;
            });
            self
        }
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use super::*;
    use crate::Postgres;

    impl JobSvcConfig<Postgres> {
        /// A service on Postgres.
        pub fn builder() -> JobSvcConfigBuilder<Postgres> {
            Self::with_backend(Default::default())
        }
    }

    impl JobSvcConfigBuilder<Postgres> {
        /// The connection string, `postgres://user:password@host:port/database`.
        /// Give this or a pool.
        pub fn pg_con(mut self, pg_con: impl Into<String>) -> Self {
            self.backend.pg_con = Some(pg_con.into());
            self
        }

        /// A pool of the application's. Give this or a connection string.
        ///
        /// The service opens up to eight further connections with the same options: up
        /// to five for its worker, so that runners that use up the pool cannot keep it
        /// from renewing their leases, and three for spawns and announcements. With an
        /// artificial clock it opens one more, which keeps other such clocks away. They
        /// take the options that the pool has when they are opened, so credentials rotate
        /// with [`set_connect_options`](sqlx::Pool::set_connect_options). They do not run
        /// its hooks: what those set (a role, a `search_path`) belongs into its options.
        ///
        /// Give it a connection for each job that runs at once
        /// ([`JobPollerConfig::max_jobs_per_process`]) and a few more.
        ///
        /// Give it the hook that [`is_in_transaction`] shows, or what the
        /// application itself writes on the pool may be lost after a `begin` whose
        /// future was dropped; jobs are safe from that in any case.
        ///
        /// [`is_in_transaction`]: crate::backend::is_in_transaction
        pub fn pool(mut self, pool: sqlx::PgPool) -> Self {
            self.backend.pool = Some(pool);
            self
        }

        /// The size of the pool that is made for a connection string, from 1; a worker
        /// needs 2. Refused with [`JobError::Config`] if it is 0, or beside a pool of yours.
        /// Connections are opened when they are needed. Default: 10 more
        /// than [`JobPollerConfig::max_jobs_per_process`], so 60.
        pub fn max_connections(mut self, max_connections: u32) -> Self {
            self.backend.max_connections = Some(max_connections);
            self
        }

        /// How long the first connection may take, and at the start each answer of the
        /// database. The lock of other migrations is waited for that long, or 30 s if
        /// that is longer. Default 10 s.
        pub fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
            self.backend.connect_timeout = connect_timeout;
            self
        }

        /// Whether [`Jobs::init`](crate::Jobs::init) runs the migrations.
        /// Default: with a connection string yes, with a pool no. Tables that fit are left
        /// alone: that takes no lock, and no right to create anything. Their ledger is
        /// `job_schema`, not the application's `_sqlx_migrations`.
        pub fn exec_migrations(mut self, exec_migrations: bool) -> Self {
            self.backend.exec_migrations = Some(exec_migrations);
            self
        }

        /// The schema that the tables are in, created by the migrations if need
        /// be. Default: none is named, so it is the one in which the `search_path` of the
        /// pool's connect options finds them at the start.
        pub fn schema(mut self, schema: impl Into<String>) -> Self {
            self.backend.store.schema = Some(schema.into());
            self
        }

        /// For connections through a transaction pooler such as PgBouncer: no
        /// LISTEN and no session settings, so jobs of other processes are found
        /// by polling only, and no NOTIFY in transactions of the application. Default
        /// `false`.
        pub fn poll_only(mut self, poll_only: bool) -> Self {
            self.backend.store.poll_only = poll_only;
            self
        }

        /// Whether a job that is spawned in a transaction of the application is announced
        /// by a NOTIFY in that transaction. Default `true`, except with
        /// [`poll_only`](Self::poll_only).
        ///
        /// What it costs: the transaction cannot be prepared (PREPARE TRANSACTION); its
        /// commit takes a lock that all commits with a NOTIFY share; and it fails if some
        /// session that listens stays in a transaction until the server's queue of
        /// notifications is full. Without it the next poll finds the job, also in the
        /// process that spawned it: within 15 s by default
        /// ([`poll_interval`](Self::poll_interval)). Operations of es-entity announce after
        /// their commit, whatever is set.
        pub fn notify_in_transactions(mut self, notify_in_transactions: bool) -> Self {
            self.backend.store.notify_in_transactions = notify_in_transactions;
            self
        }
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use std::path::PathBuf;

    use super::*;
    use crate::Sqlite;

    impl JobSvcConfig<Sqlite> {
        /// A service on a SQLite file.
        pub fn sqlite() -> JobSvcConfigBuilder<Sqlite> {
            Self::with_backend(Default::default())
        }
    }

    impl JobSvcConfigBuilder<Sqlite> {
        /// The file, created if it is missing; `:memory:` for none. Give this
        /// or a pool.
        ///
        /// One process at a time should use it; a lock on an empty file beside it,
        /// `<file>-job-lock`, tells whether another does. If none does,
        /// [`Jobs::init`](crate::Jobs::init) takes back what an earlier process left
        /// running when it was killed: those jobs are due at once, at the same
        /// attempt, and it counts as an interruption, not as a crash. If another
        /// does, that is told to `tracing`, and such jobs wait until their leases run
        /// out, as they do in all other databases.
        pub fn path(mut self, path: impl Into<PathBuf>) -> Self {
            self.backend.path = Some(path.into());
            self
        }

        /// A pool of the application's. Give this or a path.
        ///
        /// A file that is not in WAL mode is set to it, for good, which is told to
        /// `tracing`; [`Jobs::init`](crate::Jobs::init) refuses it if that cannot be
        /// done within 5 s. The service opens one further connection with the same
        /// options, but with a busy timeout of 20 s. Give the pool one, too: while the
        /// worker writes, transactions of the application wait for it.
        pub fn pool(mut self, pool: sqlx::SqlitePool) -> Self {
            self.backend.pool = Some(pool);
            self
        }

        /// Whether [`Jobs::init`](crate::Jobs::init) makes or upgrades the tables if
        /// they do not fit. It keeps to tables of its own: migrations of the
        /// application on the same file are not disturbed. Default: with a path yes,
        /// with a pool no.
        pub fn exec_migrations(mut self, exec_migrations: bool) -> Self {
            self.backend.exec_migrations = Some(exec_migrations);
            self
        }
    }
}

mod seconds {
    //! Durations as seconds, to the nanosecond below 100 days and else as
    //! exactly as a number in JSON is read by most: as a double.

    use std::time::Duration;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    /// From here on a double has no place for a fraction, and the longest
    /// durations would become one that is too long.
    const WHOLE_SECS_MIN: u64 = 1 << f64::MANTISSA_DIGITS;

    pub(super) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        if duration.subsec_nanos() == 0 || duration.as_secs() >= WHOLE_SECS_MIN {
            serializer.serialize_u64(duration.as_secs())
        } else {
            serializer.serialize_f64(duration.as_secs_f64())
        }
    }

    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a number of seconds")]
    enum Seconds {
        Whole(u64),
        Fraction(f64),
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        match Seconds::deserialize(deserializer)? {
            Seconds::Whole(secs) => Ok(Duration::from_secs(secs)),
            Seconds::Fraction(secs) => Duration::try_from_secs_f64(secs).map_err(D::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_the_poller_config_may_be_left_out() {
        let config: JobPollerConfig = serde_json::from_str("{}").unwrap();
        assert_eq!(config, JobPollerConfig::default());
        let config: JobPollerConfig =
            serde_json::from_str(r#"{"job_lost_interval":60,"shutdown_timeout":0.5}"#).unwrap();
        assert_eq!(config.job_lost_interval, Duration::from_secs(60));
        assert_eq!(config.shutdown_timeout, Duration::from_millis(500));
        let json = serde_json::to_string(&JobPollerConfig::default()).unwrap();
        assert!(json.contains(r#""job_lost_interval":300"#), "{json}");
    }

    /// Found by fuzzing: `Duration::MAX` was written as a number that was refused
    /// when it was read.
    #[test]
    fn every_config_that_is_written_can_be_read() {
        for secs in [0, 1, 300, 1 << 22, 1 << 52, 1 << 53, u64::MAX] {
            for nanos in [0, 1, 500_000_000, 999_999_999] {
                let written = JobPollerConfig {
                    job_lost_interval: Duration::new(secs, nanos),
                    ..JobPollerConfig::default()
                };
                let json = serde_json::to_string(&written).unwrap();
                let read: JobPollerConfig = serde_json::from_str(&json).unwrap();
                let off = written.job_lost_interval.abs_diff(read.job_lost_interval);
                // Half of the last of 53 bits.
                assert!(
                    off <= Duration::from_secs(secs) / (1 << 26) / (1 << 26),
                    "{json}"
                );
            }
        }
    }

    #[test]
    fn a_negative_or_absurd_duration_is_refused() {
        for bad in ["-1", "1e300", "\"5s\""] {
            let json = format!(r#"{{"shutdown_timeout":{bad}}}"#);
            assert!(
                serde_json::from_str::<JobPollerConfig>(&json).is_err(),
                "{bad}"
            );
        }
    }
}
