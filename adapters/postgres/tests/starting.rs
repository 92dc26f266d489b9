//! A start: what it looks at, what it needs for that, and what it refuses.

use std::time::Duration;

use job_engine::{Command, StoreError};
use job_postgres::{PostgresStore, SchemaError, StoreOptions};
use job_tokio::Store;
use sqlx::migrate::Migrate;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, PgPool, Row};

use crate::role::{GRANTS, Role};
use crate::support::{
    TestDatabase, at, checkpoint, claim_one, completed, find, finish, heartbeat, id, new_job,
    reclaim, spawn, wait_for_blocked, wait_until, within,
};

fn store(options: PgConnectOptions) -> PostgresStore {
    let pool = PgPoolOptions::new().max_connections(4);
    PostgresStore::new(pool.connect_lazy_with(options), StoreOptions::default()).unwrap()
}

/// A pool whose connections do this first.
fn hooked(options: PgConnectOptions, statement: &'static str) -> PgPool {
    PgPoolOptions::new()
        .max_connections(4)
        .after_connect(move |connection, _| {
            Box::pin(async move { connection.execute(statement).await.map(drop) })
        })
        .connect_lazy_with(options)
}

/// Does what a service does.
async fn check_works(store: &PostgresStore, n: u128) {
    let new = vec![new_job(n, "a"), new_job(n + 1, "a"), new_job(n + 2, "a")];
    spawn(store, at(0), new).await;
    let together = Command::Spawn(vec![new_job(n + 3, "a")]);
    store.spawn_together(Some(at(0)), &together).await.unwrap();
    let [done, lost] = [
        claim_one(store, at(1), "a").await,
        claim_one(store, at(1), "a").await,
    ];
    heartbeat(store, at(2), vec![done]).await;
    store.execute(None, &checkpoint(done, "1")).await.unwrap();
    finish(store, at(3), vec![completed(done)]).await;
    assert_eq!(
        reclaim(store, at(1_000_000), "a").await.len(),
        1,
        "{lost:?}"
    );
    assert!(find(store, done.job).await.is_some());
    let rest = ["a"; 3];
    for job_type in rest {
        let run = claim_one(store, at(2_000_000), job_type).await;
        finish(store, at(2_000_000), vec![completed(run)]).await;
    }
}

#[tokio::test]
async fn a_role_with_the_rights_of_a_worker_starts_and_works_and_needs_each_of_them() {
    let (database, _admin) = TestDatabase::with_store().await;
    let role = Role::new(database.options(), "worker").await;
    role.grant(&GRANTS).await;
    let worker = store(role.options());
    worker.migrate().await.unwrap();
    worker.check_schema().await.unwrap();
    check_works(&worker, 1).await;
    for grant in GRANTS {
        role.as_admin(&format!("REVOKE {grant} FROM {}", role.name))
            .await;
        for store in [store(role.options()), {
            let named = StoreOptions {
                schema: Some("public".to_owned()),
                ..StoreOptions::default()
            };
            PostgresStore::new(store(role.options()).pool().clone(), named).unwrap()
        }] {
            let error = store.migrate().await.unwrap_err();
            assert!(
                matches!(error, SchemaError::MayNotUse { .. }),
                "{grant}: {error}"
            );
            let right = grant.split([' ', ',']).next().unwrap();
            let text = error.to_string();
            assert!(text.contains(&format!("GRANT {right}")), "{grant}: {text}");
            assert!(text.contains(&role.name), "{grant}: {text}");
        }
        role.grant(&[grant]).await;
    }
    // What a store is told that did not look.
    role.as_admin(&format!("REVOKE SELECT ON job_live FROM {}", role.name))
        .await;
    let told = store(role.options())
        .execute(None, &Command::Find(id(1)))
        .await
        .unwrap_err();
    assert!(told.to_string().contains("GRANT SELECT"), "{told}");
}

