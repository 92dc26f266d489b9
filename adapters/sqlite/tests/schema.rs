//! Making the tables, and checking that they fit.

use job_sqlite::{SCHEMA_VERSION, SchemaError, SqliteStore, migrator};
use sqlx::Executor;
use sqlx::migrate::MigrateError;

use crate::fixtures::{exists, on_file, path_in, run, spawn};

async fn set_versions(store: &SqliteStore, version: i64, compatible_since: i64) {
    let update = sqlx::query("UPDATE job_schema SET version = ?1, compatible_since = ?2")
        .bind(version)
        .bind(compatible_since);
    update.execute(store.pool()).await.unwrap();
}

#[tokio::test]
async fn missing_tables_are_told_with_what_to_do() {
    let place = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(path_in(&place)).await.unwrap();
    let error = store.check_schema().await.unwrap_err();
    assert!(matches!(error, SchemaError::Missing), "{error:?}");
    assert!(error.to_string().contains("exec_migrations"), "{error}");
}

#[tokio::test]
async fn a_migration_makes_the_tables_once() {
    let (store, _place) = on_file().await;
    store.check_schema().await.unwrap();
    run(&store, &spawn(1)).await;
    store.migrate().await.unwrap();
    store.check_schema().await.unwrap();
    assert!(exists(&store, 1).await);
}

#[tokio::test]
async fn older_tables_are_told_with_what_to_do() {
    let (store, _place) = on_file().await;
    set_versions(&store, SCHEMA_VERSION - 1, 0).await;
    let error = store.check_schema().await.unwrap_err();
    assert!(
        matches!(error, SchemaError::Older { found: 0 }),
        "{error:?}"
    );
    assert!(error.to_string().contains("run the migrations"), "{error}");
}

#[tokio::test]
async fn newer_tables_are_fine_while_they_say_so() {
    let (store, _place) = on_file().await;
    set_versions(&store, SCHEMA_VERSION + 8, SCHEMA_VERSION).await;
    store.check_schema().await.unwrap();
    set_versions(&store, SCHEMA_VERSION + 8, SCHEMA_VERSION + 6).await;
    let error = store.check_schema().await.unwrap_err();
    let expected = matches!(
        error,
        SchemaError::Newer {
            found: 9,
            compatible_since: 7
        }
    );
    assert!(expected, "{error:?}");
    assert!(error.to_string().contains("upgrade the program"), "{error}");
}

#[tokio::test]
async fn migrations_of_the_application_are_left_alone() {
    let place = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(path_in(&place)).await.unwrap();
    let (writer, _) = (store.pool(), ());
    writer
        .execute(
            "CREATE TABLE _sqlx_migrations (
                version BIGINT PRIMARY KEY, description TEXT NOT NULL,
                installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
                success BOOLEAN NOT NULL, checksum BLOB NOT NULL,
                execution_time BIGINT NOT NULL
            );
            INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
            VALUES (20200101000000, 'of the application', true, x'00', 1)",
        )
        .await
        .unwrap();
    store.migrate().await.unwrap();
    store.check_schema().await.unwrap();
}

#[tokio::test]
async fn a_migration_that_has_been_changed_since_is_an_error() {
    let (store, _place) = on_file().await;
    let change = "UPDATE _sqlx_migrations SET checksum = x'00'";
    store.pool().execute(change).await.unwrap();
    let error = store.migrate().await.unwrap_err();
    assert!(
        matches!(error, MigrateError::VersionMismatch(_)),
        "{error:?}"
    );
}

#[tokio::test]
async fn only_the_migrations_of_sqlite_are_embedded() {
    for migration in migrator().iter() {
        assert!(migration.sql.contains("STRICT"), "{}", migration.sql);
        assert!(!migration.sql.contains("timestamptz"), "{}", migration.sql);
    }
    assert_eq!(migrator().iter().count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_make_the_tables_at_once_all_succeed() {
    let place = tempfile::tempdir().unwrap();
    // Only the tables are made at once: that the file is in WAL mode cannot be
    // waited for.
    SqliteStore::open(path_in(&place)).await.unwrap();
    let tasks: tokio::task::JoinSet<_> = (0..8)
        .map(|_| {
            let path = path_in(&place);
            async move {
                let store = SqliteStore::open(path).await.unwrap();
                store.migrate().await.unwrap();
                store.check_schema().await.unwrap();
            }
        })
        .collect();
    tasks.join_all().await;
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let letter = "this is a letter, not a database".repeat(99);
    std::fs::write(path_in(&place), letter).unwrap();
    let error = SqliteStore::open(path_in(&place)).await.unwrap_err();
    assert!(error.to_string().contains("not a database"), "{error}");
}

#[tokio::test]
async fn a_url_names_a_database_as_a_path_does() {
    let place = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", path_in(&place).display());
    for place in [&url, "sqlite::memory:", "sqlite://:memory:"] {
        let store = SqliteStore::open(place).await.unwrap();
        store.migrate().await.unwrap();
        run(&store, &spawn(1)).await;
        assert!(exists(&store, 1).await, "{place}");
    }
    let by_path = SqliteStore::open(path_in(&place)).await.unwrap();
    assert!(exists(&by_path, 1).await);
}

#[tokio::test]
async fn a_file_is_written_durably() {
    let (store, _place) = on_file().await;
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(store.pool())
        .await
        .unwrap();
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous")
        .fetch_one(store.pool())
        .await
        .unwrap();
    const FULL: i64 = 2;
    assert_eq!((mode.as_str(), synchronous), ("wal", FULL));
}
