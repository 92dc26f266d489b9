//! It passes the suite: on the search path, in a schema, and through a
//! transaction pooler's restrictions.

use job_postgres::{PostgresStore, StoreOptions};

use crate::database::TestDatabase;

pub(crate) async fn open_with(options: StoreOptions) -> (PostgresStore, TestDatabase) {
    let database = TestDatabase::create().await;
    let store = PostgresStore::new(database.pool(), options).unwrap();
    store.migrate().await.unwrap();
    (store, database)
}

pub(crate) async fn open() -> (PostgresStore, TestDatabase) {
    open_with(StoreOptions::default()).await
}

async fn open_in_schema() -> (PostgresStore, TestDatabase) {
    open_with(StoreOptions {
        schema: Some("odd \"name".to_owned()),
        ..StoreOptions::default()
    })
    .await
}

async fn open_poll_only() -> (PostgresStore, TestDatabase) {
    open_with(StoreOptions {
        poll_only: true,
        ..StoreOptions::default()
    })
    .await
}

mod plain {
    use super::*;
    job_tokio::conformance_tests!(open);
}

mod in_schema {
    use super::*;
    job_tokio::conformance_tests!(open_in_schema);
}

mod poll_only {
    use super::*;
    job_tokio::conformance_tests!(open_poll_only);
}
