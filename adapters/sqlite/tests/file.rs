//! On a file, it passes the suite.

use job_sqlite::SqliteStore;
use tempfile::TempDir;

pub(crate) async fn open() -> (SqliteStore, TempDir) {
    let place = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(place.path().join("jobs.db"))
        .await
        .unwrap();
    store.migrate().await.unwrap();
    (store, place)
}

job_tokio::conformance_tests!(open);
