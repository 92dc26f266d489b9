//! The statements, for themselves: above all what they cost, which must not depend
//! on how much there is, or on what was counted and when.

mod databases;
mod expected;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use job_sqlite::QUERIES;
use sqlx::{Connection, Executor, Row, SqliteConnection};

use self::databases::{FEW, Statistics, empty, load};
use self::expected::{Case, EXPECTED, Value};
use crate::fixtures::on_file;

/// Jobs of the large file.
const MANY_JOBS: u64 = 1_000_000;
/// How many times as much a statement may cost among many jobs as among few.
const FACTOR_MAX: u64 = 2;
/// How plans name the tables that grow.
const TABLES: [&str; 8] = [
    "job_live",
    "live",
    "job_specs",
    "specs",
    "job_checkpoints",
    "kept",
    "job_runs",
    "runs",
];

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

#[test]
fn every_statement_has_its_expected_plan() {
    // One reads all that tests of applications have spawned, whatever it costs.
    let statements = QUERIES.iter().map(|(name, _)| *name);
    let statements: Vec<&str> = statements
        .filter(|name| *name != "configs_of_type")
        .collect();
    let expected: Vec<&str> = EXPECTED.iter().map(|expected| expected.name).collect();
    assert_eq!(expected, statements);
}

#[tokio::test]
async fn no_statement_costs_more_among_a_million_jobs() {
    let (mut connection, _place) = empty().await;
    let of_nothing = Statistics::count(&mut connection).await;
    load(&mut connection, 1..=20).await;
    let of_a_few = Statistics::count(&mut connection).await;
    load(&mut connection, 21..=FEW).await;
    Statistics::none().install(&mut connection).await;
    let among_few = steps_of_all(&mut connection).await;

    load(&mut connection, FEW + 1..=MANY_JOBS).await;
    let of_all = Statistics::count(&mut connection).await;
    let mut faults = Vec::new();
    for (what, statistics) in [
        ("nothing was counted", Statistics::none()),
        ("counted when empty", of_nothing),
        ("counted when there were 20", of_a_few),
        ("counted", of_all),
    ] {
        statistics.install(&mut connection).await;
        faults.extend(plan_faults(&mut connection, what).await);
        let among_many = steps_of_all(&mut connection).await;
        for ((case, few), (_, many)) in among_few.iter().zip(among_many) {
            if many > FACTOR_MAX * few {
                faults.push(format!("{case}, {what}: {many} steps instead of {few}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What every statement costs, in each case.
async fn steps_of_all(connection: &mut SqliteConnection) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    for expected in EXPECTED {
        for case in (expected.cases)() {
            let name = format!("{} ({})", expected.name, case.what);
            let steps = steps(connection, sql(expected.name), &case).await;
            all.push((name, steps));
        }
    }
    all
}

/// Steps of SQLite's virtual machine to carry out a statement, which is undone. A
/// row that is read takes several; to find one in a tree takes one, whatever its
/// depth.
async fn steps(connection: &mut SqliteConnection, sql: &str, case: &Case) -> u64 {
    let mut transaction = connection.begin().await.unwrap();
    let changed_before = changed(&mut transaction).await;
    let steps = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&steps);
    let mut handle = transaction.lock_handle().await.unwrap();
    handle.set_progress_handler(1, move || {
        counter.fetch_add(1, Ordering::Relaxed);
        true
    });
    drop(handle);
    let mut query = sqlx::query(sql);
    for parameter in &case.parameters {
        query = match parameter {
            Value::Number(number) => query.bind(number),
            Value::Text(text) => query.bind(text),
            Value::Id(id) => query.bind(id),
        };
    }
    let rows = query.fetch_all(&mut *transaction).await.unwrap();
    transaction
        .lock_handle()
        .await
        .unwrap()
        .remove_progress_handler();
    let changed = changed(&mut transaction).await - changed_before;
    assert_eq!(changed.max(rows.len()), case.concerns, "{sql}");
    transaction.rollback().await.unwrap();
    steps.load(Ordering::Relaxed)
}

/// Rows that the connection has changed so far.
async fn changed(connection: &mut SqliteConnection) -> usize {
    let changed = sqlx::query_scalar("SELECT total_changes()").fetch_one(connection);
    let changed: i64 = changed.await.unwrap();
    usize::try_from(changed).unwrap()
}

async fn plan_faults(connection: &mut SqliteConnection, what: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for expected in EXPECTED {
        let explain = format!("EXPLAIN QUERY PLAN {}", sql(expected.name));
        let rows = sqlx::query(&explain)
            .fetch_all(&mut *connection)
            .await
            .unwrap();
        let details = rows.iter().map(|row| row.get::<String, _>("detail"));
        let is_ours = |detail: &String| {
            detail
                .split(' ')
                .nth(1)
                .is_some_and(|table| TABLES.contains(&table))
        };
        let mut plan: Vec<String> = details.filter(is_ours).collect();
        plan.sort_unstable();
        if plan != expected.plan {
            faults.push(format!("{}, {what}: {plan:#?}", expected.name));
        }
    }
    faults
}

fn sql(name: &str) -> &'static str {
    let (_, sql) = QUERIES.iter().find(|(of, _)| *of == name).unwrap();
    sql
}
