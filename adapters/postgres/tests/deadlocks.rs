//! Everything side by side, as several processes on one database do it: nothing
//! may deadlock.
//!
//! Runs for 8 seconds, or for as many as the environment variable
//! `JOB_SOAK_SECONDS` says. It prints what was done how often:
//!
//! ```text
//! JOB_SOAK_SECONDS=600 tests/run nothing_deadlocks --no-capture
//! ```
//!
//! Transactions of callers can deadlock by themselves, whatever we do: they lock
//! what they name, in the order in which they name it, until they end. So these
//! do what sane callers do: they spawn first, by one command, and then write to
//! runs in the order of the ids of their jobs, and each run has one runner.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use job_engine::store::{
    Claim, Finish, Heartbeat, NewJob, Outcome, Quota, Reclaim, Spawned, TypePolicy, Written,
};
use job_engine::{ClaimId, Command, Due, ErrorText, JobType, Reply, Run, StoreError};
use job_postgres::{PostgresStore, StoreOptions};
use job_tokio::Store;
use sqlx::{ConnectOptions, Connection, Executor, PgPool, Row};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::support::{
    Random, TestDatabase, checkpoint, new_job, policy, wait_for_blocked, within, worker,
};

/// How long this goes on unless `JOB_SOAK_SECONDS` says otherwise.
const SECONDS: u64 = 8;
/// Processes, each with connections of its own.
const PROCESSES: u64 = 3;
/// Types of the jobs that run.
const TYPES: [&str; 3] = ["a", "b", "c"];
/// Short, so that leases run out all the time.
const LEASE: Duration = Duration::from_millis(100);
/// Jobs in a batch.
const BATCH: usize = 60;
/// The ids from which a batch is picked. Each comes up in several batches.
const WINDOW: u64 = 150;
/// By how many ids a batch is further than the one before.
const STEP: u64 = 20;
/// Runs that everybody knows, from the last claims.
const KNOWN: usize = 300;

/// What has to have happened, and how often at least, or the test shows nothing.
const AT_LEAST: [(&str, u64); 25] = [
    ("waits for a lock seen", 10),
    ("claims", 20),
    ("jobs claimed", 200),
    ("claims repeated", 5),
    ("jobs of repeated claims", 20),
    ("heartbeats", 20),
    ("leases renewed", 100),
    ("finishes", 20),
    ("runs finished", 100),
    ("finishes of stale runs", 50),
    ("reclaims", 20),
    ("jobs taken back", 50),
    ("spawns", 5),
    ("jobs created", 200),
    ("ids taken", 100),
    ("unique types taken", 20),
    ("transactions committed", 10),
    ("transactions rolled back", 3),
    ("spawns in transactions", 5),
    ("checkpoints in transactions", 50),
    ("finishes in transactions", 5),
    ("announcements in transactions", 5),
    ("reads", 20),
    ("migrations of migrated tables", 5),
    ("migrations from nothing", 1),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_deadlocks() {
    let (database, store) = TestDatabase::with_store().await;
    let soak = Arc::new(Soak::new(duration()));
    let mut tasks = JoinSet::new();
    for process in 0..PROCESSES {
        let store = PostgresStore::new(database.pool(10), StoreOptions::default()).unwrap();
        // As many commands of the worker at a time as it has connections.
        for n in 0..2 {
            let actor = Actor::new(&soak, &store, 10 * process + n);
            tasks.spawn(actor.claim_and_finish());
        }
        let actor = Actor::new(&soak, &store, 10 * process + 2);
        tasks.spawn(actor.reclaim());
        for n in 3..5 {
            let actor = Actor::new(&soak, &store, 10 * process + n);
            tasks.spawn(actor.transact());
        }
        let actor = Actor::new(&soak, &store, 10 * process + 5);
        tasks.spawn(actor.spawn());
        let actor = Actor::new(&soak, &store, 10 * process + 6);
        tasks.spawn(actor.migrate());
    }
    tasks.spawn(migrate_from_nothing(soak.clone(), database.pool(4)));
    tasks.spawn(watch(soak.clone(), database.pool(1)));
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    store.pool().close().await;

    let tally = soak.tally.lock().await;
    println!("{tally:#?}");
    let faults = soak.faults.lock().await;
    assert!(faults.is_empty(), "{} faults: {faults:#?}", faults.len());
    assert_eq!(deadlocks(&database).await, 0);
    for (what, at_least) in AT_LEAST {
        let count = tally.get(what).copied().unwrap_or(0);
        assert!(
            count >= at_least,
            "{what}: {count}, at least {at_least} expected"
        );
    }
}

/// Each has another job first, and then both want the same ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_name_a_job_twice_do_not_deadlock() {
    let (_database, store) = TestDatabase::with_store().await;
    let mut holder = store.pool().begin().await.unwrap();
    let held = Command::Spawn(vec![new_job(1, "a")]);
    store.execute_on(&mut holder, None, &held).await.unwrap();

    let spawn = |numbers: [u128; 4], token| {
        let store = store.clone();
        let jobs = numbers.map(|n| NewJob {
            token,
            ..new_job(n, "a")
        });
        tokio::spawn(async move { store.execute(None, &Command::Spawn(jobs.into())).await })
    };
    let one = spawn([3, 3, 1, 2], 1);
    let other = spawn([2, 2, 1, 3], 2);
    wait_for_blocked(store.pool(), 2).await;
    holder.rollback().await.unwrap();

    let one = within("the one batch", one).await.unwrap();
    let other = within("the other batch", other).await.unwrap();
    let (all, none) = (vec![Spawned::Created; 4], vec![Spawned::DuplicateId; 4]);
    let expected = [all, none].map(|spawned| Ok(Reply::Spawned(spawned)));
    let mut replies = [one, other];
    if replies[0] != expected[0] {
        replies.reverse();
    }
    assert_eq!(replies, expected);
}

