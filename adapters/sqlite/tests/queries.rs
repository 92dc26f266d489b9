//! The statements, for themselves.

use job_sqlite::QUERIES;
use sqlx::{Executor, Row};

use crate::fixtures::on_file;

#[tokio::test]
async fn every_statement_prepares() {
    let (store, _place) = on_file().await;
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
async fn every_file_is_a_statement_of_the_store() {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/queries")).unwrap();
    let mut files: Vec<_> = files
        .map(|file| file.unwrap().path().file_stem().unwrap().to_owned())
        .collect();
    files.sort();
    let mut named: Vec<_> = QUERIES.iter().map(|(name, _)| *name).collect();
    named.sort_unstable();
    assert_eq!(files, named);
}

#[tokio::test]
async fn every_statement_finds_its_rows_by_an_index() {
    let (store, _place) = on_file().await;
    let partial_indexes = [
        (
            "claim",
            "SEARCH job_live USING COVERING INDEX job_live_pending (job_type=? AND due_at<?)",
        ),
        (
            "next_due",
            "SEARCH job_live USING COVERING INDEX job_live_pending (job_type=? AND due_at>?)",
        ),
        (
            "renew_claim",
            "SEARCH job_live USING COVERING INDEX job_live_running (worker=? AND claim_seq=?)",
        ),
        ("lapsed", "SCAN job_live USING INDEX job_live_running"),
    ];
    let tables = ["job_live", "live", "job_specs", "specs", "job_runs", "runs"];
    for (name, sql) in QUERIES {
        let explain = format!("EXPLAIN QUERY PLAN {sql}");
        let rows = sqlx::query(&explain).fetch_all(store.pool()).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        if let Some((_, step)) = partial_indexes.iter().find(|(of, _)| of == name) {
            assert!(plan.iter().any(|line| line == step), "{name}: {plan:#?}");
        }
        for table in tables {
            // Without an index after it, that is all of the table.
            let scan = format!("SCAN {table}");
            assert!(!plan.contains(&scan), "{name}: {plan:#?}");
        }
    }
}

/// The statistics that `ANALYZE` makes must not tempt the planner away.
#[tokio::test]
async fn a_claim_reads_its_index_also_after_an_analyze_of_empty_tables() {
    let (store, _place) = on_file().await;
    store.pool().execute("ANALYZE").await.unwrap();
    for (name, index) in [
        ("claim", "job_live_pending"),
        ("lapsed", "job_live_running"),
    ] {
        let (_, sql) = QUERIES.iter().find(|(of, _)| *of == name).unwrap();
        let explain = format!("EXPLAIN QUERY PLAN {sql}");
        let rows = sqlx::query(&explain).fetch_all(store.pool()).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        assert!(plan.iter().any(|line| line.contains(index)), "{plan:#?}");
    }
}
