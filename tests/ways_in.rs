//! The ways into a Postgres that others own: its roles, pools, hooks, migrations and
//! locks, as an application meets them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use job::error::JobError;
use job::{IncludeMigrations, JobCompletion, JobId, JobPollerConfig, JobState, JobSvcConfig, Jobs};
use serde_json::Value;
use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, PgPool};
use tokio::sync::Barrier;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::faults::proxy::Proxy;
use crate::support::{GRANTS, Role, TestDatabase, TestInitializer, ended, eventually};

/// A role with the rights of a worker on tables that are there.
async fn worker_role(database: &TestDatabase, name: &str) -> Role {
    let role = Role::new(database.options(), name).await;
    role.grant(&GRANTS).await;
    role
}

fn url_of(role: &Role, database: &TestDatabase) -> String {
    let options = role.options();
    let (host, port) = (options.get_host(), options.get_port());
    let name = database.url().rsplit('/').next().unwrap().to_owned();
    format!("postgres://{}@{host}:{port}/{name}", role.name)
}

async fn make_tables(database: &TestDatabase) {
    let config = JobSvcConfig::builder().pg_con(database.url());
    Jobs::init(config.build().unwrap()).await.unwrap();
}

fn lazy(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(60)
        .connect_lazy_with(options)
}

async fn on_pool(pool: PgPool) -> Result<Jobs, JobError> {
    Jobs::init(JobSvcConfig::builder().pool(pool).build().unwrap()).await
}

/// Spawns a job and waits for its end.
async fn check_runs(mut jobs: Jobs) {
    let spawner = jobs.add_initializer(TestInitializer::completing("works"));
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    let job = ended(&jobs, id).await;
    assert_eq!(job.state(), JobState::Completed, "{:?}", job.last_error());
    jobs.shutdown().await.unwrap();
}

#[tokio::test]
async fn as_many_runs_as_may_run_can_each_hold_a_transaction() {
    let database = TestDatabase::create().await;
    let runs_max = JobPollerConfig::default().max_jobs_per_process;
    let config = JobSvcConfig::builder()
        .pg_con(database.url())
        .poller_config(JobPollerConfig {
            min_jobs_per_process: runs_max,
            ..JobPollerConfig::default()
        });
    let mut jobs = Jobs::init(config.build().unwrap()).await.unwrap();
    assert_eq!(jobs.pool().options().get_max_connections(), 60);
    // None ends before all of them have a connection.
    let all = Arc::new(Barrier::new(runs_max));
    let most = Arc::new(AtomicUsize::new(0));
    let (meet, seen) = (Arc::clone(&all), Arc::clone(&most));
    let spawner = jobs.add_initializer(TestInitializer::new(
        "holds",
        move |job: job::CurrentJob, _| {
            let (meet, seen) = (Arc::clone(&meet), Arc::clone(&seen));
            async move {
                let begun = job.pool().begin().await;
                let transaction = begun.map_err(|error| error.to_string())?;
                meet.wait().await;
                seen.fetch_add(1, Ordering::Relaxed);
                Ok(JobCompletion::CompleteWithTx(transaction))
            }
        },
    ));
    jobs.start_poll().await.unwrap();
    let ids: Vec<JobId> = (0..runs_max).map(|_| JobId::new()).collect();
    for id in &ids {
        spawner.spawn(*id, Value::Null).await.unwrap();
    }
    for id in ids {
        let job = ended(&jobs, id).await;
        assert_eq!((job.state(), job.attempt()), (JobState::Completed, 1));
    }
    assert_eq!(most.load(Ordering::Relaxed), runs_max);
}

/// Keeps what is warned of.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{field}={value:?} ");
            }
        }
        if *event.metadata().level() == tracing::Level::WARN {
            let mut text = Text(String::new());
            event.record(&mut text);
            self.0.lock().unwrap().push(text.0);
        }
    }
}

#[tokio::test]
async fn a_pool_that_is_too_small_is_warned_of_once_and_one_of_one_is_refused() {
    let database = TestDatabase::create().await;
    make_tables(&database).await;
    let pool = |size| {
        PgPoolOptions::new()
            .max_connections(size)
            .connect_lazy_with(database.options())
    };
    let warnings = Warnings::default();
    let subscriber = tracing_subscriber::registry().with(warnings.clone());
    let guard = tracing::subscriber::set_default(subscriber);
    for (size, warned) in [(7, true), (50, false)] {
        let mut jobs = on_pool(pool(size)).await.unwrap();
        jobs.start_poll().await.unwrap();
        jobs.shutdown().await.unwrap();
        let told: Vec<String> = std::mem::take(&mut *warnings.0.lock().unwrap());
        let told: Vec<_> = told.iter().filter(|t| t.contains("pool_size")).collect();
        assert_eq!(told.len(), usize::from(warned), "{told:?}");
        for text in told {
            assert!(
                text.contains("pool_size=7") && text.contains("=50"),
                "{text}"
            );
        }
    }
    drop(guard);
    let mut jobs = on_pool(pool(1)).await.unwrap();
    let refused = jobs.start_poll().await.unwrap_err();
    assert!(matches!(refused, JobError::Config(_)), "{refused}");
    assert!(refused.to_string().contains("at least 2"), "{refused}");
    // Who only spawns may have one.
    let mut jobs = on_pool(pool(1)).await.unwrap();
    let spawner = jobs.add_initializer(TestInitializer::completing("later"));
    spawner.spawn(JobId::new(), Value::Null).await.unwrap();

    let none = JobSvcConfig::builder().pg_con(database.url());
    let none = none.max_connections(0).build().unwrap_err();
    assert!(none.contains("max_connections is 0"), "{none}");
}

