//! How the statements are planned: nothing may depend on what the statistics of
//! a queue happen to say.

use job_engine::{Command, store::Heartbeat};
use job_postgres::QUERIES;
use sqlx::{Connection, Executor, PgConnection, Row};

use crate::support::{LEASE, TestDatabase, at, claim_one, new_job, spawn};

/// As on the connections of the worker.
const SETTINGS: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off; \
                        SET plan_cache_mode = force_generic_plan";

#[tokio::test]
async fn every_statement_is_valid_as_it_stands() {
    let (database, _store) = TestDatabase::with_store().await;
    let pool = database.pool(1);
    for (name, sql) in QUERIES {
        let prepared = pool.prepare(sql).await;
        prepared.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[tokio::test]
async fn every_statement_has_a_head_comment_and_every_file_is_used() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/queries");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let named: Vec<String> = QUERIES
        .iter()
        .map(|(name, _)| format!("{name}.sql"))
        .collect();
    assert_eq!(files, named);
    for (name, sql) in QUERIES {
        let (head, _) = sql
            .split_once("\n--\n")
            .unwrap_or_else(|| panic!("{name}: no head"));
        assert!(head.starts_with("-- "), "{name}");
        for part in ["-- Invariant: ", "-- Index: "] {
            assert!(sql.contains(part), "{name} does not say: {part}");
        }
    }
}

/// The generic plan of a statement, in the face of a backlog of 20,000 jobs.
async fn plan(connection: &mut PgConnection, name: &str) -> String {
    let (_, sql) = QUERIES.iter().find(|(n, _)| *n == name).unwrap();
    let parameters = (1..)
        .take_while(|n| sql.contains(&format!("${n}::")))
        .count();
    let nulls = vec!["NULL"; parameters].join(", ");
    connection
        .execute(&*format!("PREPARE {name} AS {sql}"))
        .await
        .unwrap();
    let explain = format!("EXPLAIN (COSTS OFF) EXECUTE {name} ({nulls})");
    let explain = explain.replace(" ()", "");
    let rows = connection.fetch_all(&*explain).await.unwrap();
    let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    lines.join("\n")
}

async fn connection_with_backlog(database: &TestDatabase) -> PgConnection {
    let mut connection = PgConnection::connect_with(&database.options())
        .await
        .unwrap();
    for statement in [
        "INSERT INTO job_live (id, job_type, due_at, state, worker, claim_seq, claimed_at,
             lease_expires_at)
         SELECT gen_random_uuid(), 'type' || n % 3, now() + n * interval '1 s',
             (n % 1000 = 0)::int, CASE WHEN n % 1000 = 0 THEN gen_random_uuid() END, 1, now(), now()
         FROM generate_series(1, 20000) AS n",
        "INSERT INTO job_specs (id, job_type, unique_type, config, spawn_token, spawned_at)
         SELECT id, job_type, false, '{}', 1, now() FROM job_live",
        "ANALYZE",
        SETTINGS,
    ] {
        connection.execute(statement).await.unwrap();
    }
    connection
}

#[tokio::test]
async fn no_statement_of_the_worker_reads_a_table_from_end_to_end() {
    let (database, _store) = TestDatabase::with_store().await;
    let mut connection = connection_with_backlog(&database).await;
    for (name, _) in QUERIES {
        if *name == "schema_version" {
            continue;
        }
        let plan = plan(&mut connection, name).await;
        assert!(!plan.contains("Seq Scan on job_"), "{name}:\n{plan}");
        // Merging reads a whole index. Only what has just been read is hashed,
        // and what runs.
        assert!(!plan.contains("Merge Join"), "{name}:\n{plan}");
        let hashed = plan.split("Hash Join").skip(1);
        for join in hashed {
            let inputs = join.lines().filter(|line| line.contains("Scan")).take(2);
            for input in inputs {
                let table = input.contains(" on job_") && !input.contains("job_live_running");
                assert!(!table, "{name}:\n{plan}");
            }
        }
    }
}

#[tokio::test]
async fn the_claim_reads_the_pending_index_and_recovery_the_running_one() {
    let (database, _store) = TestDatabase::with_store().await;
    let mut connection = connection_with_backlog(&database).await;
    for (name, index) in [
        ("claim", "job_live_pending"),
        ("next_due", "job_live_pending"),
        ("renew_claim", "job_live_running"),
        ("reclaim", "job_live_running"),
    ] {
        let plan = plan(&mut connection, name).await;
        let scan = format!("using {index} on job_live");
        assert!(plan.contains(&scan), "{name}:\n{plan}");
    }
    // In the order of the index, so without sorting the backlog.
    let claim = plan_again(&mut connection, "claim").await;
    let picked = claim.split("LockRows").nth(1).unwrap();
    let until_scan = picked.split("Index Scan").next().unwrap();
    assert!(!until_scan.contains("Sort"), "{claim}");
}

/// Few jobs run as far as the statistics know, so an index of those looks cheap.
#[tokio::test]
async fn writes_to_runs_find_their_rows_by_the_primary_key() {
    let (database, _store) = TestDatabase::with_store().await;
    let mut connection = connection_with_backlog(&database).await;
    for name in ["heartbeat", "running", "checkpoint", "finish"] {
        let plan = plan(&mut connection, name).await;
        assert!(!plan.contains("job_live_running"), "{name}:\n{plan}");
        assert!(plan.contains("using job_live_pkey"), "{name}:\n{plan}");
    }
    let reclaim = plan(&mut connection, "reclaim").await;
    let scans = reclaim.matches("job_live_running").count();
    assert_eq!(scans, 1, "{reclaim}");
}

async fn plan_again(connection: &mut PgConnection, name: &str) -> String {
    connection.execute("DEALLOCATE ALL").await.unwrap();
    plan(connection, name).await
}

#[tokio::test]
async fn a_heartbeat_touches_no_index() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a")]).await;
    let run = claim_one(&store, at(1), "a").await;
    let mut transaction = store.pool().begin().await.unwrap();
    let heartbeat = Command::Heartbeat(Heartbeat {
        runs: vec![run],
        lease: LEASE,
    });
    store
        .execute_on(&mut transaction, Some(at(2)), &heartbeat)
        .await
        .unwrap();
    let hot: i64 =
        sqlx::query_scalar("SELECT pg_stat_get_xact_tuples_hot_updated('job_live'::regclass)")
            .fetch_one(&mut *transaction)
            .await
            .unwrap();
    assert_eq!(hot, 1);
}
