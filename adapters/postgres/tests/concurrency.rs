//! Several at once.

use std::collections::BTreeSet;
use std::time::Duration;

use job_engine::lifecycle::{RunEnd, State};
use job_engine::store::{Finish, History, NewJob, Outcome, Spawned, Written};
use job_engine::{Command, Due, ErrorText, Reply, Run};
use job_postgres::{PostgresStore, StoreOptions};
use job_tokio::Store;
use tokio::task::JoinSet;

use crate::support::{
    TestDatabase, at, blocked, claim, claim_command, claim_one, completed, find, finish, heartbeat,
    id, new_job, reclaim, spawn, wait_for_blocked, wait_until, within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_claims_never_take_the_same_job() {
    let (database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), (0..300).map(|n| new_job(n, "a")).collect()).await;
    let mut claimers = JoinSet::new();
    for worker in 0..6 {
        let store = PostgresStore::new(database.pool(2), StoreOptions::default()).unwrap();
        claimers.spawn(async move {
            let mut runs = Vec::new();
            for seq in 0.. {
                let command = claim_command(worker, seq, "a", 7);
                let claimed = claim(&store, at(1), command).await;
                if claimed.jobs.is_empty() {
                    break;
                }
                runs.extend(claimed.jobs.iter().map(|job| job.run));
            }
            store.close().await;
            runs
        });
    }
    let runs = within("all claims", claimers.join_all()).await.concat();
    assert_eq!(runs.len(), 300);
    assert!(runs.iter().all(|run| run.fence.0 == 1));
    let jobs: BTreeSet<_> = runs.iter().map(|run| run.job).collect();
    assert_eq!(jobs.len(), 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_finished_and_taken_back_at_once_ends_once() {
    let (_database, store) = TestDatabase::with_store().await;
    let mut finished = 0;
    for round in 0..20_u32 {
        let ids = (0..20).map(|n| u128::from(round) * 100 + n);
        spawn(&store, at(0), ids.map(|n| new_job(n, "a")).collect()).await;
        let mut command = claim_command(1, round.into(), "a", 1_000);
        command.lease = Duration::ZERO;
        let claimed = claim(&store, at(1), command).await;
        let runs: Vec<Run> = claimed.jobs.iter().map(|job| job.run).collect();
        let finishes = runs.iter().copied().map(completed).collect();
        // Let each of them be the first at times.
        let written;
        let reclaimed;
        if round % 2 == 0 {
            (written, reclaimed) =
                tokio::join!(finish(&store, at(2), finishes), reclaim(&store, at(2), "a"));
        } else {
            (reclaimed, written) =
                tokio::join!(reclaim(&store, at(2), "a"), finish(&store, at(2), finishes));
        }
        let lost: BTreeSet<Run> = reclaimed.iter().map(|job| job.run).collect();
        for (run, written) in runs.iter().zip(written) {
            let job = find(&store, run.job).await.unwrap();
            let end = job.runs.iter().find(|r| r.fence == run.fence).unwrap().end;
            match written {
                Written::Applied => {
                    finished += 1;
                    assert_eq!((end, lost.contains(run)), (RunEnd::Completed, false));
                }
                Written::Stale => assert_eq!((end, lost.contains(run)), (RunEnd::Lost, true)),
            }
        }
    }
    println!("{finished} of them finished first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_many_take_and_give_back_has_a_new_fence_each_time() {
    let (database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), (0..8).map(|n| new_job(n, "a")).collect()).await;
    let mut workers = JoinSet::new();
    for worker in 0..4 {
        let store = PostgresStore::new(database.pool(2), StoreOptions::default()).unwrap();
        workers.spawn(async move {
            let mut runs = Vec::new();
            for seq in 0..80 {
                let command = claim_command(worker, seq, "a", 4);
                let claimed = claim(&store, at(1), command).await;
                let mine: Vec<Run> = claimed.jobs.iter().map(|job| job.run).collect();
                let released = mine.iter().map(|run| Finish {
                    run: *run,
                    outcome: Outcome::Released,
                });
                let written = finish(&store, at(1), released.collect()).await;
                assert_eq!(written, vec![Written::Applied; mine.len()]);
                runs.extend(mine);
            }
            store.close().await;
            runs
        });
    }
    let runs = within("all workers", workers.join_all()).await.concat();
    let distinct: BTreeSet<Run> = runs.iter().copied().collect();
    assert_eq!(distinct.len(), runs.len());
    let mut history = 0;
    for n in 0..8 {
        let job = find(&store, id(n)).await.unwrap();
        let mut fences: Vec<i64> = job.runs.iter().map(|run| run.fence.0).collect();
        let mut earlier = job.earlier;
        while let Some(before) = earlier {
            let history = Command::History(History { job: id(n), before });
            let Ok(Reply::History(page)) = store.execute(None, &history).await else {
                panic!("the history is read");
            };
            let page_of = page.runs.iter().map(|run| run.fence.0);
            fences.splice(..0, page_of);
            earlier = page.earlier;
        }
        let expected: Vec<i64> = (1..=fences.len() as i64).collect();
        assert_eq!(fences, expected);
        history += fences.len();
    }
    assert_eq!(history, runs.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_in_opposite_orders_do_not_deadlock() {
    let (_database, store) = TestDatabase::with_store().await;
    for round in 0..20 {
        let ids = (0..60).map(|n| round * 100 + n);
        spawn(&store, at(0), ids.map(|n| new_job(n, "a")).collect()).await;
        let command = claim_command(1, round as i64, "a", 1_000);
        let claimed = claim(&store, at(1), command).await;
        let mut runs: Vec<Run> = claimed.jobs.iter().map(|job| job.run).collect();
        let forwards: Vec<Finish> = runs.iter().copied().map(completed).collect();
        let renewed = runs.clone();
        runs.reverse();
        let backwards: Vec<Finish> = runs.iter().copied().map(completed).collect();
        let (one, other, _) = tokio::join!(
            finish(&store, at(2), forwards),
            finish(&store, at(2), backwards),
            heartbeat(&store, at(2), renewed),
        );
        // Whoever came second repeats what the first has done.
        assert_eq!(one, vec![Written::Applied; 60]);
        assert_eq!(other, vec![Written::Applied; 60]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_batches_with_the_same_jobs_each_job_is_created_once() {
    let (_database, store) = TestDatabase::with_store().await;
    for round in 0..20_u128 {
        let batch = |token, reverse| {
            let mut jobs: Vec<_> = (0..40)
                .map(|n| {
                    let mut job = new_job(round * 100 + n, "a");
                    job.token = token;
                    job
                })
                .collect();
            if reverse {
                jobs.reverse();
            }
            jobs
        };
        let (one, mut other) = tokio::join!(
            spawn(&store, at(0), batch(1, false)),
            spawn(&store, at(0), batch(2, true)),
        );
        other.reverse();
        for pair in one.into_iter().zip(other) {
            assert!(
                matches!(
                    pair,
                    (Spawned::Created, Spawned::DuplicateId)
                        | (Spawned::DuplicateId, Spawned::Created)
                ),
                "{pair:?}"
            );
        }
    }
}

/// An id that comes twice in a batch does not put off what comes after it: that
/// would be waited for in another order than elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_with_an_id_twice_does_not_deadlock_with_another() {
    let (_database, store) = TestDatabase::with_store().await;
    let unique = |n| NewJob {
        unique_type: true,
        ..new_job(n, "u")
    };
    let mut open = store.pool().begin().await.unwrap();
    let holds = Command::Spawn(vec![new_job(2, "a")]);
    store
        .execute_on(&mut open, Some(at(0)), &holds)
        .await
        .unwrap();
    let spawn_all = |jobs| {
        let store = store.clone();
        tokio::spawn(async move { spawn(&store, at(0), jobs).await })
    };
    // Waits for the open transaction, with job 1 created.
    let again = new_job(1, "b");
    let twice = vec![
        new_job(1, "a"),
        unique(8),
        again,
        new_job(2, "a"),
        new_job(3, "a"),
    ];
    let one = spawn_all(twice);
    wait_for_blocked(store.pool(), 1).await;
    // Shares job 3 and the unique type with that.
    let other = spawn_all(vec![new_job(3, "a"), unique(9)]);
    wait_until("the other batch is created or waits", || async {
        other.is_finished() || blocked(store.pool()).await == 2
    })
    .await;
    open.rollback().await.unwrap();
    let one = within("the one batch", one).await.unwrap();
    let other = within("the other batch", other).await.unwrap();
    let created = |told: Spawned| usize::from(told == Spawned::Created);
    assert_eq!(created(one[1]) + created(other[1]), 1, "{one:?} {other:?}");
    assert_eq!((one[0], one[3]), (Spawned::Created, Spawned::Created));
}

#[tokio::test]
async fn an_old_run_cannot_end_the_one_that_followed_on_the_same_worker() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a")]).await;
    let mut command = claim_command(1, 1, "a", 1);
    command.lease = Duration::from_secs(1);
    let old = claim(&store, at(0), command).await.jobs[0].run;
    assert_eq!(reclaim(&store, at(5), "a").await.len(), 1);
    let new = claim(&store, at(6), claim_command(1, 2, "a", 1)).await.jobs[0].run;
    assert_eq!(old.job, new.job);
    assert_eq!(
        finish(&store, at(7), vec![completed(old)]).await,
        [Written::Stale]
    );
    assert_eq!(heartbeat(&store, at(7), vec![old]).await, [Written::Stale]);
    assert_eq!(find(&store, id(1)).await.unwrap().state(), State::Running);
    assert_eq!(
        finish(&store, at(7), vec![completed(new)]).await,
        [Written::Applied]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_read_while_its_runs_end_makes_sense() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a")]).await;
    let reader = {
        let store = store.clone();
        tokio::spawn(async move {
            let mut last = 0;
            loop {
                let job = find(&store, id(1)).await.unwrap();
                assert_eq!(job.fold(), Some(job.state()), "{job:?}");
                assert!(job.runs.len() >= last, "{job:?}");
                last = job.runs.len();
                if job.state() == State::Completed {
                    return;
                }
            }
        })
    };
    for n in 0..100 {
        let run = claim_one(&store, at(n), "a").await;
        let outcome = match n % 3 {
            0 => Outcome::Rescheduled { due: Due::Now },
            1 => Outcome::Released,
            _ => Outcome::Retried {
                delay: Duration::ZERO,
                attempt: 2,
                error: ErrorText::new("no"),
            },
        };
        finish(&store, at(n), vec![Finish { run, outcome }]).await;
    }
    let run = claim_one(&store, at(1_000), "a").await;
    finish(&store, at(1_000), vec![completed(run)]).await;
    within("the reader sees the end", reader).await.unwrap();
}

#[tokio::test]
async fn a_command_without_a_time_goes_by_the_clock_of_the_database() {
    let (_database, store) = TestDatabase::with_store().await;
    let spawned = store
        .execute(None, &Command::Spawn(vec![new_job(1, "a")]))
        .await;
    spawned.unwrap();
    let clock: i64 = sqlx::query_scalar("SELECT (extract(epoch FROM now()) * 1e6)::bigint")
        .fetch_one(store.pool())
        .await
        .unwrap();
    let job = find(&store, id(1)).await.unwrap();
    let age = clock - job.spawned_at.as_micros();
    assert!((0..30_000_000).contains(&age), "{age} us");
    let claim = Command::Claim(claim_command(1, 1, "a", 1));
    let reply = store.execute(None, &claim).await.unwrap();
    let job_engine::Reply::Claimed(claimed) = reply else {
        panic!("{reply:?}");
    };
    assert_eq!(claimed.jobs.len(), 1);
    assert!(claimed.now >= job.spawned_at);
}
