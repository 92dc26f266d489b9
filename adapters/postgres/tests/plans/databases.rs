//! The databases on which statements show what they cost: a full one, and one
//! that was full before.
//!
//! Autovacuum leaves their tables alone, so that the statistics and the dead rows
//! are those that the test has made.

use std::ops::RangeInclusive;

use job_engine::limits::BATCH_LEN_MAX;
use sqlx::postgres::PgRow;
use sqlx::{ConnectOptions, Executor, PgConnection, Row};
use uuid::Uuid;

use super::explain::TABLES;
use crate::support::{TestDatabase, wait_until};

/// Jobs of the full database, and jobs that the bloated one had.
pub(crate) const JOBS: i64 = 1_000_000;
/// Jobs that the bloated one has left.
const JOBS_LEFT: i64 = 800;
/// Ended runs of the job with the longest history.
pub(crate) const LONG_HISTORY: i64 = 1_000;

/// Types of which jobs are due, run, and are to come.
pub(crate) const TYPES: [&str; 7] = ["t0", "t1", "t2", "t3", "t4", "t5", "t6"];
/// A type of which no job is due for days.
pub(crate) const LATER: &str = "later";
/// A type of which a unique job exists.
pub(crate) const UNIQUE: &str = "unique";

/// In seconds.
const WEEK: i64 = 7 * 24 * 3_600;

/// A database with the tables, of which the statistics say that they are empty.
pub(crate) async fn empty() -> TestDatabase {
    let (database, store) = TestDatabase::with_store().await;
    for table in TABLES {
        let off = format!("ALTER TABLE {table} SET (autovacuum_enabled = off)");
        store.pool().execute(&*off).await.unwrap();
    }
    store.pool().execute("ANALYZE").await.unwrap();
    database
}

/// Fills a database with 1,000,000 jobs, most of them pending, and as many ended
/// runs.
pub(crate) async fn fill(database: &TestDatabase) {
    load(database, 1..=JOBS, 250, -WEEK / 2).await;
}

/// Lets 1,000,000 jobs come, run and go, and cleans nothing up after them. A few
/// hundred others are there in the end.
pub(crate) async fn bloat(database: &TestDatabase) {
    load(database, 1..=JOBS, JOBS, -WEEK).await;
    // As claims do it.
    let run = "UPDATE job_live SET state = 1, fence = fence + 1, worker = id, claim_seq = 1, \
               claimed_at = now(), lease_expires_at = now()";
    let mut connection = database.options().connect().await.unwrap();
    execute(&mut connection, run).await;
    for table in TABLES {
        execute(&mut connection, &format!("DELETE FROM {table}")).await;
    }
    load(database, JOBS + 1..=JOBS + JOBS_LEFT, 3, -WEEK / 2).await;
    // While somebody could still see them, such as one that analyzes the catalog, dead
    // rows are not marked.
    let lookers = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                   AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid()";
    let connection = tokio::sync::Mutex::new(connection);
    wait_until("nobody sees what is gone", || async {
        let row = connection.lock().await.fetch_one(lookers).await.unwrap();
        row.get::<i64, _>(0) == 0
    })
    .await;
}

/// Jobs of a burst: as many as make it cheaper to read an index from end to end once
/// than to look into it for each run of a batch, if few of them run.
const BURST: i64 = 20_000;
/// How many of these run.
const BURST_RUNNING: i64 = 3_000;

/// What the statistics say of a burst of jobs of which some run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counted {
    /// All of them are there, and none runs.
    BeforeTheyRan,
    /// Where as many were before, only a few are there.
    BeforeTheyCame,
}

