//! The store's own time.

use std::time::Duration;

use job_engine::store::{Claimed, Finish, Heartbeat, NewJob, Outcome, Reclaim, Written};
use job_engine::{Command, Due, Reply, Timestamp};

use crate::conformance::Harness;
use crate::conformance::fixtures::{LEASE, MAIL, SECOND, id, new_job, policy, quota};
use crate::store::Store;

/// Longer than any test runs.
const HOUR: Duration = Duration::from_secs(3_600);

pub async fn a_store_has_a_clock_of_its_own<S: Store>(harness: &mut Harness<S>) {
    let claim = Command::Claim(harness.new_claim(vec![quota(MAIL, 5)]));
    let store = harness.store();
    // The model cannot follow: only the store knows what time it is.
    let ask = async |command: Command| store.execute(None, &command).await.expect("it answers");

    let later = NewJob {
        due: Due::In(HOUR),
        ..new_job(2)
    };
    ask(Command::Spawn(vec![new_job(1), later])).await;
    let Reply::Claimed(Claimed {
        now,
        jobs,
        next_due,
        ..
    }) = ask(claim).await
    else {
        panic!("a claim is answered as such");
    };
    assert_eq!(jobs.len(), 1);
    let spawned_at = jobs[0].spawned_at;
    assert_eq!(jobs[0].due_at, spawned_at);
    assert!(spawned_at <= now);
    assert_eq!(next_due, [(MAIL, spawned_at.saturating_add(HOUR))]);

    let run = jobs[0].run;
    let heartbeat = Heartbeat {
        runs: vec![run],
        lease: LEASE,
    };
    let renewed = ask(Command::Heartbeat(heartbeat)).await;
    assert_eq!(renewed, Reply::Heartbeat(vec![Written::Applied]));
    let reclaim = Reclaim {
        policies: vec![policy(MAIL)],
        jobs_max: 10,
    };
    let reclaimed = ask(Command::Reclaim(reclaim)).await;
    assert_eq!(reclaimed, Reply::Reclaimed(Vec::new()));
    let retried = Outcome::Retried {
        delay: HOUR,
        attempt: 2,
        error: crate::conformance::fixtures::error("no route"),
    };
    let finish = Finish {
        run,
        outcome: retried,
    };
    ask(Command::Finish(vec![finish])).await;

    let Reply::Found(Some(job)) = ask(Command::Find(id(1))).await else {
        panic!("the job exists");
    };
    let run = &job.runs[0];
    assert_eq!(run.claimed_at, now);
    assert!(run.ended_at >= now);
    assert!(run.ended_at < now.saturating_add(HOUR - SECOND));
    let due_at: Option<Timestamp> = job.live.map(|live| live.due_at);
    assert_eq!(due_at, Some(run.ended_at.saturating_add(HOUR)));
}
