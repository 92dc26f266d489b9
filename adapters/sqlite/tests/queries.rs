//! The statements, for themselves.

use job_sqlite::QUERIES;
use sqlx::{Executor, Row};

#[tokio::test]
async fn every_statement_prepares() {
    let (store, _place) = crate::file::open().await;
    for (name, sql) in QUERIES {
        let prepared = store.pool().prepare(sql).await;
        assert!(prepared.is_ok(), "{name}: {:?}", prepared.err());
    }
}

#[tokio::test]
async fn every_statement_says_what_it_is_for() {
    for (name, sql) in QUERIES {
        for part in ["-- Invariant:", "-- Index:"] {
            assert!(
                sql.starts_with("-- ") && sql.contains(part),
                "{name}: {part}"
            );
        }
    }
}

#[tokio::test]
async fn statements_find_their_rows_by_index() {
    let (store, _place) = crate::file::open().await;
    let expected = [
        ("claim", "job_live_pending"),
        ("next_due", "job_live_pending"),
        ("renew_claim", "job_live_running"),
        ("lapsed", "job_live_running"),
    ];
    for (name, sql) in QUERIES {
        let plan = format!("EXPLAIN QUERY PLAN {sql}");
        let rows = sqlx::query(&plan).fetch_all(store.pool()).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        let plan = plan.join("; ");
        if let Some((_, index)) = expected.iter().find(|(of, _)| of == name) {
            assert!(plan.contains(index), "{name}: {plan}");
        }
        let tables = ["job_live", "live", "job_specs", "specs", "job_runs", "runs"];
        for table in tables {
            let scan = format!("SCAN {table};");
            let whole = format!("{plan};");
            assert!(
                !whole.contains(&scan),
                "{name} reads all of {table}: {plan}"
            );
        }
    }
}