fn duration() -> Duration {
    let seconds = match std::env::var("JOB_SOAK_SECONDS") {
        Ok(seconds) => seconds.parse().expect("JOB_SOAK_SECONDS is a number"),
        Err(_) => SECONDS,
    };
    Duration::from_secs(seconds)
}

/// Deadlocks that the server has found in the database.
async fn deadlocks(database: &TestDatabase) -> i64 {
    let mut connection = database.options().connect().await.unwrap();
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let deadlocks = connection.fetch_one(deadlocks).await.unwrap().get(0);
    connection.close().await.unwrap();
    deadlocks
}

/// What all have in common.
struct Soak {
    until: Instant,
    batches: AtomicU64,
    known: Mutex<VecDeque<Run>>,
    tally: Mutex<BTreeMap<&'static str, u64>>,
    faults: Mutex<Vec<String>>,
    /// Runs of which open transactions keep something.
    kept: std::sync::Mutex<BTreeSet<Run>>,
}

/// Runs of which a transaction keeps something.
struct Keeps {
    soak: Arc<Soak>,
    /// In their order.
    runs: Vec<Run>,
}

impl Drop for Keeps {
    fn drop(&mut self) {
        let mut kept = self.soak.kept.lock().unwrap();
        kept.retain(|run| !self.runs.contains(run));
    }
}

impl Soak {
    fn new(duration: Duration) -> Self {
        Self {
            until: Instant::now() + duration,
            batches: AtomicU64::new(0),
            known: Mutex::default(),
            tally: Mutex::default(),
            faults: Mutex::default(),
            kept: std::sync::Mutex::default(),
        }
    }

    fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }

    async fn count(&self, what: &'static str, count: usize) {
        *self.tally.lock().await.entry(what).or_default() += count as u64;
    }

    /// Nobody has a reason to fail.
    async fn succeeded<T, E: ToString>(&self, what: &str, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let fault = format!("{what}: {}", error.to_string());
                self.faults.lock().await.push(fault);
                None
            }
        }
    }

    async fn learn(&self, runs: &[Run]) {
        let mut known = self.known.lock().await;
        known.extend(runs);
        let excess = known.len().saturating_sub(KNOWN);
        known.drain(..excess);
    }
}

