//! Making the tables, and finding them made.

use job_engine::store::{Finish, Outcome};
use job_engine::{Command, StoreError};
use job_postgres::{PostgresStore, SCHEMA_VERSION, SchemaError, StoreOptions, migrator};
use job_tokio::Store;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Executor, PgPool, Row};

use crate::support::{
    TestDatabase, at, checkpoint, claim_one, completed, finish, heartbeat, id, new_job, reclaim,
    spawn,
};

fn in_schema(schema: &str) -> StoreOptions {
    StoreOptions {
        schema: Some(schema.to_owned()),
        ..StoreOptions::default()
    }
}

#[tokio::test]
async fn missing_tables_are_reported_with_what_to_do() {
    let database = TestDatabase::empty().await;
    for options in [StoreOptions::default(), in_schema("jobs")] {
        let store = PostgresStore::new(database.pool(2), options).unwrap();
        let error = store.check_schema().await.unwrap_err();
        assert!(matches!(error, SchemaError::Missing { .. }), "{error}");
        assert!(
            error.to_string().contains("exec_migrations(true)"),
            "{error}"
        );
        let reply = store.execute(None, &Command::Find(id(1))).await;
        assert!(matches!(reply, Err(StoreError::Failed(_))), "{reply:?}");
    }
}

#[tokio::test]
async fn migrations_can_run_again_and_at_once() {
    let database = TestDatabase::empty().await;
    for options in [
        StoreOptions::default(),
        in_schema("Jobs \"2\""),
        StoreOptions {
            schema: Some("pooled".to_owned()),
            poll_only: true,
            ..StoreOptions::default()
        },
    ] {
        let store = PostgresStore::new(database.pool(4), options).unwrap();
        let (one, other) = tokio::join!(store.migrate(), store.migrate());
        one.unwrap();
        other.unwrap();
        store.migrate().await.unwrap();
        store.check_schema().await.unwrap();
        spawn(&store, at(0), vec![new_job(1, "a")]).await;
        claim_one(&store, at(1), "a").await;
    }
}

#[tokio::test]
async fn two_schemas_of_a_database_do_not_share_jobs() {
    let database = TestDatabase::empty().await;
    for schema in ["one", "other"] {
        let store = PostgresStore::new(database.pool(2), in_schema(schema)).unwrap();
        store.migrate().await.unwrap();
        let spawned = spawn(&store, at(0), vec![new_job(1, "a")]).await;
        assert_eq!(spawned, [job_engine::store::Spawned::Created]);
    }
    let pool = database.pool(1);
    let in_public: Option<String> =
        sqlx::query_scalar("SELECT to_regclass('public.job_live')::text")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(in_public, None);
}

/// A migration such as an application has, older than ours.
fn migration_of_application() -> Migration {
    let sql = "CREATE TABLE orders (id bigint PRIMARY KEY)";
    Migration::new(7, "orders".into(), MigrationType::Simple, sql.into(), false)
}

fn application(ours: bool) -> Migrator {
    let mut migrations = vec![migration_of_application()];
    if ours {
        migrations.extend(migrator().iter().cloned());
    }
    Migrator {
        migrations: migrations.into(),
        ..Migrator::DEFAULT
    }
}

async fn ledger_of_application(pool: &PgPool) -> i64 {
    let count = "SELECT count(*) FROM _sqlx_migrations";
    pool.fetch_one(count).await.unwrap().get(0)
}

#[tokio::test]
async fn our_migrations_and_those_of_the_application_do_not_know_of_each_other() {
    let database = TestDatabase::empty().await;
    let store = PostgresStore::new(database.pool(2), StoreOptions::default()).unwrap();
    store.migrate().await.unwrap();
    application(false).run(store.pool()).await.unwrap();
    assert_eq!(ledger_of_application(store.pool()).await, 1);
    application(false).run(store.pool()).await.unwrap();
    // One of theirs that failed, and a row of ours from before that was changed since.
    let ours = migrator().iter().next().unwrap().version;
    let rows = format!(
        "INSERT INTO _sqlx_migrations VALUES
             (8, 'theirs', now(), false, '', 0), ({ours}, 'ours', now(), true, 'changed', 0)"
    );
    store.pool().execute(&*rows).await.unwrap();
    store.migrate().await.unwrap();
    store
        .pool()
        .execute("DROP TABLE job_schema, job_specs, job_live, job_checkpoints, job_runs")
        .await
        .unwrap();
    store.migrate().await.unwrap();
    assert_eq!(ledger_of_application(store.pool()).await, 3);
}