#[tokio::test]
async fn a_role_that_may_not_make_the_tables_is_told_the_grant_and_another_way() {
    let database = TestDatabase::empty().await;
    let role = Role::new(database.options(), "poor").await;
    role.grant(&["USAGE ON SCHEMA public"]).await;
    let error = store(role.options())
        .migrate()
        .await
        .unwrap_err()
        .to_string();
    let grant = format!("GRANT CREATE ON SCHEMA \"public\" TO \"{}\"", role.name);
    assert!(error.contains(&grant), "{error}");
    assert!(error.contains("exec_migrations(false)"), "{error}");
    let named = StoreOptions {
        schema: Some("jobs".to_owned()),
        ..StoreOptions::default()
    };
    let named = PostgresStore::new(store(role.options()).pool().clone(), named).unwrap();
    let error = named.migrate().await.unwrap_err().to_string();
    assert!(error.contains("GRANT CREATE ON DATABASE"), "{error}");
    let error = store(role.options()).check_schema().await.unwrap_err();
    assert!(matches!(error, SchemaError::Missing { .. }), "{error}");
    // None of its search path exists.
    let nowhere = role.options().options([("search_path", "nowhere")]);
    let error = store(nowhere).migrate().await.unwrap_err();
    assert!(matches!(error, SchemaError::NoSchema { .. }), "{error}");
    role.grant(&["CREATE ON SCHEMA public"]).await;
    store(role.options()).migrate().await.unwrap();
    check_works(&store(role.options()), 1).await;
}

#[tokio::test]
async fn rows_that_row_security_hides_are_not_taken_for_none() {
    let (database, _admin) = TestDatabase::with_store().await;
    let role = Role::new(database.options(), "blind").await;
    role.grant(&GRANTS).await;
    role.as_admin("ALTER TABLE job_live ENABLE ROW LEVEL SECURITY")
        .await;
    let error = store(role.options()).check_schema().await.unwrap_err();
    assert!(matches!(error, SchemaError::Hidden { .. }), "{error}");
    role.as_admin("CREATE POLICY everything ON job_live USING (true)")
        .await;
    store(role.options()).check_schema().await.unwrap();
}

