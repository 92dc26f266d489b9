//! Creating jobs.

use job_engine::lifecycle::State;
use job_engine::store::{NewJob, Outcome, Spawned};
use job_engine::{Due, Fence, Payload};

use super::bench::{Bench, job, secs};
use crate::store::Store;

/// Now, later, and at times in the past and the future.
pub async fn a_job_is_created_pending_at_its_time<S: Store>(bench: &mut Bench<S>) {
    let now = bench.now;
    let at = now.saturating_add(secs(500));
    let past = job_engine::Timestamp::from_micros(1_000);
    let dues = [
        (Due::Now, now),
        (Due::In(secs(9)), now.saturating_add(secs(9))),
        (Due::At(at), at),
        (Due::At(past), past),
    ];
    for (n, (due, due_at)) in (1..).zip(dues) {
        assert_eq!(bench.spawn_due(n, "mail", due).await, Spawned::Created);
        let found = bench.read(n).await;
        let live = found.live.clone().unwrap();
        assert_eq!(
            (live.due_at, live.attempt, live.fence),
            (due_at, 1, Fence::NONE)
        );
        assert_eq!((found.state(), found.spawned_at), (State::Pending, now));
    }
}

/// It is left as it is, whatever it is.
pub async fn a_second_job_with_the_id_is_refused<S: Store>(bench: &mut Bench<S>) {
    bench.spawn(1, "mail").await;
    assert_eq!(bench.spawn(1, "mail").await, Spawned::DuplicateId);
    assert_eq!(bench.spawn(1, "other").await, Spawned::DuplicateId);
    let run = bench.claim_one(1, "mail").await;
    assert_eq!(bench.spawn(1, "mail").await, Spawned::DuplicateId);
    bench.finish(run, Outcome::Completed).await;
    assert_eq!(bench.spawn(1, "mail").await, Spawned::DuplicateId);
}

/// As when its reply was lost.
pub async fn a_repeated_spawn_is_no_duplicate<S: Store>(bench: &mut Bench<S>) {
    let new = bench.new_job(1, "mail");
    assert_eq!(bench.spawn_all(vec![new.clone()]).await, [Spawned::Created]);
    bench.pass(secs(5));
    assert_eq!(bench.spawn_all(vec![new]).await, [Spawned::Created]);
    assert_eq!(bench.claim("mail", 10).await.len(), 1);
}

/// However late it comes.
pub async fn a_repeated_spawn_does_not_bring_an_ended_job_back<S: Store>(bench: &mut Bench<S>) {
    let new = bench.new_job(1, "mail");
    bench.spawn_all(vec![new.clone()]).await;
    let run = bench.claim_one(1, "mail").await;
    bench.finish(run, Outcome::Completed).await;
    assert_eq!(bench.spawn_all(vec![new]).await, [Spawned::Created]);
    assert!(bench.claim("mail", 10).await.is_empty());
    assert_eq!(bench.read(1).await.state(), State::Completed);
}

async fn spawn_unique<S: Store>(bench: &mut Bench<S>, n: u128, job_type: &str) -> Spawned {
    let new = NewJob {
        unique_type: true,
        ..bench.new_job(n, job_type)
    };
    bench.spawn_all(vec![new]).await[0]
}

/// Other types, and plain jobs of the type, do not count.
pub async fn a_unique_type_has_one_job_for_ever<S: Store>(bench: &mut Bench<S>) {
    bench.spawn(9, "cleanup").await;
    assert_eq!(spawn_unique(bench, 1, "cleanup").await, Spawned::Created);
    assert_eq!(spawn_unique(bench, 2, "report").await, Spawned::Created);
    let second = spawn_unique(bench, 3, "cleanup").await;
    assert_eq!(second, Spawned::DuplicateUniqueType);
    assert!(bench.find(job(3)).await.is_none());
    for claimed in bench.claim("cleanup", 10).await {
        bench.finish(claimed.run, Outcome::Completed).await;
    }
    let second = spawn_unique(bench, 3, "cleanup").await;
    assert_eq!(second, Spawned::DuplicateUniqueType);
    assert_eq!(bench.spawn(4, "cleanup").await, Spawned::Created);
    assert_eq!(
        spawn_unique(bench, 1, "cleanup").await,
        Spawned::DuplicateId
    );
}

/// As when its reply was lost.
pub async fn a_repeated_unique_spawn_is_no_duplicate<S: Store>(bench: &mut Bench<S>) {
    let new = NewJob {
        unique_type: true,
        ..bench.new_job(1, "cleanup")
    };
    assert_eq!(bench.spawn_all(vec![new.clone()]).await, [Spawned::Created]);
    assert_eq!(bench.spawn_all(vec![new]).await, [Spawned::Created]);
}

/// Each is decided for itself.
pub async fn one_conflict_leaves_the_rest_of_the_batch_in<S: Store>(bench: &mut Bench<S>) {
    bench.spawn(2, "mail").await;
    spawn_unique(bench, 9, "cleanup").await;
    let unique = NewJob {
        unique_type: true,
        ..bench.new_job(4, "cleanup")
    };
    let batch = vec![
        bench.new_job(1, "mail"),
        bench.new_job(2, "mail"),
        bench.new_job(3, "mail"),
        unique,
        bench.new_job(5, "mail"),
    ];
    let expected = [
        Spawned::Created,
        Spawned::DuplicateId,
        Spawned::Created,
        Spawned::DuplicateUniqueType,
        Spawned::Created,
    ];
    assert_eq!(bench.spawn_all(batch).await, expected);
    assert_eq!(bench.claim("mail", 10).await.len(), 4);
    assert_eq!(bench.spawn_all(Vec::new()).await, []);
}

/// The second one is a duplicate, or a repeat if it is the same.
pub async fn an_id_twice_in_a_batch_creates_the_first<S: Store>(bench: &mut Bench<S>) {
    let first = bench.new_job(1, "mail");
    let second = NewJob {
        config: Payload::from_json("2"),
        ..bench.new_job(1, "mail")
    };
    let batch = vec![first.clone(), second, first];
    let expected = [Spawned::Created, Spawned::DuplicateId, Spawned::Created];
    assert_eq!(bench.spawn_all(batch).await, expected);
    assert_eq!(bench.read(1).await.config.as_str(), "{\"n\": 1}");
}
