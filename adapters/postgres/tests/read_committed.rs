//! What READ COMMITTED does with rows that change while a statement waits for
//! them, or between its snapshot and its locks; and what the parts of one
//! statement see of each other.

use std::future::Future;
use std::time::Duration;

use job_engine::lifecycle::{RunEnd, State};
use job_engine::store::{Finish, NewJob, Outcome, Spawned, Written};
use job_engine::{ClaimId, Command, ErrorText, Payload, Reply, Run};
use job_postgres::{PostgresStore, QUERIES};
use job_tokio::Store;
use sqlx::{Acquire, Executor, Postgres, Row};
use uuid::Uuid;

use crate::support::{
    LEASE, TestDatabase, at, checkpoint, claim, claim_command, claim_one, completed, find, finish,
    heartbeat, id, new_job, reclaim, spawn, wait_for_blocked, within,
};

/// A unique conflict between two open transactions.
async fn check_spawn_race(unique: bool, token: i64, commit: bool, expected: Spawned) {
    let (_database, store) = TestDatabase::with_store().await;
    let mut first = new_job(1, "a");
    let mut second = new_job(if unique { 2 } else { 1 }, "a");
    (first.unique_type, second.unique_type) = (unique, unique);
    second.token = token;

    let mut transaction = store.pool().begin().await.unwrap();
    let reply = store
        .execute_on(&mut transaction, Some(at(0)), &Command::Spawn(vec![first]))
        .await;
    assert_eq!(reply, Ok(Reply::Spawned(vec![Spawned::Created])));
    let other = {
        let store = store.clone();
        tokio::spawn(async move {
            let mut transaction = store.pool().begin().await.unwrap();
            let command = Command::Spawn(vec![second]);
            let reply = store
                .execute_on(&mut transaction, Some(at(0)), &command)
                .await;
            transaction.commit().await.unwrap();
            reply
        })
    };
    wait_for_blocked(store.pool(), 1).await;
    if commit {
        transaction.commit().await.unwrap();
    } else {
        transaction.rollback().await.unwrap();
    }
    let reply = within("the other spawn", other).await.unwrap();
    assert_eq!(reply, Ok(Reply::Spawned(vec![expected])));
}

#[tokio::test]
async fn a_spawn_waits_for_an_open_one_with_the_same_id() {
    check_spawn_race(false, 2, true, Spawned::DuplicateId).await;
    check_spawn_race(false, 2, false, Spawned::Created).await;
}

/// The other spawn is younger than the snapshot of the statement that met it, so
/// another has to read its token.
#[tokio::test]
async fn a_repeat_that_waited_for_its_original_is_told_that_the_job_was_created() {
    check_spawn_race(false, 1, true, Spawned::Created).await;
}

#[tokio::test]
async fn a_spawn_waits_for_an_open_one_of_the_same_unique_type() {
    check_spawn_race(true, 2, true, Spawned::DuplicateUniqueType(id(1))).await;
    check_spawn_race(true, 2, false, Spawned::Created).await;
}

#[tokio::test]
async fn an_end_that_waited_for_a_checkpoint_keeps_it() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a")]).await;
    let run = claim_one(&store, at(1), "a").await;
    let mut transaction = store.pool().begin().await.unwrap();
    let kept = checkpoint(run, "{\"page\": 7}");
    let reply = store.execute_on(&mut transaction, None, &kept).await;
    assert_eq!(reply, Ok(Reply::Checkpointed(Written::Applied)));

    let retried = Finish {
        run,
        outcome: Outcome::Retried {
            delay: Duration::from_secs(1),
            attempt: 2,
            error: ErrorText::new("no"),
        },
    };
    let other = {
        let store = store.clone();
        tokio::spawn(async move { finish(&store, at(2), vec![retried]).await })
    };
    wait_for_blocked(store.pool(), 1).await;
    transaction.commit().await.unwrap();
    let written = within("the end", other).await.unwrap();
    assert_eq!(written, [Written::Applied]);
    let live = find(&store, id(1)).await.unwrap().live.unwrap();
    assert_eq!(live.state, Some(Payload::from_json("{\"page\": 7}")));
    assert_eq!((live.attempt, live.due_at), (2, at(3)));
}

