//! Without a file, it passes the suite.

use job_sqlite::SqliteStore;

async fn open() -> (SqliteStore, ()) {
    let store = SqliteStore::open(":memory:").await.unwrap();
    store.migrate().await.unwrap();
    (store, ())
}

job_tokio::conformance_tests!(open);