/// One of those who do it.
struct Actor {
    soak: Arc<Soak>,
    store: PostgresStore,
    number: u64,
    random: Random,
}

impl Actor {
    fn new(soak: &Arc<Soak>, store: &PostgresStore, number: u64) -> Self {
        Self {
            soak: soak.clone(),
            store: store.clone(),
            number,
            random: Random::new(number),
        }
    }

    /// Finishes most of what it claims, and what others have claimed: as a worker
    /// does that was given up on, or whose replies were lost.
    async fn claim_and_finish(mut self) {
        for seq in 0.. {
            if !self.soak.goes_on() {
                return;
            }
            let mut claim = Claim {
                id: ClaimId {
                    worker: worker(self.number.into()),
                    seq,
                },
                repeat: false,
                quotas: TYPES.map(quota).into(),
                lease: LEASE,
            };
            let mut runs = self.claim("claims", "jobs claimed", &claim).await;
            self.soak.learn(&runs).await;
            if self.random.one_in(4) {
                claim.repeat = true;
                let again = self.claim("claims repeated", "jobs of repeated claims", &claim);
                runs = again.await;
                self.soak.learn(&runs).await;
            }
            let lost = runs.len() / 8;
            runs.drain(..lost);
            runs.extend(self.known_runs(20).await);
            self.heartbeat(runs.clone()).await;
            self.finish(runs).await;
        }
    }

    async fn claim(&mut self, what: &'static str, jobs: &'static str, claim: &Claim) -> Vec<Run> {
        let reply = self.execute(what, &Command::Claim(claim.clone())).await;
        let Some(Reply::Claimed(claimed)) = reply else {
            return Vec::new();
        };
        self.soak.count(jobs, claimed.jobs.len()).await;
        claimed.jobs.iter().map(|job| job.run).collect()
    }

    async fn heartbeat(&mut self, runs: Vec<Run>) {
        let runs = self.shuffled(runs);
        let heartbeat = Command::Heartbeat(Heartbeat { runs, lease: LEASE });
        if let Some(Reply::Heartbeat(written)) = self.execute("heartbeats", &heartbeat).await {
            let renewed = written.iter().filter(|w| **w == Written::Applied);
            self.soak.count("leases renewed", renewed.count()).await;
        }
    }

    async fn finish(&mut self, runs: Vec<Run>) {
        let runs = self.shuffled(runs);
        // Batches in which all end for good have a statement of their own.
        let outcomes = if self.random.below(2) == 0 { 2 } else { 5 };
        let ends = runs.into_iter().map(|run| self.end(run, outcomes));
        let finishes: Vec<Finish> = ends.collect();
        let finish = Command::Finish(finishes);
        if let Some(Reply::Finished(written)) = self.execute("finishes", &finish).await {
            let applied = written.iter().filter(|w| **w == Written::Applied).count();
            self.soak.count("runs finished", applied).await;
            let stale = written.len() - applied;
            self.soak.count("finishes of stale runs", stale).await;
        }
    }

    fn end(&mut self, run: Run, outcomes: u64) -> Finish {
        let outcome = match self.random.below(outcomes) {
            0 => Outcome::Completed,
            1 => Outcome::Errored {
                error: ErrorText::new("it broke"),
            },
            2 => Outcome::Rescheduled { due: Due::Now },
            3 => Outcome::Retried {
                delay: Duration::ZERO,
                attempt: 2,
                error: ErrorText::new("try again"),
            },
            _ => Outcome::Released,
        };
        Finish { run, outcome }
    }

