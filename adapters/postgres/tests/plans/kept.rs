//! Connections of the application, which have none of our settings and live long:
//! no plan that they keep may be one for an idle queue.

use job_engine::store::{Finish, Heartbeat, Outcome};
use job_engine::{Command, Fence, Run};
use job_postgres::{PostgresStore, StoreOptions};
use sqlx::Executor;

use super::USES_UNTIL_KEPT;
use super::explain::{TABLES, blocks};
use crate::support::{
    LEASE, TestDatabase, at, checkpoint, claim_one, completed, id, new_job, spawn,
};

/// Jobs of a burst.
const JOBS: u32 = 20_000;
/// Pages that a command may touch. Each table has hundreds then.
const BLOCKS_MAX: u64 = 60;

#[tokio::test]
async fn a_connection_of_the_application_keeps_no_plan_of_an_idle_queue() {
    let (database, _store) = TestDatabase::with_store().await;
    let store = PostgresStore::new(database.pool(1), StoreOptions::default()).unwrap();
    for table in TABLES {
        let off = format!("ALTER TABLE {table} SET (autovacuum_enabled = off)");
        store.pool().execute(&*off).await.unwrap();
    }
    spawn(&store, at(0), vec![new_job(1, "a"), new_job(2, "a")]).await;
    let run = claim_one(&store, at(1), "a").await;
    store.pool().execute("VACUUM ANALYZE").await.unwrap();
    for _ in 0..USES_UNTIL_KEPT {
        for (_, command) in commands(run) {
            cost(&store, &command).await;
        }
    }

    for statement in [
        "INSERT INTO job_specs (id, job_type, unique_type, config, spawn_token, spawned_at)
         SELECT lpad(to_hex(n), 32, '0')::uuid, 'a', false, '1', 1, now()
         FROM generate_series(1000, $1) AS n",
        "INSERT INTO job_live (id, job_type, due_at)
         SELECT lpad(to_hex(n), 32, '0')::uuid, 'a', now()
         FROM generate_series(1000, $1) AS n",
        "INSERT INTO job_runs (job_id, fence, attempt, worker, claim_seq, claimed_at, ended_at,
             run_end)
         SELECT lpad(to_hex(n), 32, '0')::uuid, 1, 1, gen_random_uuid(), 1, now(), now(), 1
         FROM generate_series(1000, $1) AS n",
    ] {
        let inserted = sqlx::query(statement)
            .bind(JOBS as i32)
            .execute(store.pool());
        inserted.await.unwrap();
    }
    for (what, command) in commands(run) {
        let blocks = cost(&store, &command).await;
        assert!(blocks <= BLOCKS_MAX, "{what}: {blocks} pages");
    }
}

/// What applications do in transactions of their own, or by themselves.
fn commands(run: Run) -> Vec<(&'static str, Command)> {
    let stale = Run {
        fence: Fence(run.fence.0 + 1),
        ..run
    };
    let released = Finish {
        run: stale,
        outcome: Outcome::Released,
    };
    let heartbeat = |run| {
        Command::Heartbeat(Heartbeat {
            runs: vec![run],
            lease: LEASE,
        })
    };
    vec![
        ("a spawn", Command::Spawn(vec![new_job(3, "a")])),
        (
            "a spawn of what exists",
            Command::Spawn(vec![new_job(2, "a")]),
        ),
        ("a checkpoint", checkpoint(run, "1")),
        ("a heartbeat", heartbeat(run)),
        ("a heartbeat of a stale run", heartbeat(stale)),
        ("a read", Command::Find(id(1))),
        ("an end", Command::Finish(vec![completed(run)])),
        ("an end of a stale run", Command::Finish(vec![released])),
    ]
}

/// Pages that a command touches, which is undone.
async fn cost(store: &PostgresStore, command: &Command) -> u64 {
    let mut transaction = store.pool().begin().await.unwrap();
    let before = blocks(&mut transaction).await.unwrap();
    let reply = store.execute_on(&mut transaction, Some(at(2)), command);
    reply.await.unwrap();
    let after = blocks(&mut transaction).await.unwrap();
    transaction.rollback().await.unwrap();
    after - before
}