#[tokio::test]
async fn an_end_that_waited_for_another_end_is_stale() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a")]).await;
    let run = claim_one(&store, at(1), "a").await;
    let mut transaction = store.pool().begin().await.unwrap();
    let finished = Command::Finish(vec![completed(run)]);
    store
        .execute_on(&mut transaction, Some(at(2)), &finished)
        .await
        .unwrap();

    let released = Finish {
        run,
        outcome: Outcome::Released,
    };
    let other = {
        let store = store.clone();
        tokio::spawn(async move { finish(&store, at(2), vec![released]).await })
    };
    wait_for_blocked(store.pool(), 1).await;
    transaction.commit().await.unwrap();
    assert_eq!(within("the end", other).await.unwrap(), [Written::Stale]);
    assert_eq!(find(&store, id(1)).await.unwrap().runs.len(), 1);
}

/// The same end twice: the second statement does not see the row that the first
/// has added to the history since, so another reads it.
#[tokio::test]
async fn a_repeat_that_waited_for_the_same_end_is_applied() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a")]).await;
    let run = claim_one(&store, at(1), "a").await;
    let mut transaction = store.pool().begin().await.unwrap();
    let command = Command::Finish(vec![completed(run)]);
    let first = store.execute_on(&mut transaction, Some(at(2)), &command);
    let applied = Reply::Finished(vec![Written::Applied]);
    assert_eq!(first.await, Ok(applied));
    let second = {
        let store = store.clone();
        tokio::spawn(async move { finish(&store, at(3), vec![completed(run)]).await })
    };
    wait_for_blocked(store.pool(), 1).await;
    transaction.commit().await.unwrap();
    let written = within("the second end", second).await.unwrap();
    assert_eq!(written, [Written::Applied]);
    let job = find(&store, id(1)).await.unwrap();
    let ends: Vec<_> = job.runs.iter().map(|run| (run.end, run.ended_at)).collect();
    assert_eq!(ends, [(RunEnd::Completed, at(2))]);
}

#[tokio::test]
async fn a_checkpoint_that_waited_for_the_end_of_its_run_is_stale() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a")]).await;
    let run = claim_one(&store, at(1), "a").await;
    let mut transaction = store.pool().begin().await.unwrap();
    let released = Command::Finish(vec![Finish {
        run,
        outcome: Outcome::Released,
    }]);
    let first = store.execute_on(&mut transaction, Some(at(2)), &released);
    first.await.unwrap();
    let late = {
        let store = store.clone();
        tokio::spawn(async move { store.execute(None, &checkpoint(run, "7")).await })
    };
    wait_for_blocked(store.pool(), 1).await;
    transaction.commit().await.unwrap();
    let reply = within("the checkpoint", late).await.unwrap();
    assert_eq!(reply, Ok(Reply::Checkpointed(Written::Stale)));
    let live = find(&store, id(1)).await.unwrap().live.unwrap();
    assert_eq!((live.state, live.lease), (None, None));
}

/// Ends a run behind the back of those who run: as recovery does it, but in a
/// transaction that can be left open.
async fn take_back(executor: impl Executor<'_, Database = Postgres>, run: Run) {
    let take_back = "WITH lost AS (
             UPDATE job_live AS live
             SET state = 0, attempt = live.attempt + 1, crashes = live.crashes + 1, worker = NULL,
                 claim_seq = NULL, claimed_at = NULL, lease_expires_at = NULL
             FROM (SELECT * FROM job_live WHERE id = $1 AND fence = $2 FOR UPDATE) AS old
             WHERE live.id = old.id
             RETURNING old.*
         )
         INSERT INTO job_runs (
             job_id, fence, worker, claim_seq, claimed_at, ended_at, attempt, run_end, next_due_at
         )
         SELECT id, fence, worker, claim_seq, claimed_at, claimed_at, attempt, 6, due_at
         FROM lost";
    let taken = sqlx::query(take_back).bind(run.job.0).bind(run.fence.0);
    let taken = taken.execute(executor).await.unwrap();
    assert_eq!(taken.rows_affected(), 1);
}

#[tokio::test]
async fn a_repeated_claim_that_waited_leaves_out_what_was_taken_back() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a"), new_job(2, "a")]).await;
    let mut command = claim_command(1, 1, "a", 2);
    let runs: Vec<Run> = claim(&store, at(1), command.clone())
        .await
        .jobs
        .iter()
        .map(|job| job.run)
        .collect();
    let mut transaction = store.pool().begin().await.unwrap();
    take_back(&mut *transaction, runs[0]).await;
    command.repeat = true;
    let repeat = {
        let store = store.clone();
        tokio::spawn(async move { claim(&store, at(2), command).await })
    };
    wait_for_blocked(store.pool(), 1).await;
    transaction.commit().await.unwrap();
    let claimed = within("the repeat", repeat).await.unwrap();
    let renewed: Vec<Run> = claimed.jobs.iter().map(|job| job.run).collect();
    assert_eq!(renewed, runs[1..]);
    let job = find(&store, id(1)).await.unwrap();
    assert_eq!(
        (job.state(), job.fold()),
        (State::Pending, Some(State::Pending))
    );
}

