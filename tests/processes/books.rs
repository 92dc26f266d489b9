//! The tables of the application whose jobs these are: a ledger of what its work
//! did, and a diary of what its processes saw. The same on Postgres and SQLite.
//!
//! All times in them are microseconds since 1970 by the clock of the database,
//! which is also the clock of the jobs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use job::backend::{Backend, begin_immediate};
use job::{JobSvcConfig, JobSvcConfigBuilder, Postgres, Sqlite};
use job_engine::lifecycle::RunEnd;
use serde::{Deserialize, Serialize};
use sqlx::Executor;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use uuid::Uuid;

use super::audit::{End, Evidence, Spec};

/// Microseconds since 1970.
pub type Micros = i64;

/// The clock of the database, as far as a process knows it without asking.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    ahead: Micros,
}

impl Clock {
    /// The clock that just said `now`.
    pub fn set(now: Micros) -> Self {
        let ahead = now - machine_time();
        Self { ahead }
    }

    /// That of the machine, which is SQLite's.
    pub fn of_machine() -> Self {
        Self { ahead: 0 }
    }

    pub fn now(self) -> Micros {
        machine_time() + self.ahead
    }
}

fn machine_time() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("it is after 1970").as_micros() as Micros
}

/// What work left behind: exactly once where it was part of the transaction
/// that ended its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub job: Uuid,
    pub run: Uuid,
    /// Which of the turns of a job that has several; 0 for others.
    pub turn: u32,
}

/// What somebody saw, or is about to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Line {
    /// A worker polls from now on.
    Polls { worker: Uuid },
    /// A runner began.
    Started {
        run: Uuid,
        job: Uuid,
        attempt: u32,
        worker: Uuid,
        /// Counts the runs of its process.
        place: u64,
        /// The execution state that it found.
        found: Option<State>,
    },
    /// It heard that its lease is lost: by the signal, or because its execution
    /// state was refused.
    Told { run: Uuid },
    /// Its execution state was kept, at this turn.
    Kept { run: Uuid, turn: u32 },
    /// It is about to end so.
    Ending { run: Uuid, how: Meant },
    /// Its future was dropped then, before it ended.
    Dropped { run: Uuid, at: Micros },
    /// A job is about to be spawned, by itself or in a transaction, for a time
    /// or at once.
    Asked {
        job: Uuid,
        in_op: bool,
        due_at: Option<Micros>,
    },
    /// Written in the transaction of the spawn.
    Stands { job: Uuid },
    /// The spawn, or the commit of its transaction, was acknowledged.
    Confirmed { job: Uuid },
    /// A begin was given up on before it ended.
    BeginCut,
    /// The transaction of the spawn was given up.
    RolledBack { job: Uuid },
    /// The unique job of this type was there, or was spawned.
    Unique { job_type: String },
    /// The worker could not renew its leases: the database did not answer in time.
    NotRenewed { worker: Uuid, at: Micros },
    /// The process, or its database, stood still between these times.
    Gap {
        worker: Uuid,
        since: Micros,
        until: Micros,
    },
}

/// How a run means to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Meant {
    Complete,
    Fail,
    RescheduleNow,
    RescheduleIn { micros: u64 },
    RescheduleAt { at: Micros },
    SnoozeIn { micros: u64 },
}

/// The execution state of a job that takes turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// How many turns were taken.
    pub turn: u32,
    /// The run that took the last.
    pub by: Uuid,
}

/// A backend with such tables.
pub trait Books: Backend {
    /// One process at a time uses the database, and knows that.
    const ONE_PROCESS: bool;

    /// A service on the database at `place`.
    fn service(place: &str) -> JobSvcConfigBuilder<Self>;

    /// Connections of the application's own, for what must not wait for its
    /// transactions.
    fn pool(
        place: &str,
        connections: u32,
    ) -> impl Future<Output = Result<Self::Pool, sqlx::Error>> + Send;

    /// Creates the tables.
    fn create(pool: &Self::Pool) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    fn begin(
        pool: &Self::Pool,
    ) -> impl Future<Output = Result<Self::Transaction, sqlx::Error>> + Send;

