//! What broke on a real database when the service was used, tried as an application would.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use job::{CurrentJob, JobCompletion, JobId, JobPollerConfig, JobState, JobSvcConfig, Jobs};
use job::{Postgres, RetrySettings, Sqlite};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::support::{
    PATIENCE, TestBackend, TestDatabase, TestInitializer, ended, eventually, history,
};

fn leases(lease: Duration) -> JobPollerConfig {
    JobPollerConfig {
        job_lost_interval: lease,
        ..JobPollerConfig::default()
    }
}

/// Asks the database until it says yes.
async fn holds(pool: &PgPool, what: &str, sql: &str) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !sqlx::query_scalar::<_, bool>(sql)
        .fetch_one(pool)
        .await
        .unwrap()
    {
        assert!(tokio::time::Instant::now() < deadline, "never so: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An application whose transactions are all serializable.
async fn serializable(database: &TestDatabase) -> (Jobs, PgPool) {
    let options = database.options();
    let options = options.options([("default_transaction_isolation", "serializable")]);
    let pool = PgPool::connect_lazy_with(options);
    let config = JobSvcConfig::builder()
        .pool(pool)
        .exec_migrations(true)
        .poller_config(leases(Duration::from_secs(1)));
    let jobs = Jobs::init(config.build().unwrap()).await.unwrap();
    let outside = database.pool().await;
    sqlx::query("CREATE TABLE ledger (job uuid)")
        .execute(&outside)
        .await
        .unwrap();
    (jobs, outside)
}

/// 40001 at every attempt, for ever, and nothing written.
#[tokio::test]
async fn a_serializable_transaction_that_outlives_its_lease_completes_its_run() {
    let database = TestDatabase::create().await;
    let (mut jobs, outside) = serializable(&database).await;
    let spawner = jobs.add_initializer(TestInitializer::<Postgres>::new("enter", {
        let outside = outside.clone();
        move |job: CurrentJob, _| {
            let outside = outside.clone();
            async move {
                let mut tx = job.begin().await.map_err(|error| error.to_string())?;
                let enter = sqlx::query("INSERT INTO ledger VALUES ($1)");
                enter.bind(*job.id()).execute(&mut *tx).await.unwrap();
                // Longer than heartbeats, and than the lease, which nobody can take away.
                let lapsed = "SELECT now() > lease_expires_at FROM job_live";
                holds(&outside, "the lease has run out", lapsed).await;
                Ok(JobCompletion::CompleteWithTx(tx))
            }
        }
    }));
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    let job = ended(&jobs, id).await;
    assert_eq!(history(&job), ["spawned", "started", "completed"]);
    holds(&outside, "one entry", "SELECT count(*) = 1 FROM ledger").await;
    jobs.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_serializable_transaction_that_cannot_complete_its_run_is_told_how_to_begin() {
    let database = TestDatabase::create().await;
    let (mut jobs, outside) = serializable(&database).await;
    let enter = TestInitializer::<Postgres>::new("enter", {
        let outside = outside.clone();
        move |job: CurrentJob, _| {
            let outside = outside.clone();
            async move {
                let mut tx = job.pool().begin().await.unwrap();
                let enter = sqlx::query("INSERT INTO ledger VALUES ($1)");
                enter.bind(*job.id()).execute(&mut *tx).await.unwrap();
                let renewed = "SELECT lease_expires_at > claimed_at + interval '1.1 s' \
                               FROM job_live";
                holds(&outside, "the lease was renewed", renewed).await;
                Ok(JobCompletion::CompleteWithTx(tx))
            }
        }
    });
    let once = RetrySettings {
        n_attempts: Some(1),
        ..RetrySettings::default()
    };
    let spawner = jobs.add_initializer(enter.retry(once));
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    let job = ended(&jobs, id).await;
    assert_eq!(job.state(), JobState::Errored);
    let error = job.last_error().unwrap();
    assert!(error.contains("current_job.begin()"), "{error}");
    jobs.shutdown().await.unwrap();
}

/// The replica to which a database fails over may not know of the last claims. The run of
/// such a claim completed the job of the next, which had the same fence.
#[tokio::test]
async fn a_claim_that_a_failover_forgot_can_end_nothing() {
    let database = TestDatabase::create().await;
    let pool = database.pool().await;
    let service = async || {
        let config = JobSvcConfig::builder().pg_con(database.url());
        Jobs::init(config.build().unwrap()).await.unwrap()
    };
    sqlx::query("CREATE TABLE ledger (who text)")
        .execute(&pool)
        .await
        .unwrap();
    let enter = |who: &'static str, begun: &Arc<Notify>, ends: &Arc<Notify>| {
        let (begun, ends) = (Arc::clone(begun), Arc::clone(ends));
        TestInitializer::<Postgres>::new("enter", move |job: CurrentJob, _| {
            let (begun, ends) = (Arc::clone(&begun), Arc::clone(&ends));
            async move {
                begun.notify_one();
                ends.notified().await;
                let mut tx = job.pool().begin().await.unwrap();
                let enter = sqlx::query("INSERT INTO ledger VALUES ($1)").bind(who);
                enter.execute(&mut *tx).await.unwrap();
                Ok(JobCompletion::CompleteWithTx(tx))
            }
        })
    };
    let [begun, first_ends, second_ends] = [(); 3].map(|()| Arc::new(Notify::new()));
    let mut first = service().await;
    let spawner = first.add_initializer(enter("forgotten", &begun, &first_ends));
    first.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    begun.notified().await;
    // As the replica has it, which does not know of the claim.
    let forget = "UPDATE job_live SET state = 0, fence = 0, worker = NULL, claim_seq = NULL, \
                  claimed_at = NULL, lease_expires_at = NULL";
    sqlx::query(forget).execute(&pool).await.unwrap();
    let mut second = service().await;
    second.add_initializer(enter("rightful", &begun, &second_ends));
    // The first has its places full of what it believes to run; it may claim the job again.
    second.start_poll().await.unwrap();
    begun.notified().await;
    let by_first = first.find(id).await.unwrap();
    let claimed = by_first.events().last().cloned();
    // Of both its runs, if it has claimed the job again.
    first_ends.notify_one();
    first_ends.notify_one();
    second_ends.notify_one();
    let job = ended(&second, id).await;
    assert_eq!(job.state(), JobState::Completed, "{claimed:?}");
    let entries: Vec<String> = sqlx::query_scalar("SELECT who FROM ledger")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(entries.len(), 1, "{entries:?}");
    first.shutdown().await.unwrap();
    second.shutdown().await.unwrap();
}

/// Carries what a server says no faster than a slow line does.
struct SlowLine {
    port: u16,
    _connections: JoinSet<()>,
}

impl SlowLine {
    async fn to(database: &TestDatabase, bytes_per_ms: usize) -> Self {
        let options = database.options();
        let server = (options.get_host().to_owned(), options.get_port());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut carried = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let far = TcpStream::connect((&*server.0, server.1)).await.unwrap();
                carried.spawn(carry(near, far, bytes_per_ms));
            }
        });
        Self {
            port,
            _connections: connections,
        }
    }
}

