//! The database goes wrong: it crashes, has no room, only reads, does not let go
//! of what is old, and refuses what cannot be serialized.

use std::time::Duration;

use job::{JobCompletion, JobId};
use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection, PgPool};

use super::ledger::{LEASE, Ledger};
use super::server::Server;
use crate::support::{TestDatabase, TestInitializer, ended, eventually, from_environment, history};

const SHORT: Duration = Duration::from_millis(5);

async fn two_services(database: &TestDatabase) -> Ledger {
    let ways = [database.url(), database.url()];
    Ledger::open(database.options(), &ways).await
}

/// Changes a setting of the database, for all connections from now on, and ends
/// those that there are.
async fn set(pool: &PgPool, setting: &str) {
    let mut connection = pool.acquire().await.unwrap();
    let anyway = "SET default_transaction_read_only = off";
    connection.execute(anyway).await.unwrap();
    let change = format!(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I {setting}', current_database()); END $$;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()"
    );
    connection.execute(&*change).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_again_and_again_loses_and_doubles_nothing() {
    let mut server = tokio::task::spawn_blocking(Server::start).await.unwrap();
    let options = server.options();
    let url = {
        let (host, port) = (options.get_host(), options.get_port());
        format!("postgres://postgres@{host}:{port}/postgres")
    };
    let mut ledger = Ledger::open(options, &[url.clone(), url]).await;
    for _ in 0..3 {
        ledger.spawn(60, Duration::from_millis(300)).await;
        ledger.runs(10).await;
        server = tokio::task::spawn_blocking(move || {
            server.crash();
            server.start_again();
            server
        })
        .await
        .unwrap();
    }
    let balance = ledger.balance().await;
    println!("{balance:?}");
    assert!(balance.jobs >= 100, "{balance:?}");
}

/// Nothing that was deleted since it began can be removed for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_transaction_elsewhere_holds_nothing_up() {
    let database = TestDatabase::create().await;
    let mut ledger = two_services(&database).await;
    let mut elsewhere = PgConnection::connect(&database.url()).await.unwrap();
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM job_live; \
                 SELECT pg_current_xact_id()";
    elsewhere.execute(begin).await.unwrap();
    ledger.spawn(1_000, Duration::ZERO).await;
    ledger.all_ended().await;
    let pinned = "SELECT count(*) FROM pg_stat_activity \
                  WHERE datname = current_database() AND backend_xmin IS NOT NULL \
                  AND state = 'idle in transaction'";
    let pinned: i64 = sqlx::query_scalar(pinned)
        .fetch_one(ledger.pool())
        .await
        .unwrap();
    assert_eq!(pinned, 1, "it was open all along");
    elsewhere.execute("COMMIT").await.unwrap();
    let balance = ledger.balance().await;
    assert_eq!((balance.jobs, balance.lost_leases), (1_000, 0));
}