#[tokio::test]
async fn jobs_run_after_the_credentials_of_the_pool_were_rotated() {
    let database = TestDatabase::create().await;
    make_tables(&database).await;
    let old = worker_role(&database, "old_login").await;
    let new = worker_role(&database, "new_login").await;
    let pool = lazy(old.options());
    let mut jobs = on_pool(pool.clone()).await.unwrap();
    let spawner = jobs.add_initializer(TestInitializer::completing("works"));
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    ended(&jobs, id).await;
    pool.set_connect_options(new.options());
    old.as_admin(&format!("ALTER ROLE {} NOLOGIN", old.name))
        .await;
    let name = &old.name;
    old.as_admin(&format!(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = '{name}'"
    ))
    .await;
    // A connection that broke may fail one spawn.
    let id = eventually("a spawn is acknowledged", async || {
        let id = JobId::new();
        spawner.spawn(id, Value::Null).await.ok().map(|_| id)
    })
    .await;
    assert_eq!(ended(&jobs, id).await.state(), JobState::Completed);
    jobs.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_role_or_search_path_that_a_hook_sets_is_refused_with_what_works_instead() {
    let database = TestDatabase::create().await;
    let config = JobSvcConfig::builder().pg_con(database.url());
    let config = config.schema("jobs").build().unwrap();
    Jobs::init(config).await.unwrap();
    let hooked = PgPoolOptions::new()
        .max_connections(60)
        .after_connect(|connection, _| {
            Box::pin(async move {
                let set = "SET search_path TO jobs";
                connection.execute(set).await.map(drop)
            })
        })
        .connect_lazy_with(database.options());
    let refused = on_pool(hooked.clone()).await.unwrap_err();
    assert!(matches!(refused, JobError::Migration(_)), "{refused}");
    for part in ["after_connect", "options([(\"search_path\", \"jobs\")])"] {
        assert!(refused.to_string().contains(part), "{part}: {refused}");
    }
    let named = JobSvcConfig::builder().pool(hooked).schema("jobs");
    check_runs(Jobs::init(named.build().unwrap()).await.unwrap()).await;
    let option = database.options().options([("search_path", "jobs")]);
    check_runs(on_pool(lazy(option)).await.unwrap()).await;
}

#[tokio::test]
async fn a_process_that_may_not_create_anything_starts_on_tables_that_fit() {
    let database = TestDatabase::create().await;
    let poor = Role::new(database.options(), "poor_login").await;
    poor.as_admin(&format!("GRANT USAGE ON SCHEMA public TO {}", poor.name))
        .await;
    let config = || {
        let config = JobSvcConfig::builder().pg_con(url_of(&poor, &database));
        config.build().unwrap()
    };
    let refused = Jobs::init(config()).await.unwrap_err().to_string();
    for part in ["GRANT CREATE ON SCHEMA", "exec_migrations(false)"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    make_tables(&database).await;
    let refused = Jobs::init(config()).await.unwrap_err().to_string();
    assert!(
        refused.contains("GRANT SELECT, INSERT, UPDATE, DELETE"),
        "{refused}"
    );
    for grant in GRANTS {
        poor.as_admin(&format!("GRANT {grant} TO {}", poor.name))
            .await;
    }
    check_runs(Jobs::init(config()).await.unwrap()).await;
}

#[tokio::test]
async fn the_application_s_migrations_and_ours_leave_each_other_alone() {
    let database = TestDatabase::create().await;
    let migration = |version, sql: &'static str| {
        let kind = MigrationType::Simple;
        Migration::new(version, "orders".into(), kind, sql.into(), false)
    };
    let orders = migration(20_200_101_000_000, "CREATE TABLE orders (n int)");
    let mut application = Migrator {
        migrations: vec![orders].into(),
        ..Migrator::DEFAULT
    };
    let pool = database.pool().await;
    // It starts, and starts again.
    for _ in 0..2 {
        application.run(&pool).await.unwrap();
        make_tables(&database).await;
    }
    // One that failed halfway, as those without a transaction can.
    let dirty = "INSERT INTO _sqlx_migrations VALUES (7, 'index', now(), false, '', 0)";
    pool.execute(dirty).await.unwrap();
    // It keeps the lock of its migrations, too.
    let mut failed = database.options().connect().await.unwrap();
    application.run(&mut failed).await.unwrap_err();
    make_tables(&database).await;
    check_runs(on_pool(lazy(database.options())).await.unwrap()).await;
    failed.close().await.unwrap();
    pool.execute("DELETE FROM _sqlx_migrations WHERE version = 7")
        .await
        .unwrap();
    // It includes ours from now on.
    application.include_job_migrations();
    for _ in 0..2 {
        application.run(&pool).await.unwrap();
        make_tables(&database).await;
    }
    check_runs(on_pool(lazy(database.options())).await.unwrap()).await;
}

#[tokio::test]
async fn a_start_on_tables_that_fit_waits_for_no_migration_of_the_application() {
    let database = TestDatabase::create().await;
    make_tables(&database).await;
    let mut application = database.options().connect().await.unwrap();
    application.lock().await.unwrap();
    check_runs(on_pool(lazy(database.options())).await.unwrap()).await;
    make_tables(&database).await;
    application.close().await.unwrap();
}

/// All that a start sends, but for the greeting of each connection.
#[tokio::test]
async fn a_start_on_tables_that_fit_takes_four_statements_at_most() {
    let database = TestDatabase::create().await;
    make_tables(&database).await;
    let proxy = Proxy::start(database.options()).await;
    for poll_only in [false, true] {
        let sent: Arc<Mutex<Vec<String>>> = Arc::default();
        let tell = Arc::clone(&sent);
        proxy.judge(move |text| {
            tell.lock().unwrap().push(text.to_owned());
            None
        });
        let config = JobSvcConfig::builder().pg_con(proxy.url());
        let config = config.max_connections(1).poll_only(poll_only);
        let jobs = Jobs::init(config.build().unwrap()).await.unwrap();
        // What is sent when a connection goes back to its pool has been sent then.
        let connection = jobs.pool().acquire().await.unwrap();
        let sent = sent.lock().unwrap().clone();
        assert!((1..=4).contains(&sent.len()), "{sent:#?}");
        for text in sent {
            for word in ["BEGIN", "INSERT INTO", "UPDATE ", "pg_advisory", "CREATE "] {
                assert!(!text.contains(word), "{word}: {text}");
            }
        }
        drop(connection);
        jobs.pool().close().await;
    }
}

#[tokio::test]
async fn a_tenant_s_search_path_in_a_transaction_leads_no_job_astray() {
    let database = TestDatabase::create().await;
    let tenant = JobSvcConfig::builder().pg_con(database.url());
    let tenant = tenant.schema("tenant").build().unwrap();
    let tenant = Jobs::init(tenant).await.unwrap();
    let config = JobSvcConfig::builder().pg_con(database.url());
    let mut jobs = Jobs::init(config.build().unwrap()).await.unwrap();
    let spawner = jobs.add_initializer(TestInitializer::completing("works"));
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    let mut transaction = jobs.pool().begin().await.unwrap();
    let path = "SET LOCAL search_path TO tenant";
    transaction.execute(path).await.unwrap();
    let spawned = spawner.spawn_in_op(&mut transaction, id, Value::Null);
    spawned.await.unwrap();
    transaction.commit().await.unwrap();
    ended(&jobs, id).await;
    let there = tenant.find(id).await.unwrap_err();
    assert!(matches!(there, JobError::NotFound(_)), "{there}");
}

#[tokio::test]
async fn a_connection_string_that_would_not_be_followed_is_refused_by_name() {
    for (parameters, part) in [
        ("?schema=jobs", "\"schema\""),
        ("?sslmode=prefer&search_path=jobs", "\"search_path\""),
        ("?currentSchema=jobs", "\"currentSchema\""),
        (",two:5432/db", "several hosts"),
    ] {
        let url = format!("postgres://ada:hunter2@one:5432{parameters}");
        let refused = JobSvcConfig::builder().pg_con(url).build().unwrap_err();
        assert!(refused.contains(part), "{refused}");
        assert!(!refused.contains("hunter2"), "{refused}");
    }
}

#[tokio::test]
async fn a_job_that_is_not_announced_in_its_transaction_is_found_by_the_next_poll() {
    let database = TestDatabase::create().await;
    let config = JobSvcConfig::builder()
        .pg_con(database.url())
        .notify_in_transactions(false)
        .poll_interval(Duration::from_millis(20));
    let mut jobs = Jobs::init(config.build().unwrap()).await.unwrap();
    let spawner = jobs.add_initializer(TestInitializer::completing("quiet"));
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    let mut transaction = jobs.pool().begin().await.unwrap();
    let spawned = spawner.spawn_in_op(&mut transaction, id, Value::Null);
    spawned.await.unwrap();
    transaction.commit().await.unwrap();
    ended(&jobs, id).await;
}