/// The key of the lock that is the gate.
const GATE: i64 = 4711;

/// A statement with values for its parameters, as SQL, that stops between its
/// snapshot and its first lock: where it unfolds its parameters.
fn gated(name: &str, values: &[&str]) -> String {
    let (_, sql) = QUERIES.iter().find(|(n, _)| *n == name).unwrap();
    let start = sql.find("FROM unnest(").expect("it unfolds its parameters");
    let (unnest, rest) = sql[start..].split_once(" AS ").unwrap();
    let (columns, rest) = rest.split_once(')').unwrap();
    let (alias, _) = columns.split_once(' ').unwrap();
    let unnest = unnest.trim_start_matches("FROM ");
    let mut gated = format!(
        "{}FROM (SELECT {alias}.* FROM (SELECT pg_advisory_xact_lock_shared({GATE})) AS gate, \
         {unnest} AS {columns}) OFFSET 0) AS {alias}{rest}",
        &sql[..start],
    );
    for (n, value) in values.iter().enumerate().rev() {
        gated = gated.replace(&format!("${}::", n + 1), &format!("({value})::"));
    }
    assert!(!gated.contains("$"), "a value for each parameter: {gated}");
    gated
}

/// Runs a gated statement, and `meanwhile` while it stands at the gate. Returns
/// the ids of the jobs that it returns.
async fn run_gated(
    store: &PostgresStore,
    statement: String,
    meanwhile: impl Future<Output = ()>,
) -> Vec<Uuid> {
    let mut gate = store.pool().begin().await.unwrap();
    let close = format!("SELECT pg_advisory_xact_lock({GATE})");
    gate.execute(&*close).await.unwrap();
    let stopped = {
        let pool = store.pool().clone();
        tokio::spawn(async move { pool.fetch_all(&*statement).await })
    };
    wait_for_blocked(store.pool(), 1).await;
    meanwhile.await;
    gate.commit().await.unwrap();
    let rows = within("the statement", stopped).await.unwrap().unwrap();
    let ids = rows.iter().map(|row| row.get::<Option<Uuid>, _>("id"));
    ids.flatten().collect()
}

const WORKER: &str = "'00000000-0000-0000-0000-000000000063'";
const TIME_MAX: &str = "'9999-12-31T23:59:59.999999Z'";

fn seconds(secs: u32) -> String {
    format!("'1970-01-01T00:00:00Z'::timestamptz + {secs} * interval '1 second'")
}

fn claim_of_two(now: u32) -> String {
    let now = seconds(now);
    let values = [
        "ARRAY['a']",
        "ARRAY[2]",
        WORKER,
        "1",
        "'1 hour'",
        &now,
        TIME_MAX,
    ];
    gated("claim", &values)
}

fn renewal(run: Run, now: u32) -> String {
    let job = format!("ARRAY['{}']", run.job.0);
    let fence = format!("ARRAY[{}]", run.fence.0);
    let now = seconds(now);
    let worker = format!("ARRAY['{}']", run.claim.worker.0);
    let seq = format!("ARRAY[{}]", run.claim.seq);
    let named = [&job, &fence, "'1 hour'", &now, TIME_MAX, &worker, &seq];
    gated("heartbeat", &named)
}

fn recovery(now: u32) -> String {
    let now = seconds(now);
    let values = [
        "ARRAY['a']",
        "ARRAY[NULL]",
        "ARRAY[NULL]",
        "ARRAY['1 hour']",
        "10",
        &now,
        "'too often'",
        "'the last'",
    ];
    gated("reclaim", &values)
}

#[tokio::test]
async fn a_claim_leaves_out_what_another_took_since_its_snapshot() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a"), new_job(2, "a")]).await;
    let taken = run_gated(&store, claim_of_two(1), async {
        let run = claim_one(&store, at(1), "a").await;
        assert_eq!(run.job, id(1));
    })
    .await;
    assert_eq!(taken, [id(2).0]);
    let fences = [1, 2].map(|n| find(&store, id(n)));
    for job in fences {
        assert_eq!(job.await.unwrap().live.unwrap().fence.0, 1);
    }
}

