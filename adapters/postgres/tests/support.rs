//! A database for each test, and commands in short.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use job_engine::history::Snapshot;
use job_engine::store::{
    Checkpoint, Claim, Claimed, Finish, Heartbeat, NewJob, Outcome, Quota, Reclaim, Reclaimed,
    Spawned, TypePolicy, Written,
};
use job_engine::{ClaimId, Command, Due, JobId, JobType, Payload, Reply, Run, Timestamp, WorkerId};
use job_postgres::{PostgresStore, StoreOptions};
use job_tokio::Store;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, PgPool};
use uuid::Uuid;

/// How long a test waits for what must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A lease that does not run out in a test.
pub(crate) const LEASE: Duration = Duration::from_secs(3_600);

/// A database that is dropped with the value.
pub(crate) struct TestDatabase {
    name: String,
    server: PgConnectOptions,
}

impl TestDatabase {
    /// A database without tables.
    pub(crate) async fn empty() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let url = std::env::var("DATABASE_URL")
            .expect("DATABASE_URL is not set: run `tests/run`, which starts a Postgres for it");
        let server: PgConnectOptions = url.parse().expect("DATABASE_URL is a URL of Postgres");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("job_test_{}_{number}", std::process::id());
        let mut connection = server.connect().await.expect("the server answers");
        for statement in [
            format!("DROP DATABASE IF EXISTS {name}"),
            format!("CREATE DATABASE {name} TEMPLATE template0"),
        ] {
            connection.execute(&*statement).await.unwrap();
        }
        connection.close().await.unwrap();
        Self { name, server }
    }

    /// A database with the tables, and a store on it.
    pub(crate) async fn with_store() -> (Self, PostgresStore) {
        Self::with_options(StoreOptions::default()).await
    }

    /// The same with other options.
    pub(crate) async fn with_options(options: StoreOptions) -> (Self, PostgresStore) {
        let database = Self::empty().await;
        let store = PostgresStore::new(database.pool(10), options).unwrap();
        store.migrate().await.unwrap();
        store.check_schema().await.unwrap();
        (database, store)
    }

    /// A database whose tables were made through a pooler in transaction mode, and a
    /// store that reaches it through that pooler.
    pub(crate) async fn behind_a_pooler() -> (Self, PostgresStore) {
        let database = Self::empty().await;
        let pool = pool_of(10, database.pooler_options());
        let options = StoreOptions {
            poll_only: true,
            ..StoreOptions::default()
        };
        let store = PostgresStore::new(pool, options).unwrap();
        store.migrate().await.unwrap();
        store.check_schema().await.unwrap();
        (database, store)
    }

    pub(crate) fn options(&self) -> PgConnectOptions {
        self.server.clone().database(&self.name)
    }

    /// The way to it through the pooler.
    pub(crate) fn pooler_options(&self) -> PgConnectOptions {
        let url = std::env::var("JOB_TEST_POOLER_URL").expect(
            "JOB_TEST_POOLER_URL is not set: run `tests/run`, which starts a PgBouncer for it",
        );
        let pooler: PgConnectOptions = url.parse().expect("JOB_TEST_POOLER_URL is a URL");
        // What PgBouncer refuses unless it is told to ignore it.
        pooler.database(&self.name).extra_float_digits(None)
    }

    pub(crate) fn pool(&self, max_connections: u32) -> PgPool {
        pool_of(max_connections, self.options())
    }
}

fn pool_of(max_connections: u32, options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(max_connections)
        .connect_lazy_with(options)
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let server = self.server.clone();
        // The test's own runtime may be about to end.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let mut connection = server.connect().await?;
                connection.execute(&*statement).await?;
                connection.close().await
            })
        });
        if let Ok(Err(error)) = dropped.join() {
            eprintln!("the database {} is left behind: {error}", self.name);
        }
    }
}

/// Asks again and again until the answer is yes.
pub(crate) async fn wait_until<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    within(what, async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Waits for what must happen.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(DEADLINE, future).await;
    done.unwrap_or_else(|_| panic!("did not happen within {DEADLINE:?}: {what}"))
}

/// How many connections to the database wait for a lock.
pub(crate) async fn blocked(pool: &PgPool) -> i64 {
    let blocked = "SELECT count(*) FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    sqlx::query_scalar(blocked).fetch_one(pool).await.unwrap()
}