    async fn reclaim(mut self) {
        while self.soak.goes_on() {
            let policies = TYPES.map(|job_type| TypePolicy {
                crashes_max: Some(4),
                ..policy(job_type)
            });
            let reclaim = Command::Reclaim(Reclaim {
                policies: policies.into(),
                jobs_max: 1_000,
            });
            if let Some(Reply::Reclaimed(jobs)) = self.execute("reclaims", &reclaim).await {
                self.soak.count("jobs taken back", jobs.len()).await;
            }
            let known = self.known_runs(1).await;
            for run in known {
                self.execute("reads", &Command::Find(run.job)).await;
            }
        }
    }

    async fn spawn(mut self) {
        while self.soak.goes_on() {
            let batch = Command::Spawn(self.batch());
            if let Some(reply) = self.execute("spawns", &batch).await {
                self.count_spawned(&reply).await;
            }
        }
    }

    async fn count_spawned(&self, reply: &Reply) {
        let Reply::Spawned(spawned) = reply else {
            panic!("{reply:?}");
        };
        for what in ["jobs created", "ids taken", "unique types taken"] {
            let became = |spawned: &Spawned| match spawned {
                Spawned::Created => "jobs created",
                Spawned::DuplicateId => "ids taken",
                Spawned::DuplicateUniqueType(_) => "unique types taken",
            };
            let count = spawned.iter().filter(|one| became(one) == what).count();
            self.soak.count(what, count).await;
        }
    }

    /// Jobs that others spawn too, in any order, and some of them twice.
    fn batch(&mut self) -> Vec<NewJob> {
        let first = self.soak.batches.fetch_add(1, Ordering::Relaxed) * STEP;
        let mut numbers: Vec<u64> = (first..first + WINDOW).collect();
        self.random.shuffle(&mut numbers);
        numbers.truncate(BATCH);
        numbers.extend_from_within(..3);
        self.random.shuffle(&mut numbers);
        numbers.into_iter().map(|n| self.new_job(n)).collect()
    }

    /// The job with this number: what it is, is always the same. One in ten is
    /// unique, and three of those want to be the only one of their type.
    fn new_job(&mut self, n: u64) -> NewJob {
        let mut job = new_job(n.into(), TYPES[n as usize % TYPES.len()]);
        if n.is_multiple_of(10) {
            job.unique_type = true;
            job.job_type = JobType::from(format!("unique{}", n / 30));
        }
        // Whose spawn it is.
        job.token = self.random.below(2) as i64;
        job
    }

    /// Transactions of an application.
    async fn transact(mut self) {
        while self.soak.goes_on() {
            if let Err(error) = self.one_transaction().await {
                self.soak
                    .succeeded::<(), _>("a transaction", Err(error))
                    .await;
            }
        }
    }

    async fn one_transaction(&mut self) -> Result<(), StoreError> {
        let store = self.store.clone();
        // Given back after the transaction has ended, whichever way.
        let keeps = self.runs_to_keep().await;
        let begun = store.pool().begin().await;
        let mut transaction = begun.map_err(job_postgres::store_error)?;
        if self.random.one_in(2) {
            let batch = Command::Spawn(self.batch());
            let reply = store.execute_on(&mut transaction, None, &batch).await?;
            self.count_spawned(&reply).await;
            self.soak.count("spawns in transactions", 1).await;
        }
        for run in &keeps.runs {
            let kept = checkpoint(*run, "[1, 2, 3]");
            store.execute_on(&mut transaction, None, &kept).await?;
            self.soak.count("checkpoints in transactions", 1).await;
        }
        if self.random.one_in(2) {
            // Some of those whose rows it has locked by now.
            let finishes = keeps.runs.iter().take(2).map(|run| self.end(*run, 5));
            let finish = Command::Finish(finishes.collect());
            store.execute_on(&mut transaction, None, &finish).await?;
            self.soak.count("finishes in transactions", 1).await;
        }
        if self.random.one_in(2) {
            let types = BTreeSet::from(TYPES.map(JobType::new));
            store.announce_on(&mut transaction, &types).await?;
            self.soak.count("announcements in transactions", 1).await;
        }
        let ended = if self.random.one_in(4) {
            self.soak.count("transactions rolled back", 1).await;
            transaction.rollback().await
        } else {
            self.soak.count("transactions committed", 1).await;
            transaction.commit().await
        };
        ended.map_err(job_postgres::store_error)
    }