/// Fills a database with some thousands of jobs, and lets some of them run.
pub(crate) async fn burst(database: &TestDatabase, counted: Counted) {
    let mut connection = database.options().connect().await.unwrap();
    match counted {
        Counted::BeforeTheyRan => {
            load(database, 1..=BURST, BURST + 1, -WEEK).await;
            execute(&mut connection, "VACUUM ANALYZE").await;
        }
        Counted::BeforeTheyCame => {
            load(database, 1..=BURST, BURST + 1, -WEEK).await;
            // One at the end keeps the pages before it.
            for (table, id) in TABLES.into_iter().zip(["id", "id", "job_id", "job_id"]) {
                let last = format!("lpad(to_hex({BURST}), 32, '0')::uuid");
                let gone = format!("DELETE FROM {table} WHERE {id} <> {last}");
                execute(&mut connection, &gone).await;
            }
            execute(&mut connection, "VACUUM ANALYZE").await;
            for table in TABLES {
                execute(&mut connection, &format!("DELETE FROM {table}")).await;
            }
            load(database, BURST + 1..=2 * BURST, 2 * BURST + 1, -WEEK).await;
        }
    }
    let run = format!(
        "UPDATE job_live SET state = 1, fence = fence + 1, worker = '{worker}', claim_seq = 1, \
         claimed_at = now(), lease_expires_at = now() + interval '1 h' * (fence - 1) \
         WHERE id IN (SELECT id FROM job_live WHERE job_type <> '{LATER}' \
                      ORDER BY id DESC LIMIT {BURST_RUNNING})",
        worker = Uuid::nil(),
    );
    execute(&mut connection, &run).await;
}

/// Jobs with these numbers as their ids, which so grow with time as real ones do.
/// Their due times, in the week that begins `due_from_s` seconds from now, have
/// nothing to do with that. One of `running_every` runs, with a lease that has run
/// out for one half of these. Half of them have ended runs, the first of all has
/// many.
async fn load(
    database: &TestDatabase,
    numbers: RangeInclusive<i64>,
    running_every: i64,
    due_from_s: i64,
) {
    let (first, last) = numbers.into_inner();
    let jobs = format!(
        "(SELECT n, lpad(to_hex(n), 32, '0')::uuid AS id,
             CASE WHEN n % 8 = 7 THEN '{LATER}' ELSE 't' || n % 8 END AS job_type,
             n % {running_every} = 0 AS running,
             CASE WHEN n % 2 = 0 THEN 2 ELSE 0 END AS ended
         FROM generate_series({first}::bigint, {last}::bigint) AS n) AS jobs"
    );
    let specs = format!(
        "INSERT INTO job_specs (id, job_type, unique_type, config, spawn_token, spawned_at)
         SELECT id, job_type, false, to_json(repeat('x', 80)), n, now() FROM {jobs}
         UNION ALL
         SELECT lpad(to_hex({last} + 1), 32, 'f')::uuid, '{UNIQUE}', true, '1', 1, now()"
    );
    let live = format!(
        "INSERT INTO job_live (id, job_type, due_at, state, fence, worker, claim_seq, claimed_at,
             lease_expires_at)
         SELECT id, job_type,
             -- 7919 is a prime that scatters them.
             now() + interval '1 s' * ({due_from_s} + CASE WHEN job_type = '{LATER}'
                 THEN {WEEK} - 1000 + n % 1000
                 ELSE n * 7919 % {WEEK}
             END),
             running::integer::smallint,
             CASE WHEN n = {first} THEN {LONG_HISTORY} + 2 ELSE ended END + running::integer,
             CASE WHEN running THEN lpad(to_hex(n % 3), 32, '0')::uuid END,
             CASE WHEN running THEN n / 100000 END,
             CASE WHEN running THEN now() END,
             CASE WHEN running
                 THEN now() + interval '1 h' * (n / {running_every} % 2 * 2 - 1)
             END
         FROM {jobs}"
    );
    let runs = format!(
        "INSERT INTO job_runs (job_id, fence, attempt, worker, claim_seq, claimed_at, ended_at,
             run_end, next_due_at)
         SELECT id, fence, 1, id, 1, now(), now(), 2, now()
         FROM {jobs}, generate_series(1, ended) AS fence
         UNION ALL
         SELECT id, fence, 1, id, 1, now(), now(), 5, now()
         FROM {jobs}, generate_series(3, {LONG_HISTORY} + 2) AS fence
         WHERE n = {first}"
    );
    let insert = async |statement: String| {
        let mut connection = database.options().connect().await.unwrap();
        execute(&mut connection, &statement).await;
    };
    // One of three has kept something.
    let checkpoints = format!(
        "INSERT INTO job_checkpoints (job_id, execution_state)
         SELECT id, 'null' FROM {jobs} WHERE n % 3 = 0"
    );
    tokio::join!(
        insert(specs),
        insert(live),
        insert(runs),
        insert(checkpoints)
    );
}

