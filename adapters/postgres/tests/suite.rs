//! It passes the suite that every store passes: as it is, in a schema, and through a
//! transaction pooler.

use job_postgres::{PostgresStore, StoreOptions};

use crate::support::TestDatabase;

async fn open_with(options: StoreOptions) -> (PostgresStore, TestDatabase) {
    let (database, store) = TestDatabase::with_options(options).await;
    (store, database)
}

mod plain {
    use super::*;

    async fn open() -> (PostgresStore, TestDatabase) {
        open_with(StoreOptions::default()).await
    }

    job_tokio::conformance_tests!(open);
}

mod in_a_schema {
    use super::*;

    async fn open() -> (PostgresStore, TestDatabase) {
        open_with(StoreOptions {
            schema: Some("odd \"name".to_owned()),
            ..StoreOptions::default()
        })
        .await
    }

    job_tokio::conformance_tests!(open);
}

mod behind_a_pooler {
    use super::*;

    async fn open() -> (PostgresStore, TestDatabase) {
        let (database, store) = TestDatabase::behind_a_pooler().await;
        (store, database)
    }

    job_tokio::conformance_tests!(open);
}