#[tokio::test]
async fn a_role_that_a_hook_of_the_pool_sets_is_refused_and_works_as_an_option() {
    let (database, _admin) = TestDatabase::with_store().await;
    let login = Role::new(database.options(), "login").await;
    let app = Role::new(database.options(), "app").await;
    app.grant(&GRANTS).await;
    login.grant(&[&app.name]).await;
    let set: &'static str = format!("SET ROLE {}", app.name).leak();
    for migrate in [false, true] {
        let pool = hooked(login.options(), set);
        let store = PostgresStore::new(pool, StoreOptions::default()).unwrap();
        let error = store
            .prepare(migrate, Duration::from_secs(10))
            .await
            .unwrap_err();
        assert!(matches!(error, SchemaError::NotInherited { .. }), "{error}");
        let option = format!("options([(\"role\", \"{}\")])", app.name);
        for part in [&option, "after_connect", &login.name, &app.name] {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
    }
    let told = store(login.options().options([("role", &app.name)]));
    told.check_schema().await.unwrap();
    check_works(&told, 1).await;
}

#[tokio::test]
async fn a_search_path_that_a_hook_of_the_pool_sets_is_refused_unless_it_leads_nowhere_else() {
    let database = TestDatabase::empty().await;
    let mut admin = database.options().connect().await.unwrap();
    admin
        .execute("CREATE SCHEMA jobs; CREATE SCHEMA tenant")
        .await
        .unwrap();
    let hooked = |statement| {
        let pool = hooked(database.options(), statement);
        PostgresStore::new(pool, StoreOptions::default()).unwrap()
    };
    // Neither are tables made where nobody wants them.
    for _ in 0..2 {
        let error = hooked("SET search_path TO jobs")
            .migrate()
            .await
            .unwrap_err();
        assert!(matches!(error, SchemaError::NotInherited { .. }), "{error}");
        for part in [
            "options([(\"search_path\", \"jobs\")])",
            ".schema(\"jobs\")",
        ] {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
        let told = store(database.options().options([("search_path", "jobs")]));
        told.migrate().await.unwrap();
    }
    // What the hook does matters to the application alone, if the tables are the same.
    store(database.options()).migrate().await.unwrap();
    let elsewhere = hooked("SET search_path TO tenant");
    elsewhere.migrate().await.unwrap();
    check_works(&elsewhere, 1).await;
}

/// One schema for each tenant, each made from the same template.
#[tokio::test]
async fn a_search_path_that_the_caller_sets_in_his_transaction_leads_no_job_astray() {
    let (database, observer) = TestDatabase::with_store().await;
    let tenant = StoreOptions {
        schema: Some("tenant".to_owned()),
        ..StoreOptions::default()
    };
    let tenant = PostgresStore::new(database.pool(2), tenant).unwrap();
    tenant.migrate().await.unwrap();
    let store = store(database.options());
    store.check_schema().await.unwrap();
    let mut transaction = store.pool().begin().await.unwrap();
    transaction
        .execute("SET LOCAL search_path TO tenant")
        .await
        .unwrap();
    let command = Command::Spawn(vec![new_job(1, "a")]);
    store
        .execute_on(&mut transaction, Some(at(0)), &command)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    assert!(find(&tenant, id(1)).await.is_none());
    assert!(find(&observer, id(1)).await.is_some());
    claim_one(&observer, at(1), "a").await;
}

/// Roles, since the server asks nobody for a password.
#[tokio::test]
async fn connections_that_are_opened_later_have_the_credentials_that_the_pool_has_then() {
    let (database, observer) = TestDatabase::with_store().await;
    let [old, new] = [
        Role::new(database.options(), "old").await,
        Role::new(database.options(), "new").await,
    ];
    for role in [&old, &new] {
        role.grant(&GRANTS).await;
    }
    let store = store(old.options());
    store.check_schema().await.unwrap();
    check_works(&store, 1).await;
    let (sender, mut wakes) = tokio::sync::mpsc::channel(10);
    let _listening = {
        let store = store.clone();
        tokio::spawn(async move { store.listen(sender).await })
    };
    assert_eq!(wakes.recv().await, Some(job_tokio::Wake::Restored));

    store.pool().set_connect_options(new.options());
    old.as_admin(&format!("ALTER ROLE {} NOLOGIN", old.name))
        .await;
    let end = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = $1";
    let end = sqlx::query(end).bind(&old.name);
    end.execute(observer.pool()).await.unwrap();
    // Each of the worker's connections breaks once.
    wait_until("the worker is back", || async {
        let beat = Command::Heartbeat(job_engine::store::Heartbeat {
            runs: Vec::new(),
            lease: Duration::from_secs(60),
        });
        let claims = store.execute(Some(at(3_000_000)), &beat).await.is_ok();
        let types = [job_engine::JobType::new("a")].into();
        let announces = store.announce(&types).await.is_ok();
        let spawns = Command::Spawn(vec![new_job(50, "b")]);
        let spawns = store.spawn_together(Some(at(0)), &spawns).await.is_ok();
        claims && announces && spawns
    })
    .await;
    check_works(&store, 100).await;
    // The listener, too.
    assert_eq!(wakes.recv().await, Some(job_tokio::Wake::Lost));
    assert_eq!(wakes.recv().await, Some(job_tokio::Wake::Restored));
    let whose = "SELECT DISTINCT usename::text FROM pg_stat_activity
                 WHERE datname = current_database() AND usename ~ '^(old|new)_of_'";
    let whose: Vec<String> = sqlx::query_scalar(whose)
        .fetch_all(observer.pool())
        .await
        .unwrap();
    assert_eq!(whose, [&*new.name]);
    drop(store);
}

#[tokio::test]
async fn tables_that_fit_need_no_lock_whoever_holds_which() {
    let (database, observer) = TestDatabase::with_store().await;
    // That of the application's migrations, ours, and all on the tables but those that
    // keep even readers out.
    let mut application = database.options().connect().await.unwrap();
    application.lock().await.unwrap();
    let ours = "SELECT pg_advisory_lock(7593020161124)";
    application.execute(ours).await.unwrap();
    let mut transaction = application.begin().await.unwrap();
    let tables =
        "LOCK TABLE job_schema, job_specs, job_live, job_checkpoints, job_runs IN EXCLUSIVE MODE";
    transaction.execute(tables).await.unwrap();
    for poll_only in [false, true] {
        let options = StoreOptions {
            poll_only,
            ..StoreOptions::default()
        };
        let store = PostgresStore::new(database.pool(2), options).unwrap();
        within("the start", store.migrate()).await.unwrap();
    }
    transaction.rollback().await.unwrap();
    observer.close().await;
}

/// Waiting for the lock of other migrations, it must not keep a snapshot that a
/// `CREATE INDEX CONCURRENTLY` waits for, nor wait for the application's lock.
#[tokio::test]
async fn a_start_that_waits_for_a_migration_holds_up_no_index_of_the_application() {
    let database = TestDatabase::empty().await;
    let mut holder = database.options().connect().await.unwrap();
    holder
        .execute("SELECT pg_advisory_lock(7593020161124)")
        .await
        .unwrap();
    let waiting = {
        let store = store(database.options());
        tokio::spawn(async move { store.migrate().await })
    };
    let mut application = database.options().connect().await.unwrap();
    application.lock().await.unwrap();
    application
        .execute("CREATE TABLE orders (n int)")
        .await
        .unwrap();
    let observer = database.pool(1);
    wait_until("the start has tried", || async {
        let tries = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'job' \
                     AND datname = current_database()";
        let tries: i64 = observer.fetch_one(tries).await.unwrap().get(0);
        tries > 0
    })
    .await;
    let index = application.execute("CREATE INDEX CONCURRENTLY orders_n ON orders (n)");
    within("the index", index).await.unwrap();
    let valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'orders_n'::regclass";
    assert!(
        application
            .fetch_one(valid)
            .await
            .unwrap()
            .get::<bool, _>(0)
    );
    assert!(!waiting.is_finished());
    holder.close().await.unwrap();
    within("the migration", waiting).await.unwrap().unwrap();
}

/// As a second process of an application that migrates by itself does.
#[tokio::test]
async fn a_start_beside_an_index_that_waits_ends_neither_of_them() {
    let (database, observer) = TestDatabase::with_store().await;
    observer
        .pool()
        .execute("CREATE TABLE orders (n int)")
        .await
        .unwrap();
    let mut reader = database.options().connect().await.unwrap();
    reader
        .execute("BEGIN; INSERT INTO orders VALUES (1)")
        .await
        .unwrap();
    let mut application = database.options().connect().await.unwrap();
    application.lock().await.unwrap();
    let indexing = tokio::spawn(async move {
        application
            .execute("CREATE INDEX CONCURRENTLY orders_n ON orders (n)")
            .await
    });
    wait_for_blocked(observer.pool(), 1).await;
    let second = store(database.options());
    within("the start", second.migrate()).await.unwrap();
    let in_a_schema = StoreOptions {
        schema: Some("jobs".to_owned()),
        ..StoreOptions::default()
    };
    let new = PostgresStore::new(database.pool(2), in_a_schema).unwrap();
    within("the first start", new.migrate()).await.unwrap();
    reader.execute("COMMIT").await.unwrap();
    within("the index", indexing).await.unwrap().unwrap();
}

/// Takes as long as it waits.
#[tokio::test]
async fn a_migration_that_never_ends_is_told_with_who_does_it() {
    let database = TestDatabase::empty().await;
    let named = database.options().application_name("stuck deploy");
    let mut holder = named.connect().await.unwrap();
    holder
        .execute("SELECT pg_advisory_lock(7593020161124)")
        .await
        .unwrap();
    let pid: i32 = holder
        .fetch_one("SELECT pg_backend_pid()")
        .await
        .unwrap()
        .get(0);
    let error = store(database.options()).migrate().await.unwrap_err();
    assert!(matches!(error, SchemaError::Locked { .. }), "{error}");
    for part in ["stuck deploy", &pid.to_string()] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_database_that_is_read_only_is_told_at_the_start() {
    let (database, observer) = TestDatabase::with_store().await;
    let name = database.options().get_database().unwrap().to_owned();
    let set = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    observer.pool().execute(&*set).await.unwrap();
    for migrate in [false, true] {
        let store = store(database.options());
        let error = store
            .prepare(migrate, Duration::from_secs(10))
            .await
            .unwrap_err();
        assert!(
            matches!(error, SchemaError::ReadOnly { standby: false }),
            "{error}"
        );
    }
    let late = store(database.options());
    let command = Command::Spawn(vec![new_job(1, "a")]);
    let told = late.execute(None, &command).await.unwrap_err();
    assert!(told.to_string().contains("read-only"), "{told}");
}

#[tokio::test]
async fn a_conflict_of_a_run_with_its_own_lease_names_what_begins_safely() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a")]).await;
    let run = claim_one(&store, at(1), "a").await;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ";
    let mut connection: PgConnection = store.pool().acquire().await.unwrap().detach();
    let mut transaction = connection.begin_with(begin).await.unwrap();
    transaction.execute("SELECT 1 FROM job_runs").await.unwrap();
    heartbeat(&store, at(2), vec![run]).await;
    let end = Command::Finish(vec![completed(run)]);
    let conflict = store.execute_on(&mut transaction, Some(at(3)), &end).await;
    let conflict = conflict.unwrap_err();
    assert!(matches!(conflict, StoreError::Failed(_)), "{conflict}");
    assert!(
        conflict.to_string().contains("current_job.begin()"),
        "{conflict}"
    );
    transaction.rollback().await.unwrap();
}