    fn commit(
        transaction: Self::Transaction,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    fn roll_back(
        transaction: Self::Transaction,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    fn write(
        pool: &Self::Pool,
        line: &Line,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    fn write_in(
        transaction: &mut Self::Transaction,
        line: &Line,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    fn enter(
        pool: &Self::Pool,
        entry: Entry,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    fn enter_in(
        transaction: &mut Self::Transaction,
        entry: Entry,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Writes that a worker is alive, and tells the time.
    fn pulse(
        pool: &Self::Pool,
        worker: Uuid,
    ) -> impl Future<Output = Result<Micros, sqlx::Error>> + Send;

    fn now(pool: &Self::Pool) -> impl Future<Output = Result<Micros, sqlx::Error>> + Send;

    /// How many jobs have not ended.
    fn backlog(pool: &Self::Pool) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Reads everything, once nobody writes.
    fn read(pool: &Self::Pool) -> impl Future<Output = Result<Evidence, sqlx::Error>> + Send;
}

/// Where the two databases differ, apart from the types of sqlx.
macro_rules! books {
    (
        $backend:ty,
        one_process: $one_process:literal,
        uuid: $uuid:literal,
        now: $now:literal,
        micros: $micros:expr,
        begin: $begin:expr,
        service: $service:expr,
        pool: $pool:expr $(,)?
    ) => {
        impl Books for $backend {
            const ONE_PROCESS: bool = $one_process;

            fn service(place: &str) -> JobSvcConfigBuilder<Self> {
                $service(place)
            }

            async fn pool(place: &str, connections: u32) -> Result<Self::Pool, sqlx::Error> {
                $pool(place, connections).await
            }

            async fn create(pool: &Self::Pool) -> Result<(), sqlx::Error> {
                let tables = concat!(
                    // No key anywhere: what must not happen twice has to be able to.
                    "CREATE TABLE ledger (job ",
                    $uuid,
                    ", run ",
                    $uuid,
                    ", turn bigint);",
                    "CREATE TABLE diary (at bigint, line text);",
                    "CREATE TABLE pulses (worker ",
                    $uuid,
                    " PRIMARY KEY, at bigint)"
                );
                pool.execute(tables).await?;
                Ok(())
            }

            async fn begin(pool: &Self::Pool) -> Result<Self::Transaction, sqlx::Error> {
                $begin(pool).await
            }

            async fn commit(transaction: Self::Transaction) -> Result<(), sqlx::Error> {
                transaction.commit().await
            }

            async fn roll_back(transaction: Self::Transaction) -> Result<(), sqlx::Error> {
                transaction.rollback().await
            }

            async fn write(pool: &Self::Pool, line: &Line) -> Result<(), sqlx::Error> {
                let insert = concat!("INSERT INTO diary (at, line) VALUES (", $now, ", $1)");
                sqlx::query(insert).bind(json(line)).execute(pool).await?;
                Ok(())
            }

            async fn write_in(
                transaction: &mut Self::Transaction,
                line: &Line,
            ) -> Result<(), sqlx::Error> {
                let insert = concat!("INSERT INTO diary (at, line) VALUES (", $now, ", $1)");
                let insert = sqlx::query(insert).bind(json(line));
                insert.execute(&mut **transaction).await?;
                Ok(())
            }

            async fn enter(pool: &Self::Pool, entry: Entry) -> Result<(), sqlx::Error> {
                let insert = sqlx::query(ENTER).bind(entry.job).bind(entry.run);
                insert.bind(i64::from(entry.turn)).execute(pool).await?;
                Ok(())
            }

            async fn enter_in(
                transaction: &mut Self::Transaction,
                entry: Entry,
            ) -> Result<(), sqlx::Error> {
                let insert = sqlx::query(ENTER).bind(entry.job).bind(entry.run);
                let insert = insert.bind(i64::from(entry.turn));
                insert.execute(&mut **transaction).await?;
                Ok(())
            }

            async fn pulse(pool: &Self::Pool, worker: Uuid) -> Result<Micros, sqlx::Error> {
                let pulse = concat!(
                    "INSERT INTO pulses (worker, at) VALUES ($1, ",
                    $now,
                    ")",
                    " ON CONFLICT (worker) DO UPDATE SET at = excluded.at RETURNING at"
                );
                sqlx::query_scalar(pulse).bind(worker).fetch_one(pool).await
            }

            async fn now(pool: &Self::Pool) -> Result<Micros, sqlx::Error> {
                let now = concat!("SELECT ", $now);
                sqlx::query_scalar(now).fetch_one(pool).await
            }

            async fn backlog(pool: &Self::Pool) -> Result<u64, sqlx::Error> {
                let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM job_live");
                Ok(count.fetch_one(pool).await?.unsigned_abs())
            }

            async fn read(pool: &Self::Pool) -> Result<Evidence, sqlx::Error> {
                let micros: fn(&str) -> String = $micros;
                let specs = format!(
                    "SELECT specs.id, specs.job_type, CAST(specs.config AS text), {},
                        CASE WHEN live.id IS NULL THEN 0 ELSE 1 END
                     FROM job_specs AS specs LEFT JOIN job_live AS live USING (id)",
                    micros("spawned_at")
                );
                let specs = sqlx::query_as::<_, (Uuid, String, String, i64, i32)>(&specs);
                let specs = specs.fetch_all(pool).await?.into_iter().map(spec);
                let ends = format!(
                    "SELECT job_id, fence, attempt, worker, {}, {}, CAST(run_end AS integer),
                        error, {}
                     FROM job_runs ORDER BY job_id, fence",
                    micros("claimed_at"),
                    micros("ended_at"),
                    micros("next_due_at")
                );
                let ends = sqlx::query_as::<_, EndRow>(&ends);
                let ends = ends.fetch_all(pool).await?.into_iter().map(end);
                let diary = "SELECT at, line FROM diary ORDER BY at";
                let diary = sqlx::query_as::<_, (i64, String)>(diary);
                let diary = diary.fetch_all(pool).await?.into_iter();
                let ledger = "SELECT job, run, turn FROM ledger";
                let ledger = sqlx::query_as::<_, (Uuid, Uuid, i64)>(ledger);
                let ledger = ledger.fetch_all(pool).await?.into_iter();
                let pulses = sqlx::query_as::<_, (Uuid, i64)>("SELECT worker, at FROM pulses");
                Ok(Evidence {
                    specs: specs.collect(),
                    ends: ends.collect(),
                    diary: diary.map(|(at, line)| (at, parsed(&line))).collect(),
                    ledger: ledger.map(entry).collect(),
                    pulses: pulses.fetch_all(pool).await?.into_iter().collect(),
                    processes: Vec::new(),
                })
            }
        }
    };
}

const ENTER: &str = "INSERT INTO ledger (job, run, turn) VALUES ($1, $2, $3)";

type EndRow = (
    Uuid,
    i64,
    i32,
    Uuid,
    i64,
    i64,
    i32,
    Option<String>,
    Option<i64>,
);

books!(
    Postgres,
    one_process: false,
    uuid: "uuid",
    now: "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
    micros: |column| format!("(extract(epoch FROM {column}) * 1000000)::bigint"),
    begin: sqlx::PgPool::begin,
    service: |place: &str| JobSvcConfig::builder().pg_con(place),
    pool: |place: &str, connections: u32| {
        let place = place.to_owned();
        async move {
            let pool = PgPoolOptions::new().max_connections(connections);
            pool.connect(&place).await
        }
    },
);

books!(
    Sqlite,
    one_process: true,
    uuid: "blob",
    now: "CAST(round(unixepoch('now', 'subsec') * 1000) AS INTEGER) * 1000",
    micros: str::to_owned,
    begin: begin_immediate,
    service: |place: &str| JobSvcConfig::sqlite().path(place),
    pool: |place: &str, connections: u32| {
        let options = SqliteConnectOptions::new()
            .filename(place)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(Duration::from_secs(20));
        let pool = SqlitePoolOptions::new().max_connections(connections);
        pool.connect_with(options)
    },
);

fn json(line: &Line) -> String {
    serde_json::to_string(line).expect("a line is JSON")
}

fn parsed(line: &str) -> Line {
    serde_json::from_str(line).expect("what was written is a line")
}

fn spec((id, job_type, config, spawned_at, live): (Uuid, String, String, i64, i32)) -> Spec {
    Spec {
        id,
        job_type,
        order: serde_json::from_str(&config).expect("what was spawned is an order"),
        spawned_at,
        live: live == 1,
    }
}

fn end(row: EndRow) -> End {
    let (job, fence, attempt, worker, claimed_at, ended_at, end, error, next_due_at) = row;
    let end = i16::try_from(end).ok().and_then(RunEnd::from_code);
    End {
        job,
        fence,
        attempt: attempt.unsigned_abs(),
        worker,
        claimed_at,
        ended_at,
        end: end.expect("the store writes known ends"),
        error,
        next_due_at,
    }
}

fn entry((job, run, turn): (Uuid, Uuid, i64)) -> Entry {
    Entry {
        job,
        run,
        turn: u32::try_from(turn).expect("turns are counted by a u32"),
    }
}