    /// As each process does when it starts.
    async fn migrate(self) {
        while self.soak.goes_on() {
            let migrated = self.store.migrate().await;
            if self.soak.succeeded("migrate", migrated).await.is_some() {
                self.soak.count("migrations of migrated tables", 1).await;
            }
            let checked = self.store.check_schema().await;
            self.soak.succeeded("check_schema", checked).await;
        }
    }

    async fn execute(&self, what: &'static str, command: &Command) -> Option<Reply> {
        let result = self.store.execute(None, command).await;
        let reply = self.soak.succeeded(what, result).await?;
        self.soak.count(what, 1).await;
        Some(reply)
    }

    /// Runs of anybody.
    async fn known_runs(&mut self, count: usize) -> Vec<Run> {
        let known = self.soak.known.lock().await;
        let len = known.len() as u64;
        let picked = (0..count.min(known.len())).map(|_| known[self.random.below(len) as usize]);
        picked.collect()
    }

    /// Runs of which no other transaction keeps anything: a run has one runner, which keeps one
    /// thing after the other.
    async fn runs_to_keep(&mut self) -> Keeps {
        let known: BTreeSet<Run> = self.known_runs(6).await.into_iter().collect();
        let mut kept = self.soak.kept.lock().unwrap();
        let runs = known.difference(&kept).copied().collect::<Vec<_>>();
        kept.extend(&runs);
        let soak = Arc::clone(&self.soak);
        Keeps { soak, runs }
    }

    /// Each of them once.
    fn shuffled(&mut self, runs: Vec<Run>) -> Vec<Run> {
        let runs: BTreeSet<Run> = runs.into_iter().collect();
        let mut runs: Vec<Run> = runs.into_iter().collect();
        self.random.shuffle(&mut runs);
        runs
    }
}

fn quota(job_type: &'static str) -> Quota {
    Quota {
        job_type: JobType::new(job_type),
        jobs_max: 40,
    }
}

/// Makes the tables in one new schema after another, with two at once.
async fn migrate_from_nothing(soak: Arc<Soak>, pool: PgPool) {
    for n in 0.. {
        if !soak.goes_on() {
            return;
        }
        let schema = format!("soak{n}");
        let options = StoreOptions {
            schema: Some(schema.clone()),
            ..StoreOptions::default()
        };
        let store = PostgresStore::new(pool.clone(), options).unwrap();
        let (one, other) = tokio::join!(store.migrate(), store.migrate());
        let one = soak.succeeded("a migration from nothing", one).await;
        let other = soak.succeeded("a migration from nothing", other).await;
        if one.is_some() && other.is_some() {
            soak.count("migrations from nothing", 1).await;
        }
        let checked = store.check_schema().await;
        soak.succeeded("check_schema of a new schema", checked)
            .await;
        let spawn = Command::Spawn(vec![new_job(1, "a")]);
        let spawned = store.execute(None, &spawn);
        soak.succeeded("a spawn in a new schema", spawned.await)
            .await;
        let drop = format!("DROP SCHEMA {schema} CASCADE");
        soak.succeeded("a drop of a schema", pool.execute(&*drop).await)
            .await;
    }
}

/// Looks whether anybody ever waits, without which nothing could deadlock.
async fn watch(soak: Arc<Soak>, pool: PgPool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    while soak.goes_on() {
        ticks.tick().await;
        let waiting = "SELECT count(*) FROM pg_stat_activity \
                       WHERE datname = current_database() AND wait_event_type = 'Lock' \
                           AND wait_event IN ('transactionid', 'tuple', 'spectoken')";
        let waiting = pool.fetch_one(waiting).await;
        if let Some(row) = soak.succeeded("a look at waits", waiting).await {
            let waiting: i64 = row.get(0);
            soak.count("waits for a lock seen", waiting as usize).await;
        }
    }
}