/// Commands run into their timeouts while somebody holds the tables.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_are_locked_for_two_leases_lose_and_double_nothing() {
    let database = TestDatabase::create().await;
    let mut ledger = two_services(&database).await;
    set(ledger.pool(), "SET lock_timeout = ''200ms''").await;
    ledger.spawn(20, LEASE).await;
    ledger.runs(20).await;
    let mut locking = ledger.pool().begin().await.unwrap();
    locking.execute("SET LOCAL lock_timeout = 0").await.unwrap();
    locking
        .execute("LOCK TABLE job_live, job_runs IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    tokio::time::sleep(2 * LEASE).await;
    locking.rollback().await.unwrap();
    let balance = ledger.balance().await;
    println!("{balance:?}");
    assert!(
        balance.failed_runs + balance.lost_leases > 0,
        "nothing failed"
    );
    assert_eq!(balance.jobs, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_are_cancelled_for_their_time_lose_and_double_nothing() {
    let database = TestDatabase::create().await;
    let mut ledger = two_services(&database).await;
    // As triggers of an audit would do it, now and then for too long.
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN PERFORM pg_sleep(CASE WHEN random() < 0.05 THEN 0.3 ELSE 0 END);
                RETURN NULL; END $$;
                CREATE TRIGGER slow AFTER INSERT OR UPDATE OR DELETE ON job_live
                FOR EACH STATEMENT EXECUTE FUNCTION slow();
                CREATE TRIGGER slow AFTER INSERT ON ledger
                FOR EACH STATEMENT EXECUTE FUNCTION slow()";
    ledger.pool().execute(slow).await.unwrap();
    // The worker's connections have a timeout of their own, so for these it is the
    // application's that is short.
    set(ledger.pool(), "SET statement_timeout = ''100ms''").await;
    ledger.spawn(100, SHORT).await;
    ledger.all_ended().await;
    set(ledger.pool(), "RESET statement_timeout").await;
    let balance = ledger.balance().await;
    println!("{balance:?}");
    let failed = 100 - balance.jobs + balance.failed_runs;
    assert!(failed > 0, "nothing was cancelled");
    assert!(balance.jobs >= 50, "{balance:?}");
}

/// The limit holds for users who are no superusers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_takes_no_more_connections_loses_nothing() {
    const LIMIT: usize = 30;
    let database = TestDatabase::create().await;
    let options = database.options();
    let role = format!("limited_{}", std::process::id());
    let pool = database.pool().await;
    let prepare = format!(
        "CREATE ROLE {role} LOGIN CONNECTION LIMIT {LIMIT};
         GRANT ALL ON SCHEMA public TO {role};
         DO $$ BEGIN EXECUTE format('GRANT ALL ON DATABASE %I TO {role}', current_database());
         END $$"
    );
    pool.execute(&*prepare).await.unwrap();
    let url = format!(
        "postgres://{role}@{}:{}/{}",
        options.get_host(),
        options.get_port(),
        options.get_database().unwrap()
    );
    let limited: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
    let give = "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC";
    pool.execute(give).await.unwrap();
    let mut ledger = Ledger::open(options, &[url.clone(), url]).await;
    ledger.spawn(20, LEASE).await;
    ledger.runs(20).await;
    // Somebody else takes the one connection that there is now.
    let other = PgConnection::connect_with(&limited).await.unwrap();
    let limit = format!(
        "ALTER ROLE {role} CONNECTION LIMIT 1;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE usename = '{role}' AND query <> ''"
    );
    pool.execute(&*limit).await.unwrap();
    tokio::time::sleep(2 * LEASE).await;
    let refused = PgConnection::connect_with(&limited).await.unwrap_err();
    assert!(
        refused.to_string().contains("too many connections"),
        "{refused}"
    );
    let limit = format!("ALTER ROLE {role} CONNECTION LIMIT {LIMIT}");
    pool.execute(&*limit).await.unwrap();
    drop(other);
    let balance = ledger.balance().await;
    println!("{balance:?}");
    assert_eq!(balance.jobs, 20);
    pool.execute(&*format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_only_reads_for_two_leases_loses_and_doubles_nothing() {
    let database = TestDatabase::create().await;
    let mut ledger = two_services(&database).await;
    ledger.spawn(20, LEASE).await;
    ledger.runs(20).await;
    set(ledger.pool(), "SET default_transaction_read_only = on").await;
    tokio::time::sleep(2 * LEASE).await;
    set(ledger.pool(), "RESET default_transaction_read_only").await;
    ledger.spawn(10, SHORT).await;
    let balance = ledger.balance().await;
    println!("{balance:?}");
    assert!(
        balance.failed_runs + balance.lost_leases > 0,
        "nothing failed"
    );
    assert!(balance.jobs >= 20, "{balance:?}");
}

/// Runs read a counter and write it, each in a serializable transaction that it
/// completes with. What does not fit is undone, the end of the run with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable_transactions_that_are_refused_are_run_again() {
    let jobs_max = from_environment("JOB_SOAK_JOBS", 60_i64);
    let database = TestDatabase::create().await;
    let pool = database.pool().await;
    pool.execute("CREATE TABLE counter (value bigint); INSERT INTO counter VALUES (0)")
        .await
        .unwrap();
    let config = job::JobSvcConfig::builder()
        .pg_con(database.url())
        .max_connections(10);
    let mut jobs = job::Jobs::init(config.build().unwrap()).await.unwrap();
    let retry = job::RetrySettings {
        n_attempts: None,
        n_warn_attempts: None,
        min_backoff: Duration::from_millis(10),
        max_backoff: Duration::from_millis(200),
        ..job::RetrySettings::default()
    };
    let count = TestInitializer::new("count", |job: job::CurrentJob, _| async move {
        let counted = async {
            let serializable = "BEGIN ISOLATION LEVEL SERIALIZABLE";
            let mut transaction = job.pool().begin_with(serializable).await?;
            let value: i64 = sqlx::query_scalar("SELECT value FROM counter")
                .fetch_one(&mut *transaction)
                .await?;
            sqlx::query("UPDATE counter SET value = $1")
                .bind(value + 1)
                .execute(&mut *transaction)
                .await?;
            Ok::<_, sqlx::Error>(transaction)
        };
        let transaction = counted.await.map_err(|error| error.to_string())?;
        Ok(JobCompletion::CompleteWithTx(transaction))
    });
    let spawner = jobs.add_initializer(count.retry(retry));
    jobs.start_poll().await.unwrap();
    let mut ids = Vec::new();
    while (ids.len() as i64) < jobs_max {
        // A spawn in such a transaction either commits with it or does not exist.
        let id = JobId::new();
        let serializable = "BEGIN ISOLATION LEVEL SERIALIZABLE";
        let mut transaction = pool.begin_with(serializable).await.unwrap();
        let spawned = spawner.spawn_in_op(&mut transaction, id, Value::Null).await;
        let committed = spawned.is_ok() && transaction.commit().await.is_ok();
        if committed {
            ids.push(id);
        } else {
            assert!(matches!(
                jobs.find(id).await,
                Err(job::error::JobError::NotFound(_))
            ));
        }
    }
    let mut refused = 0;
    for id in &ids {
        let job = ended(&jobs, *id).await;
        let history = history(&job);
        assert_eq!(job.state(), job::JobState::Completed, "{history:?}");
        refused += history.iter().filter(|event| **event == "failed").count();
    }
    let value: i64 = sqlx::query_scalar("SELECT value FROM counter")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(value, jobs_max, "each job counted once");
    assert!(refused > 0, "no transaction was ever refused");
    jobs.shutdown().await.unwrap();
    eventually("nothing is left", async || {
        let left = "SELECT count(*) FROM job_live";
        let left: i64 = sqlx::query_scalar(left).fetch_one(&pool).await.unwrap();
        (left == 0).then_some(())
    })
    .await;
}