#[tokio::test]
async fn our_migrations_can_run_among_those_of_the_application_whoever_made_the_tables() {
    let database = TestDatabase::empty().await;
    let store = PostgresStore::new(database.pool(2), StoreOptions::default()).unwrap();
    application(true).run(store.pool()).await.unwrap();
    store.migrate().await.unwrap();
    store.check_schema().await.unwrap();
    spawn(&store, at(0), vec![new_job(1, "a")]).await;
    // A new ledger of the application, on tables that are there.
    store
        .pool()
        .execute("DROP TABLE _sqlx_migrations, orders")
        .await
        .unwrap();
    application(true).run(store.pool()).await.unwrap();
    application(true).run(store.pool()).await.unwrap();
    claim_one(&store, at(1), "a").await;
    let all = 1 + migrator().iter().count();
    assert_eq!(ledger_of_application(store.pool()).await as usize, all);
    let versions = "SELECT count(*) FROM job_schema";
    let versions: i64 = store.pool().fetch_one(versions).await.unwrap().get(0);
    assert_eq!(versions, i64::from(SCHEMA_VERSION));
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing_behind_and_can_run_again() {
    let database = TestDatabase::empty().await;
    for poll_only in [false, true] {
        let options = StoreOptions {
            poll_only,
            ..StoreOptions::default()
        };
        let store = PostgresStore::new(database.pool(2), options).unwrap();
        // In the way of an index.
        let pool = store.pool().clone();
        pool.execute("CREATE TABLE job_live_running (n int)")
            .await
            .unwrap();
        for _ in 0..2 {
            let error = store.migrate().await.unwrap_err();
            assert!(matches!(error, SchemaError::Migration { .. }), "{error}");
            assert!(error.to_string().contains("job_live_running"), "{error}");
        }
        let error = store.check_schema().await.unwrap_err();
        assert!(matches!(error, SchemaError::Missing { .. }), "{error}");
        pool.execute("DROP TABLE job_live_running").await.unwrap();
        store.migrate().await.unwrap();
        pool.execute("DROP TABLE job_schema, job_specs, job_live, job_checkpoints, job_runs")
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn tables_of_which_one_is_missing_are_neither_accepted_nor_made_up_for() {
    for table in [
        "job_schema",
        "job_specs",
        "job_live",
        "job_checkpoints",
        "job_runs",
    ] {
        let (_database, store) = TestDatabase::with_store().await;
        let drop = format!("DROP TABLE {table}");
        store.pool().execute(&*drop).await.unwrap();
        for result in [store.check_schema().await, store.migrate().await] {
            let error = result.unwrap_err();
            assert!(matches!(error, SchemaError::Incomplete { .. }), "{error}");
            assert!(
                error.to_string().contains(&format!("{table} is missing")),
                "{error}"
            );
        }
    }
}

/// A publication of all tables refuses updates of tables that have no primary key.
#[tokio::test]
async fn all_that_a_service_does_can_be_replicated() {
    let (_database, store) = TestDatabase::with_store().await;
    let publish = "CREATE PUBLICATION everything FOR ALL TABLES";
    store.pool().execute(publish).await.unwrap();
    spawn(&store, at(0), (1..4).map(|n| new_job(n, "a")).collect()).await;
    let [done, again, lost] = [
        claim_one(&store, at(1), "a").await,
        claim_one(&store, at(1), "a").await,
        claim_one(&store, at(1), "a").await,
    ];
    store.execute(None, &checkpoint(done, "1")).await.unwrap();
    heartbeat(&store, at(2), vec![done, again]).await;
    let released = Finish {
        run: again,
        outcome: Outcome::Released,
    };
    finish(&store, at(3), vec![completed(done), released]).await;
    let taken_back = reclaim(&store, at(100_000), "a").await;
    assert_eq!(taken_back.len(), 1, "{lost:?}");
    store
        .pool()
        .execute("UPDATE job_schema SET version = version")
        .await
        .unwrap();
    let keyless = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relname LIKE 'job%'
                   AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = pg_class.oid
                                   AND indisprimary)";
    assert!(store.pool().fetch_all(keyless).await.unwrap().is_empty());
}

#[tokio::test]
async fn newer_and_older_tables_are_told_apart() {
    let (_database, store) = TestDatabase::with_store().await;
    let set = |version: i32, compatible_since: i32| {
        let pool = store.pool().clone();
        async move {
            sqlx::query("UPDATE job_schema SET version = $1, compatible_since = $2")
                .bind(version)
                .bind(compatible_since)
                .execute(&pool)
                .await
                .unwrap();
        }
    };
    set(SCHEMA_VERSION + 7, SCHEMA_VERSION).await;
    store.check_schema().await.unwrap();

    set(SCHEMA_VERSION + 7, SCHEMA_VERSION + 1).await;
    let error = store.check_schema().await.unwrap_err();
    assert!(matches!(error, SchemaError::Newer { .. }), "{error}");
    for part in [SCHEMA_VERSION + 7, SCHEMA_VERSION] {
        assert!(error.to_string().contains(&part.to_string()), "{error}");
    }

    set(SCHEMA_VERSION - 1, 0).await;
    let error = store.check_schema().await.unwrap_err();
    assert!(matches!(error, SchemaError::Older { .. }), "{error}");
    store
        .pool()
        .execute("DELETE FROM job_schema")
        .await
        .unwrap();
    let error = store.check_schema().await.unwrap_err();
    assert!(matches!(error, SchemaError::Older { found: 0 }), "{error}");
}

#[tokio::test]
async fn a_name_that_cannot_be_a_schema_is_refused_at_once() {
    let pool = TestDatabase::empty().await.pool(1);
    for name in ["", "a\0b", &"x".repeat(64)] {
        let error = PostgresStore::new(pool.clone(), in_schema(name)).unwrap_err();
        assert!(error.to_string().contains("schema name"), "{error}");
    }
}
