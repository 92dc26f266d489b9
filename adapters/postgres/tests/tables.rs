//! Making the tables, and finding them made.

use job_engine::{Command, StoreError};
use job_postgres::{PostgresStore, SCHEMA_VERSION, SchemaError, StoreOptions, migrator};
use job_tokio::Store;
use sqlx::Executor;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use crate::support::{TestDatabase, at, claim_one, id, new_job, spawn};

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
        assert!(matches!(error, SchemaError::Missing), "{error}");
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

#[tokio::test]
async fn our_migrations_run_beside_those_of_the_application() {
    let database = TestDatabase::empty().await;
    let store = PostgresStore::new(database.pool(2), StoreOptions::default()).unwrap();
    let application = |ours: bool| {
        let mut migrations = vec![migration_of_application()];
        if ours {
            migrations.extend(migrator().iter().cloned());
        }
        Migrator {
            migrations: migrations.into(),
            ..Migrator::DEFAULT
        }
    };
    application(false).run(store.pool()).await.unwrap();
    store.migrate().await.unwrap();
    store.check_schema().await.unwrap();
    // The application may take ours in later.
    application(true).run(store.pool()).await.unwrap();
    store.migrate().await.unwrap();
    let all: i64 = sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations")
        .fetch_one(store.pool())
        .await
        .unwrap();
    assert_eq!(all as usize, 1 + migrator().iter().count());
}

#[tokio::test]
async fn a_failed_migration_keeps_no_lock() {
    let (_database, store) = TestDatabase::with_store().await;
    store
        .pool()
        .execute("UPDATE _sqlx_migrations SET checksum = ''")
        .await
        .unwrap();
    store.migrate().await.unwrap_err();
    let error = store.migrate().await.unwrap_err();
    assert!(error.to_string().contains("modified"), "{error}");
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