/// It was pending in the snapshot, and is pending again, but not due.
#[tokio::test]
async fn a_claim_leaves_out_what_was_put_off_since_its_snapshot() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a"), new_job(2, "a")]).await;
    let taken = run_gated(&store, claim_of_two(1), async {
        let run = claim_one(&store, at(1), "a").await;
        let retried = Outcome::Retried {
            delay: Duration::from_secs(60),
            attempt: 2,
            error: ErrorText::new("no"),
        };
        let put_off = vec![Finish {
            run,
            outcome: retried,
        }];
        finish(&store, at(1), put_off).await;
    })
    .await;
    assert_eq!(taken, [id(2).0]);
    let live = find(&store, id(1)).await.unwrap().live.unwrap();
    assert_eq!((live.fence.0, live.due_at), (1, at(61)));
}

/// Its snapshot has the job at fence 0; the claim goes on from what is there.
#[tokio::test]
async fn a_claim_of_a_job_that_ran_since_its_snapshot_gives_the_next_fence() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a")]).await;
    let taken = run_gated(&store, claim_of_two(1), async {
        let run = claim_one(&store, at(1), "a").await;
        store.execute(None, &checkpoint(run, "7")).await.unwrap();
        let released = Finish {
            run,
            outcome: Outcome::Released,
        };
        finish(&store, at(1), vec![released]).await;
    })
    .await;
    assert_eq!(taken, [id(1).0]);
    let job = find(&store, id(1)).await.unwrap();
    assert_eq!(job.live.as_ref().unwrap().fence.0, 2);
    assert_eq!(job.fold(), Some(State::Running));
    // What was kept since is not in the snapshot of the claim, but in that of the next
    // statement.
    let (_, checkpoints) = QUERIES.iter().find(|(n, _)| *n == "checkpoints").unwrap();
    let kept = sqlx::query(checkpoints).bind(taken).fetch_one(store.pool());
    assert_eq!(kept.await.unwrap().get::<String, _>("execution_state"), "7");
}

/// Its run has been taken back since the snapshot, and not even a key of its row has changed:
/// the lock that the other had on it is what it meets.
#[tokio::test]
async fn a_run_that_was_taken_back_keeps_nothing_whatever_it_saw() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), (1..=2).map(|n| new_job(n, "a")).collect()).await;
    let [held, kept] = [(); 2].map(|()| claim_one(&store, at(1), "a"));
    let runs = [held.await, kept.await];
    let mut snapshots = Vec::new();
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        for _ in ["hold", "checkpoint"] {
            let mut transaction = store.pool().begin().await.unwrap();
            let set = format!("SET TRANSACTION ISOLATION LEVEL {isolation}");
            transaction.execute(&*set).await.unwrap();
            transaction.execute("SELECT 1 FROM job_live").await.unwrap();
            snapshots.push(transaction);
        }
    }
    let gate = |run: Run| {
        let (_, sql) = QUERIES.iter().find(|(n, _)| *n == "checkpoint").unwrap();
        let from = "FROM /*schema*/job_live";
        assert!(sql.contains(from) && sql.contains("FOR KEY SHARE"), "{sql}");
        let gate = format!("FROM (SELECT pg_advisory_xact_lock_shared({GATE})) AS gate, job_live");
        let sql = sql.replace(from, &gate);
        let sql = sql.replace("FOR KEY SHARE", "FOR KEY SHARE OF job_live");
        let sql = sql.replace("    FOR UPDATE", "    FOR UPDATE OF job_live");
        let sql = sql.replace("RETURNING job_id", "RETURNING job_id AS id");
        let ClaimId { worker, seq } = run.claim;
        let values = [
            format!("'{}'", run.job.0),
            run.fence.0.to_string(),
            "'7'".to_owned(),
            format!("'{}'", worker.0),
            seq.to_string(),
        ];
        let values = values.iter().enumerate();
        values.fold(sql, |sql, (n, value)| {
            sql.replace(&format!("${}::", n + 1), &format!("{value}::"))
        })
    };
    let lapsed = at(1).saturating_add(LEASE);
    let late = run_gated(&store, gate(runs[1]), async {
        assert_eq!(reclaim(&store, lapsed, "a").await.len(), 2);
        assert_eq!(claim_one(&store, lapsed, "a").await.job, runs[0].job);
    });
    assert!(late.await.is_empty());
    for (mut transaction, n) in snapshots.into_iter().zip(0..) {
        for run in runs {
            let command = match n % 2 {
                0 => Command::Hold(run),
                _ => checkpoint(run, "7"),
            };
            let mut nested = transaction.begin().await.unwrap();
            let told = store.execute_on(&mut nested, None, &command).await;
            let error = told.expect_err("the run is over").to_string();
            assert!(error.contains("could not serialize"), "{error}");
        }
    }
    for run in runs {
        let live = find(&store, run.job).await.unwrap().live.unwrap();
        assert_eq!(live.state, None);
    }
}