async fn execute(connection: &mut PgConnection, statement: &str) {
    let done = connection.execute(statement).await;
    done.unwrap_or_else(|error| panic!("{error}: {statement}"));
}

/// A job, a fence, and whose claim it is and which.
pub(crate) type SampleRun = (Uuid, i64, Uuid, i64);

/// What there is in a database, to be used as parameters: picked from all over
/// the tables.
#[derive(Debug)]
pub(crate) struct Sample {
    /// Runs that go on, at most 1,000.
    pub(crate) runs: Vec<SampleRun>,
    /// Runs of one worker that go on, at most 1,000.
    pub(crate) runs_of_one: Vec<SampleRun>,
    /// A claim whose jobs run: by which worker, its number, and how many they are.
    pub(crate) claim: (Uuid, i64, i64),
    /// Runs that have ended, at most 1,000.
    pub(crate) ended: Vec<SampleRun>,
    /// Jobs that exist, at most 1,000.
    pub(crate) jobs: Vec<Uuid>,
    /// Jobs of which something was kept, at most 1,000.
    pub(crate) kept: Vec<Uuid>,
    /// The job with the longest history.
    pub(crate) oldest: Uuid,
    /// How many jobs run in all.
    pub(crate) running: i64,
}

impl Sample {
    pub(crate) async fn of(connection: &mut PgConnection) -> Self {
        let runs = "SELECT id, fence, worker, claim_seq FROM job_live WHERE state = 1 \
                    ORDER BY md5(id::text) LIMIT 1000";
        let runs = connection.fetch_all(runs).await.unwrap();
        let claim = "SELECT worker, claim_seq, count(*) FROM job_live WHERE state = 1 \
                     GROUP BY worker, claim_seq ORDER BY 3 DESC, 2, 1 LIMIT 1";
        let claim = connection.fetch_one(claim).await.unwrap();
        let runs_of_one = "SELECT id, fence, worker, claim_seq FROM job_live \
                           WHERE state = 1 AND worker = $1 ORDER BY md5(id::text) LIMIT 1000";
        let runs_of_one = sqlx::query(runs_of_one).bind(claim.get::<Uuid, _>(0));
        let runs_of_one = runs_of_one.fetch_all(&mut *connection).await.unwrap();
        let ended = "SELECT job_id, fence, worker, claim_seq FROM job_runs WHERE fence = 1 \
                     ORDER BY md5(job_id::text) LIMIT 1000";
        let ended = connection.fetch_all(ended).await.unwrap();
        let jobs = "SELECT id FROM job_specs WHERE NOT unique_type \
                    ORDER BY md5(id::text) LIMIT 1000";
        let jobs = connection.fetch_all(jobs).await.unwrap();
        let kept = "SELECT job_id FROM job_checkpoints ORDER BY md5(job_id::text) LIMIT 1000";
        let kept = connection.fetch_all(kept).await.unwrap();
        let oldest = "SELECT id FROM job_specs ORDER BY id LIMIT 1";
        let oldest = connection.fetch_one(oldest).await.unwrap();
        let running = "SELECT count(*) FROM job_live WHERE state = 1";
        let running = connection.fetch_one(running).await.unwrap();
        let run = |row: &PgRow| (row.get(0), row.get(1), row.get(2), row.get(3));
        Self {
            runs: runs.iter().map(run).collect(),
            runs_of_one: runs_of_one.iter().map(run).collect(),
            claim: (claim.get(0), claim.get(1), claim.get(2)),
            ended: ended.iter().map(run).collect(),
            jobs: jobs.iter().map(|row| row.get(0)).collect(),
            kept: kept.iter().map(|row| row.get(0)).collect(),
            oldest: oldest.get(0),
            running: running.get(0),
        }
    }

    /// Of a database in which nothing is.
    pub(crate) fn of_nothing() -> Self {
        Self {
            runs: vec![(Uuid::nil(), 1, Uuid::nil(), 1)],
            runs_of_one: vec![(Uuid::nil(), 1, Uuid::nil(), 1)],
            claim: (Uuid::nil(), 1, 0),
            ended: vec![(Uuid::nil(), 1, Uuid::nil(), 1)],
            jobs: (0..BATCH_LEN_MAX as u128).map(Uuid::from_u128).collect(),
            kept: vec![Uuid::nil()],
            oldest: Uuid::nil(),
            running: 0,
        }
    }
}