/// Waits until so many connections to the database wait for a lock.
pub(crate) async fn wait_for_blocked(pool: &PgPool, count: i64) {
    wait_until("connections wait for a lock", || async {
        blocked(pool).await >= count
    })
    .await;
}

pub(crate) fn id(n: u128) -> JobId {
    JobId(Uuid::from_u128(n))
}

pub(crate) fn worker(n: u128) -> WorkerId {
    WorkerId(Uuid::from_u128(n << 64))
}

pub(crate) fn at(secs: i64) -> Timestamp {
    Timestamp::from_micros(secs * 1_000_000)
}

pub(crate) fn new_job(n: u128, job_type: &'static str) -> NewJob {
    NewJob {
        id: id(n),
        job_type: JobType::new(job_type),
        unique_type: false,
        due: Due::Now,
        config: Payload::from_json(format!("{{\"n\": {n}}}")),
        trace: None,
        token: 1,
    }
}

pub(crate) fn claim_command(worker_n: u128, seq: i64, job_type: &'static str, max: u32) -> Claim {
    Claim {
        id: ClaimId {
            worker: worker(worker_n),
            seq,
        },
        repeat: false,
        quotas: vec![Quota {
            job_type: JobType::new(job_type),
            jobs_max: max,
        }],
        lease: LEASE,
    }
}

pub(crate) fn policy(job_type: &'static str) -> TypePolicy {
    TypePolicy {
        job_type: JobType::new(job_type),
        attempts_max: None,
        crashes_max: None,
        healthy_after: Duration::MAX,
    }
}

pub(crate) fn completed(run: Run) -> Finish {
    Finish {
        run,
        outcome: Outcome::Completed,
    }
}

pub(crate) async fn spawn(
    store: &PostgresStore,
    now: Timestamp,
    jobs: Vec<NewJob>,
) -> Vec<Spawned> {
    match store.execute(Some(now), &Command::Spawn(jobs)).await {
        Ok(Reply::Spawned(spawned)) => spawned,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn claim(store: &PostgresStore, now: Timestamp, claim: Claim) -> Claimed {
    match store.execute(Some(now), &Command::Claim(claim)).await {
        Ok(Reply::Claimed(claimed)) => claimed,
        other => panic!("{other:?}"),
    }
}

/// Claims one job of a type that is due.
pub(crate) async fn claim_one(
    store: &PostgresStore,
    now: Timestamp,
    job_type: &'static str,
) -> Run {
    static NEXT: AtomicU32 = AtomicU32::new(1_000_000);
    let seq = NEXT.fetch_add(1, Ordering::Relaxed).into();
    let claimed = claim(store, now, claim_command(9, seq, job_type, 1)).await;
    claimed.jobs.first().expect("a job is due").run
}

pub(crate) async fn finish(
    store: &PostgresStore,
    now: Timestamp,
    finishes: Vec<Finish>,
) -> Vec<Written> {
    match store.execute(Some(now), &Command::Finish(finishes)).await {
        Ok(Reply::Finished(written)) => written,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn heartbeat(
    store: &PostgresStore,
    now: Timestamp,
    runs: Vec<Run>,
) -> Vec<Written> {
    let heartbeat = Command::Heartbeat(Heartbeat { runs, lease: LEASE });
    match store.execute(Some(now), &heartbeat).await {
        Ok(Reply::Heartbeat(written)) => written,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn reclaim(
    store: &PostgresStore,
    now: Timestamp,
    job_type: &'static str,
) -> Vec<Reclaimed> {
    let reclaim = Command::Reclaim(Reclaim {
        policies: vec![policy(job_type)],
        jobs_max: 1_000,
    });
    match store.execute(Some(now), &reclaim).await {
        Ok(Reply::Reclaimed(reclaimed)) => reclaimed,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn checkpoint(run: Run, state: &str) -> Command {
    Command::Checkpoint(Checkpoint {
        run,
        state: Payload::from_json(state),
    })
}

pub(crate) async fn find(store: &PostgresStore, job: JobId) -> Option<Snapshot> {
    match store.execute(None, &Command::Find(job)).await {
        Ok(Reply::Found(found)) => found.map(|found| *found),
        other => panic!("{other:?}"),
    }
}

/// Draws from a seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Steele, Lea and Flood: SplitMix64.
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from zero on, less than `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}