#[tokio::test]
async fn a_heartbeat_does_not_renew_a_run_that_ended_since_its_snapshot() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a")]).await;
    let run = claim_one(&store, at(1), "a").await;
    let renewed = run_gated(&store, renewal(run, 5), async {
        let released = Finish {
            run,
            outcome: Outcome::Released,
        };
        finish(&store, at(2), vec![released]).await;
        // By another run, whose lease is its own.
        claim_one(&store, at(3), "a").await;
    })
    .await;
    assert!(renewed.is_empty(), "{renewed:?}");
    let lease = find(&store, id(1)).await.unwrap().live.unwrap().lease;
    assert_eq!(lease.unwrap().expires_at, at(3).saturating_add(LEASE));
}

#[tokio::test]
async fn a_reclaim_leaves_alone_what_was_renewed_since_its_snapshot() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a"), new_job(2, "a")]).await;
    let one = claim_one(&store, at(1), "a").await;
    claim_one(&store, at(1), "a").await;
    let lapsed = 3_601;
    let lost = run_gated(&store, recovery(lapsed), async {
        let renewed = heartbeat(&store, at(3_600), vec![one]).await;
        assert_eq!(renewed, [Written::Applied]);
    })
    .await;
    assert_eq!(lost, [id(2).0]);
    assert_eq!(find(&store, id(1)).await.unwrap().state(), State::Running);
}

#[tokio::test]
async fn a_reclaim_leaves_alone_what_ended_and_runs_again_since_its_snapshot() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a"), new_job(2, "a")]).await;
    let one = claim_one(&store, at(1), "a").await;
    let other = claim_one(&store, at(1), "a").await;
    let lost = run_gated(&store, recovery(3_601), async {
        let ends = [(one, Outcome::Released), (other, Outcome::Completed)];
        let ends = ends.map(|(run, outcome)| Finish { run, outcome });
        finish(&store, at(3_600), ends.into()).await;
        assert_eq!(claim_one(&store, at(3_600), "a").await.job, one.job);
    })
    .await;
    assert!(lost.is_empty(), "{lost:?}");
    let ends = [id(1), id(2)].map(|job| find(&store, job));
    for (job, end) in ends.into_iter().zip([RunEnd::Released, RunEnd::Completed]) {
        let runs = job.await.unwrap().runs;
        assert_eq!(runs.iter().map(|run| run.end).collect::<Vec<_>>(), [end]);
    }
}

/// The delete, the update and the insert of one statement all work on what was
/// there before: none sees what the others write, and each row is written once.
#[tokio::test]
async fn the_parts_of_an_end_write_each_job_once() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), (1..=3).map(|n| new_job(n, "a")).collect()).await;
    let claimed = claim(&store, at(1), claim_command(1, 1, "a", 3)).await;
    let outcomes = [
        Outcome::Completed,
        Outcome::Released,
        Outcome::Errored {
            error: ErrorText::new("no"),
        },
    ];
    let ends = claimed.jobs.iter().zip(outcomes);
    let ends = ends.map(|(job, outcome)| Finish {
        run: job.run,
        outcome,
    });
    let written = finish(&store, at(2), ends.collect()).await;
    assert_eq!(written, [Written::Applied; 3]);
    for (n, state) in [
        (1, State::Completed),
        (2, State::Pending),
        (3, State::Errored),
    ] {
        let job = find(&store, id(n)).await.unwrap();
        assert_eq!((job.state(), job.runs.len()), (state, 1));
        assert_eq!(job.fold(), Some(state));
    }
}

/// A statement that creates jobs does not see the ones it has just created: an
/// id that comes twice in a batch goes into two statements.
#[tokio::test]
async fn a_job_that_comes_twice_in_a_batch_meets_itself() {
    let (_database, store) = TestDatabase::with_store().await;
    let other = NewJob {
        token: 2,
        ..new_job(1, "b")
    };
    let batch = vec![new_job(1, "a"), other, new_job(1, "a")];
    let spawned = spawn(&store, at(0), batch).await;
    let expected = [Spawned::Created, Spawned::DuplicateId, Spawned::Created];
    assert_eq!(spawned, expected);
    assert_eq!(find(&store, id(1)).await.unwrap().job_type.as_str(), "a");
}
