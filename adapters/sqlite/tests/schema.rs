//! Making the tables, and checking that they fit.

use job_sqlite::{OpenOptions, SCHEMA_VERSION, SchemaError, SqliteStore, migrator};
use sqlx::Executor;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

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

/// A migrator as `sqlx::migrate!` makes one for an application.
fn of_application() -> Migrator {
    Migrator {
        migrations: vec![Migration::new(
            20_200_101_000_000,
            "of the application".into(),
            MigrationType::Simple,
            "CREATE TABLE accounts (id INTEGER PRIMARY KEY)".into(),
            false,
        )]
        .into(),
        ..Migrator::DEFAULT
    }
}

/// What the application's migrator has noted.
async fn noted(store: &SqliteStore) -> Vec<(i64, bool)> {
    let noted = sqlx::query_as("SELECT version, success FROM _sqlx_migrations ORDER BY version");
    noted.fetch_all(store.pool()).await.unwrap()
}

#[tokio::test]
async fn the_application_and_the_store_migrate_one_file_in_any_order() {
    for ours_first in [true, false] {
        let place = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(path_in(&place)).await.unwrap();
        if ours_first {
            store.migrate().await.unwrap();
        }
        of_application().run(store.pool()).await.unwrap();
        let noted_before = noted(&store).await;
        // Both start again.
        store.migrate().await.unwrap();
        of_application().run(store.pool()).await.unwrap();
        store.migrate().await.unwrap();
        assert_eq!(noted(&store).await, noted_before);
        run(&store, &spawn(1)).await;
    }
}

#[tokio::test]
async fn a_failed_migration_of_the_application_does_not_keep_the_store_from_its_tables() {
    let (store, _place) = on_file().await;
    for tables_exist in [true, false] {
        of_application().run(store.pool()).await.unwrap();
        let dirty = "UPDATE _sqlx_migrations SET success = false";
        store.pool().execute(dirty).await.unwrap();
        if !tables_exist {
            let drop_all = "DROP TABLE job_specs; DROP TABLE job_live; DROP TABLE job_checkpoints; DROP TABLE job_runs; \
                            DROP TABLE job_schema";
            store.pool().execute(drop_all).await.unwrap();
        }
        store.migrate().await.unwrap();
        store.check_schema().await.unwrap();
        let forget = "DROP TABLE accounts; DROP TABLE _sqlx_migrations";
        store.pool().execute(forget).await.unwrap();
    }
}

#[tokio::test]
async fn rows_of_ours_that_the_applications_table_has_from_before_do_not_matter() {
    let place = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(path_in(&place)).await.unwrap();
    migrator().run(store.pool()).await.unwrap();
    let changed = "UPDATE _sqlx_migrations SET checksum = x'00', success = false";
    store.pool().execute(changed).await.unwrap();
    store.migrate().await.unwrap();
    run(&store, &spawn(1)).await;
}

#[tokio::test]
async fn an_application_may_run_the_migrations_among_its_own_at_any_time() {
    for ours_first in [true, false] {
        let place = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(path_in(&place)).await.unwrap();
        if ours_first {
            store.migrate().await.unwrap();
            run(&store, &spawn(1)).await;
        }
        let ours = migrator().iter().cloned();
        let among = Migrator {
            migrations: of_application().iter().cloned().chain(ours).collect(),
            ..Migrator::DEFAULT
        };
        among.run(store.pool()).await.unwrap();
        among.run(store.pool()).await.unwrap();
        store.migrate().await.unwrap();
        store.check_schema().await.unwrap();
        assert_eq!(exists(&store, 1).await, ours_first);
        assert_eq!(installed(&store).await, [SCHEMA_VERSION]);
    }
}

async fn installed(store: &SqliteStore) -> Vec<i64> {
    let versions = sqlx::query_scalar("SELECT version FROM job_schema ORDER BY version");
    versions.fetch_all(store.pool()).await.unwrap()
}

#[tokio::test]
async fn tables_that_fit_are_neither_locked_nor_written() {
    let (first, place) = on_file().await;
    let hasty = OpenOptions {
        busy_timeout: std::time::Duration::ZERO,
        ..OpenOptions::default()
    };
    let store = SqliteStore::open_with(path_in(&place), &hasty)
        .await
        .unwrap();
    let writes = job_sqlite::begin_immediate(first.pool()).await.unwrap();
    store.migrate().await.unwrap();
    store.check_schema().await.unwrap();
    drop(writes);
    // What cannot write finds that they fit.
    let reads_only = SqliteConnectOptions::new()
        .filename(path_in(&place))
        .read_only(true);
    let store = SqliteStore::new(SqlitePoolOptions::new().connect_lazy_with(reads_only));
    store.migrate().await.unwrap();
}

#[tokio::test]
async fn tables_of_which_a_part_is_missing_are_told_with_its_name() {
    let (store, _place) = on_file().await;
    let parts = "SELECT type, name FROM sqlite_schema WHERE sql IS NOT NULL";
    let parts: Vec<(String, String)> = sqlx::query_as(parts).fetch_all(store.pool()).await.unwrap();
    assert!(parts.len() >= 7, "{parts:?}");
    for (kind, name) in parts {
        let (store, _place) = on_file().await;
        let drop_it = format!("DROP {kind} {name}");
        store.pool().execute(drop_it.as_str()).await.unwrap();
        for error in [
            store.check_schema().await.unwrap_err(),
            store.migrate().await.unwrap_err(),
        ] {
            let told = error.to_string();
            assert!(matches!(error, SchemaError::Incomplete { .. }), "{told}");
            assert!(told.contains(&format!("there is no {name}")), "{told}");
        }
    }
}

#[tokio::test]
async fn a_table_of_the_application_with_a_name_of_ours_is_told() {
    let place = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(path_in(&place)).await.unwrap();
    let theirs = "CREATE TABLE job_runs (id INTEGER PRIMARY KEY)";
    store.pool().execute(theirs).await.unwrap();
    let told = store.migrate().await.unwrap_err().to_string();
    assert!(
        told.contains("there is no job_schema beside job_runs"),
        "{told}"
    );
}

#[tokio::test]
async fn a_ledger_without_a_row_is_told() {
    let (store, _place) = on_file().await;
    let empty = "DELETE FROM job_schema";
    store.pool().execute(empty).await.unwrap();
    let told = store.migrate().await.unwrap_err().to_string();
    assert!(
        told.contains("there is no row in job_schema beside"),
        "{told}"
    );
}

#[tokio::test]
async fn only_the_migrations_of_sqlite_are_embedded() {
    for migration in migrator().iter() {
        assert!(migration.sql.contains("STRICT"), "{}", migration.sql);
        assert!(!migration.sql.contains("timestamptz"), "{}", migration.sql);
    }
    assert_eq!(migrator().iter().count() as i64, SCHEMA_VERSION);
}

/// How often the schema of the file was changed, by what is committed.
async fn schema_changes(store: &SqliteStore) -> i64 {
    let changes = sqlx::query_scalar("PRAGMA schema_version");
    changes.fetch_one(store.pool()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_stores_that_make_the_tables_at_once_exactly_one_does() {
    let (alone, _place) = on_file().await;
    let place = tempfile::tempdir().unwrap();
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
    let store = SqliteStore::open(path_in(&place)).await.unwrap();
    assert_eq!(schema_changes(&store).await, schema_changes(&alone).await);
    assert_eq!(installed(&store).await, [SCHEMA_VERSION]);
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