async fn carry(near: TcpStream, far: TcpStream, bytes_per_ms: usize) {
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let up = async { tokio::io::copy(&mut near_read, &mut far_write).await };
    let down = async {
        let mut buffer = vec![0; bytes_per_ms * 5];
        loop {
            match far_read.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(len) => {
                    let took = tokio::time::sleep(Duration::from_micros(
                        (1_000 * len / bytes_per_ms) as u64,
                    ));
                    took.await;
                    if near_write.write_all(&buffer[..len]).await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    tokio::select! {
        _ = up => {}
        () = down => {}
    }
}

/// Claims asked for all of it again and again, and no job of any type ever ran.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_of_big_configs_is_worked_off_over_a_slow_line() {
    let database = TestDatabase::create().await;
    // The driver waits for a second for an answer, in which three of the configs arrive.
    let line = SlowLine::to(&database, 2_000).await;
    let options = database.options().host("127.0.0.1").port(line.port);
    let config = JobSvcConfig::builder()
        .pool(PgPool::connect_lazy_with(options))
        .exec_migrations(true)
        .poller_config(leases(Duration::from_secs(4)));
    let mut jobs = Jobs::init(config.build().unwrap()).await.unwrap();
    let spawner = jobs.add_initializer(TestInitializer::<Postgres>::completing("big"));
    let small = jobs.add_initializer(TestInitializer::<Postgres>::completing("small"));
    let text = "x".repeat(512 * 1024);
    let mut ids = Vec::new();
    for _ in 0..12 {
        ids.push(JobId::new());
        spawner
            .spawn(ids[ids.len() - 1], json!(text))
            .await
            .unwrap();
    }
    ids.push(JobId::new());
    small.spawn(ids[12], Value::Null).await.unwrap();
    jobs.start_poll().await.unwrap();
    let direct = JobSvcConfig::builder().pg_con(database.url()).build();
    let direct: Jobs = Jobs::init(direct.unwrap()).await.unwrap();
    for id in ids {
        let job = ended(&direct, id).await;
        assert_eq!((job.state(), job.attempt()), (JobState::Completed, 1));
    }
    jobs.shutdown().await.unwrap();
}

/// It was claimed and dropped, lease after lease, until it had crashed ten times.
async fn a_job_without_its_spec_ends_at_once<B: TestBackend>(
    delete: impl AsyncFnOnce(&B::Pool),
    ends: impl AsyncFn(&B::Pool) -> Option<(i64, String)>,
) {
    let place = B::place().await;
    let mut jobs = Jobs::init(B::on(&place).build().unwrap()).await.unwrap();
    let ran = Arc::new(AtomicBool::new(false));
    let runs = Arc::clone(&ran);
    let spawner = jobs.add_initializer(TestInitializer::<B>::new("gone", move |_, _| {
        runs.store(true, Ordering::Relaxed);
        async { Ok(JobCompletion::Complete) }
    }));
    let other = jobs.add_initializer(TestInitializer::<B>::completing("other"));
    spawner.spawn(JobId::new(), Value::Null).await.unwrap();
    delete(jobs.pool()).await;
    let id = JobId::new();
    other.spawn(id, Value::Null).await.unwrap();
    jobs.start_poll().await.unwrap();
    let (end, error) = eventually("the job has ended", async || ends(jobs.pool()).await).await;
    assert_eq!(end, 4, "errored");
    assert!(error.contains("job_specs"), "{error}");
    ended(&jobs, id).await;
    assert!(!ran.load(Ordering::Relaxed));
    jobs.shutdown().await.unwrap();
}

const DELETE_SPECS: &str = "DELETE FROM job_specs";
const END: &str = "SELECT CAST(run_end AS bigint), error FROM job_runs WHERE error IS NOT NULL";

#[tokio::test]
async fn a_job_whose_spec_was_deleted_by_hand_ends_at_once_on_postgres() {
    a_job_without_its_spec_ends_at_once::<Postgres>(
        async |pool| {
            sqlx::query(DELETE_SPECS).execute(pool).await.unwrap();
        },
        async |pool| sqlx::query_as(END).fetch_optional(pool).await.unwrap(),
    )
    .await;
}

#[tokio::test]
async fn a_job_whose_spec_was_deleted_by_hand_ends_at_once_on_sqlite() {
    a_job_without_its_spec_ends_at_once::<Sqlite>(
        async |pool| {
            sqlx::query(DELETE_SPECS).execute(pool).await.unwrap();
        },
        async |pool| sqlx::query_as(END).fetch_optional(pool).await.unwrap(),
    )
    .await;
}
