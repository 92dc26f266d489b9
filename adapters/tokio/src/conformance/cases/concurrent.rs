//! Many tasks at once. The model cannot say in which order they come, so these
//! cases state what holds in any order.

use std::collections::BTreeSet;
use std::future::Future;

use job_engine::lifecycle::{RunEnd, State};
use job_engine::store::{
    Claim, Claimed, Finish, NewJob, Outcome, Reclaim, Reclaimed, Spawned, Written,
};
use job_engine::{
    ClaimId, Command, Fence, JobId, Reply, Run, Snapshot, StoreError, Timestamp, WorkerId,
};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::conformance::Harness;
use crate::conformance::fixtures::{
    LEASE, MAIL, START, error, id, new_job, new_jobs, policy, quota,
};
use crate::store::Store;

const TASKS: u128 = 8;
/// So often a task tries before it fails the test: a command that meets others
/// may fail, and a claim may find jobs that others are just taking.
const TRIES_MAX: usize = 10_000;

async fn ask_at<S: Store>(store: &S, now: Timestamp, command: Command) -> Reply {
    for _ in 0..TRIES_MAX {
        match store.execute(Some(now), &command).await {
            Ok(reply) => return reply,
            Err(StoreError::Failed(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{command:?}: {error}"),
        }
    }
    panic!("{command:?} fails again and again");
}

async fn ask<S: Store>(store: &S, command: Command) -> Reply {
    ask_at(store, START, command).await
}

/// Of which jobs these are runs, and which.
fn firsts(runs: Vec<Run>) -> Vec<(JobId, Fence)> {
    runs.into_iter().map(|run| (run.job, run.fence)).collect()
}

/// Runs one task for each of the numbers, all at once.
async fn at_once<S, T, F>(store: &S, task: impl Fn(S, u128) -> F) -> Vec<T>
where
    S: Store,
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: JoinSet<T> = (1..=TASKS).map(|n| task(store.clone(), n)).collect();
    tasks.join_all().await
}

async fn claim<S: Store>(store: &S, worker: u128, seq: i64, jobs_max: u32) -> Vec<Run> {
    let claim = Claim {
        id: ClaimId {
            worker: WorkerId(Uuid::from_u128(worker)),
            seq,
        },
        repeat: false,
        quotas: vec![quota(MAIL, jobs_max)],
        lease: LEASE,
    };
    match ask(store, Command::Claim(claim)).await {
        Reply::Claimed(Claimed { jobs, .. }) => jobs.into_iter().map(|job| job.run).collect(),
        reply => panic!("a reply to another command: {reply:?}"),
    }
}

async fn spawn_one<S: Store>(store: &S, job: NewJob) -> Spawned {
    match ask(store, Command::Spawn(vec![job])).await {
        Reply::Spawned(spawned) => spawned[0],
        reply => panic!("a reply to another command: {reply:?}"),
    }
}

async fn finish<S: Store>(store: &S, run: Run, outcome: Outcome) -> Written {
    match ask(store, Command::Finish(vec![Finish { run, outcome }])).await {
        Reply::Finished(written) => written[0],
        reply => panic!("a reply to another command: {reply:?}"),
    }
}

async fn find<S: Store>(store: &S, job: JobId) -> Option<Snapshot> {
    match ask(store, Command::Find(job)).await {
        Reply::Found(found) => found.map(|found| *found),
        reply => panic!("a reply to another command: {reply:?}"),
    }
}

/// Whether every pending job of type mail has been taken.
async fn all_taken<S: Store>(store: &S, jobs: u128) -> bool {
    for n in 1..=jobs {
        let job = find(store, id(n)).await.expect("it was spawned");
        if job.state() == State::Pending {
            return false;
        }
    }
    true
}

pub async fn concurrent_claims_take_no_job_twice<S: Store>(harness: &mut Harness<S>) {
    const JOBS: u128 = 100;
    let store = harness.store();
    ask(store, Command::Spawn(new_jobs(JOBS))).await;
    let taken = at_once(store, |store, worker| async move {
        let mut taken = Vec::new();
        for seq in 0..TRIES_MAX as i64 {
            let runs = claim(&store, worker, seq, 5).await;
            if runs.is_empty() && all_taken(&store, JOBS).await {
                return taken;
            }
            taken.extend(runs);
        }
        panic!("some jobs are never claimed");
    });
    let mut runs = firsts(taken.await.concat());
    runs.sort();
    let expected: Vec<_> = (1..=JOBS).map(|n| (id(n), Fence(1))).collect();
    assert_eq!(runs, expected);
}

pub async fn concurrent_spawns_of_a_unique_job_create_one<S: Store>(harness: &mut Harness<S>) {
    let store = harness.store();
    let spawned = at_once(store, |store, n| async move {
        let job = NewJob {
            unique_type: true,
            ..new_job(n)
        };
        spawn_one(&store, job).await
    });
    let mut spawned = spawned.await;
    let existing = |spawned: &Spawned| match spawned {
        Spawned::DuplicateUniqueType(existing) => Some(*existing),
        _ => None,
    };
    let told: BTreeSet<JobId> = spawned.iter().filter_map(existing).collect();
    spawned.retain(|spawned| existing(spawned).is_none());
    assert_eq!(spawned, [Spawned::Created]);
    let mut found = 0;
    for n in 1..=TASKS {
        found += usize::from(find(store, id(n)).await.is_some());
    }
    assert_eq!(found, 1);
    assert_eq!(told.len(), 1, "all were told of the same job");
    for existing in told {
        assert!(find(store, existing).await.is_some());
    }
}

pub async fn concurrent_repeats_of_a_spawn_create_one_job<S: Store>(harness: &mut Harness<S>) {
    let store = harness.store();
    let spawned = at_once(store, |store, _| async move {
        spawn_one(&store, new_job(1)).await
    });
    assert_eq!(spawned.await, [Spawned::Created; TASKS as usize]);
    let runs = firsts(claim(store, 1, 0, 10).await);
    assert_eq!(runs, [(id(1), Fence(1))]);
}

pub async fn of_concurrent_ends_of_a_run_one_counts<S: Store>(harness: &mut Harness<S>) {
    let store = harness.store();
    spawn_one(store, new_job(1)).await;
    let run = claim(store, 1, 0, 1).await[0];
    let written = at_once(store, move |store, n| async move {
        let outcome = match n % 2 {
            0 => Outcome::Completed,
            _ => Outcome::Errored {
                error: error("gave up"),
            },
        };
        let end = outcome.end();
        (end, finish(&store, run, outcome).await)
    });
    let written = written.await;
    let runs = find(store, id(1)).await.expect("it was spawned").runs;
    assert_eq!(runs.len(), 1);
    for (end, written) in written {
        assert_eq!(written == Written::Applied, end == runs[0].end);
    }
}

pub async fn of_concurrent_reclaims_one_takes_a_job<S: Store>(harness: &mut Harness<S>) {
    const JOBS: u128 = 40;
    let store = harness.store();
    ask(store, Command::Spawn(new_jobs(JOBS))).await;
    assert_eq!(claim(store, 1, 0, 100).await.len(), JOBS as usize);
    let lapsed = START.saturating_add(LEASE);
    let reclaimed = at_once(store, move |store, _| async move {
        let mut all: Vec<Reclaimed> = Vec::new();
        for _ in 0..JOBS {
            let reclaim = Reclaim {
                policies: vec![policy(MAIL)],
                jobs_max: 3,
            };
            match ask_at(&store, lapsed, Command::Reclaim(reclaim)).await {
                Reply::Reclaimed(reclaimed) => all.extend(reclaimed),
                reply => panic!("a reply to another command: {reply:?}"),
            }
        }
        all
    });
    let reclaimed = reclaimed.await.concat();
    let runs: BTreeSet<_> = reclaimed.iter().map(|r| r.run).collect();
    assert_eq!(runs.len(), reclaimed.len(), "none is taken back twice");
    assert_eq!(runs.len(), JOBS as usize);
    for n in 1..=JOBS {
        let job = find(store, id(n)).await.expect("it was spawned");
        let ends: Vec<_> = job.runs.iter().map(|r| r.end).collect();
        assert_eq!(ends, [RunEnd::Lost]);
    }
}

pub async fn workers_drain_a_queue_and_run_each_job_once<S: Store>(harness: &mut Harness<S>) {
    const JOBS: u128 = 200;
    let store = harness.store();
    ask(store, Command::Spawn(new_jobs(JOBS))).await;
    let ran = at_once(store, |store, worker| async move {
        let mut ran = 0;
        for seq in 0..TRIES_MAX as i64 {
            let runs = claim(&store, worker, seq, 4).await;
            if runs.is_empty() && all_taken(&store, JOBS).await {
                return ran;
            }
            for run in runs {
                let written = finish(&store, run, Outcome::Completed).await;
                assert_eq!(written, Written::Applied);
                ran += 1;
            }
        }
        panic!("the queue never drains");
    });
    assert_eq!(ran.await.iter().sum::<u128>(), JOBS);
    for n in 1..=JOBS {
        let job = find(store, id(n)).await.expect("it was spawned");
        assert_eq!(job.state(), State::Completed);
        assert_eq!((job.live, job.runs.len()), (None, 1));
    }
}
