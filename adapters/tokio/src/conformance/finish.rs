//! Ending runs.

use std::time::Duration;

use job_engine::lifecycle::{RunEnd, State};
use job_engine::store::{Finish, NewJob, Outcome, Written};
use job_engine::{Due, Fence};

use super::bench::{Bench, error, job, run, secs, worker};
use crate::store::Store;

fn retried(attempt: u32) -> Outcome {
    Outcome::Retried {
        delay: secs(30),
        attempt,
        error: error("no route"),
    }
}

/// And nothing of it is left to claim.
pub async fn a_completed_job_is_over<S: Store>(bench: &mut Bench<S>) {
    let claimed_at = bench.now;
    let started = bench.start(1, "mail").await;
    bench.pass(secs(2));
    assert_eq!(
        bench.finish(started, Outcome::Completed).await,
        Written::Applied
    );
    let found = bench.read(1).await;
    assert_eq!((found.state(), found.live), (State::Completed, None));
    let ended = &found.runs[0];
    assert_eq!(
        (ended.end, ended.fence, ended.attempt),
        (RunEnd::Completed, Fence(1), 1)
    );
    assert_eq!((ended.claimed_at, ended.ended_at), (claimed_at, bench.now));
    assert_eq!((ended.worker, ended.next_due_at), (worker(1), None));
    bench.pass(secs(1_000));
    assert!(bench.claim("mail", 10).await.is_empty());
}

/// Whatever is in it.
pub async fn an_errored_job_is_over_and_keeps_its_error<S: Store>(bench: &mut Bench<S>) {
    let started = bench.start(1, "mail").await;
    let text = "line one\nline \"two\" \\ \u{1f980} \0 end";
    let outcome = Outcome::Errored { error: error(text) };
    assert_eq!(bench.finish(started, outcome).await, Written::Applied);
    let found = bench.read(1).await;
    assert_eq!(found.state(), State::Errored);
    let kept = found.runs[0].error.clone().unwrap();
    assert_eq!(
        kept.as_str(),
        "line one\nline \"two\" \\ \u{1f980} \u{fffd} end"
    );
}

/// On the clock of the store.
pub async fn a_retried_job_is_due_after_its_delay<S: Store>(bench: &mut Bench<S>) {
    let started = bench.start(1, "mail").await;
    bench.pass(secs(4));
    assert_eq!(bench.finish(started, retried(2)).await, Written::Applied);
    let found = bench.read(1).await;
    let due_at = bench.now.saturating_add(secs(30));
    let live = found.live.clone().unwrap();
    assert_eq!((live.attempt, live.due_at, live.lease), (2, due_at, None));
    assert_eq!(found.state(), State::Pending);
    assert_eq!(found.runs[0].next_due_at, Some(due_at));
    assert_eq!(found.runs[0].error.as_ref().unwrap().as_str(), "no route");
    assert!(bench.claim("mail", 10).await.is_empty());
    bench.pass(secs(30));
    assert_eq!(bench.claim("mail", 10).await[0].attempt, 2);
}

/// And keeps its execution state.
pub async fn a_rescheduled_job_starts_again_at_attempt_one<S: Store>(bench: &mut Bench<S>) {
    let started = bench.start(1, "mail").await;
    bench.finish(started, retried(7)).await;
    bench.pass(secs(30));
    let started = bench.claim_one(1, "mail").await;
    bench.checkpoint(started, "\"kept\"").await;
    let rescheduled = Outcome::Rescheduled { due: Due::Now };
    assert_eq!(bench.finish(started, rescheduled).await, Written::Applied);
    let claimed = bench.claim("mail", 1).await.remove(0);
    assert_eq!(
        (claimed.attempt, claimed.state.unwrap().as_str()),
        (1, "\"kept\"")
    );
}

/// A time in the past is now.
pub async fn a_reschedule_can_be_due_now_later_or_at_a_time<S: Store>(bench: &mut Bench<S>) {
    let at = bench.now.saturating_add(secs(77));
    let past = job_engine::Timestamp::EPOCH;
    let dues = [Due::Now, Due::In(secs(8)), Due::At(at), Due::At(past)];
    for (n, due) in (1..).zip(dues) {
        let started = bench.start(n, "mail").await;
        bench.finish(started, Outcome::Rescheduled { due }).await;
        let due_at = bench.read(n).await.live.unwrap().due_at;
        assert_eq!(due_at, due.resolve(bench.now));
        // Out of the way of the next.
        for claimed in bench.claim("mail", 10).await {
            bench.finish(claimed.run, Outcome::Completed).await;
        }
    }
}

/// As a shutdown does.
pub async fn a_released_job_is_due_at_once_at_the_same_attempt<S: Store>(bench: &mut Bench<S>) {
    let started = bench.start(1, "mail").await;
    bench.finish(started, retried(3)).await;
    bench.pass(secs(30));
    let started = bench.claim_one(1, "mail").await;
    bench.pass(secs(1));
    assert_eq!(
        bench.finish(started, Outcome::Released).await,
        Written::Applied
    );
    let live = bench.read(1).await.live.unwrap();
    assert_eq!((live.attempt, live.due_at), (3, bench.now));
    bench.claim_one(1, "mail").await;
}

/// As when its reply was lost; also after the job went on.
pub async fn a_repeated_end_changes_nothing<S: Store>(bench: &mut Bench<S>) {
    for (n, outcome) in (1..).zip([
        Outcome::Completed,
        Outcome::Errored {
            error: error("no route"),
        },
        retried(2),
        Outcome::Rescheduled {
            due: Due::In(secs(30)),
        },
        Outcome::Released,
    ]) {
        let started = bench.start(n, "mail").await;
        assert_eq!(
            bench.finish(started, outcome.clone()).await,
            Written::Applied
        );
        bench.pass(secs(1));
        assert_eq!(
            bench.finish(started, outcome.clone()).await,
            Written::Applied
        );
        bench.pass(secs(60));
        for claimed in bench.claim("mail", 10).await {
            assert_eq!(
                bench.finish(started, outcome.clone()).await,
                Written::Applied
            );
            bench.finish(claimed.run, Outcome::Completed).await;
        }
        assert!(bench.read(n).await.runs.len() <= 2);
    }
}

/// The first one stands.
pub async fn a_different_end_after_the_first_is_stale<S: Store>(bench: &mut Bench<S>) {
    let started = bench.start(1, "mail").await;
    bench.finish(started, Outcome::Released).await;
    assert_eq!(
        bench.finish(started, Outcome::Completed).await,
        Written::Stale
    );
    assert_eq!(bench.finish(started, retried(2)).await, Written::Stale);
    assert_eq!(bench.read(1).await.state(), State::Pending);
    let started = bench.claim_one(1, "mail").await;
    bench.finish(started, Outcome::Completed).await;
    assert_eq!(bench.finish(started, retried(2)).await, Written::Stale);
    assert_eq!(
        bench.finish(started, Outcome::Released).await,
        Written::Stale
    );
    assert_eq!(bench.read(1).await.state(), State::Completed);
}

/// Neither an old one nor one to come.
pub async fn a_stale_fence_ends_nothing<S: Store>(bench: &mut Bench<S>) {
    let first = bench.start(1, "mail").await;
    bench.finish(first, Outcome::Released).await;
    bench.claim_one(1, "mail").await;
    assert_eq!(
        bench.finish(first, Outcome::Completed).await,
        Written::Stale
    );
    assert_eq!(
        bench.finish(run(1, 3), Outcome::Completed).await,
        Written::Stale
    );
    assert_eq!(
        bench.finish(run(1, 0), Outcome::Completed).await,
        Written::Stale
    );
    assert_eq!(bench.read(1).await.state(), State::Running);
}

/// And does not come about by it.
pub async fn an_unknown_job_cannot_end<S: Store>(bench: &mut Bench<S>) {
    assert_eq!(
        bench.finish(run(1, 1), Outcome::Completed).await,
        Written::Stale
    );
    assert!(bench.find(job(1)).await.is_none());
}

/// It was never claimed.
pub async fn a_pending_job_cannot_end<S: Store>(bench: &mut Bench<S>) {
    bench.spawn(1, "mail").await;
    assert_eq!(
        bench.finish(run(1, 0), Outcome::Completed).await,
        Written::Stale
    );
    assert_eq!(
        bench.finish(run(1, 1), Outcome::Completed).await,
        Written::Stale
    );
    bench.claim_one(1, "mail").await;
}

/// Each is decided for itself, in the order of the batch.
pub async fn one_stale_end_leaves_the_rest_of_the_batch_in<S: Store>(bench: &mut Bench<S>) {
    for n in 1..=4 {
        bench.spawn(n, "mail").await;
    }
    bench.claim("mail", 4).await;
    bench.finish(run(2, 1), Outcome::Released).await;
    let outcomes = [
        (4, retried(2)),
        (2, Outcome::Completed),
        (9, Outcome::Completed),
        (1, Outcome::Errored { error: error("no") }),
        (3, Outcome::Completed),
    ];
    let finishes = outcomes.map(|(n, outcome)| Finish {
        run: run(n, 1),
        outcome,
    });
    let (done, stale) = (Written::Applied, Written::Stale);
    let written = bench.finish_all(finishes.to_vec()).await;
    assert_eq!(written, [done, stale, stale, done, done]);
    assert_eq!(bench.finish_all(finishes.to_vec()).await, written);
    assert_eq!(bench.finish_all(Vec::new()).await, []);
}

/// As many as a command may have.
pub async fn a_large_batch_ends_at_once<S: Store>(bench: &mut Bench<S>) {
    let jobs: Vec<NewJob> = (1..=1_000).map(|n| bench.new_job(n, "mail")).collect();
    bench.spawn_all(jobs).await;
    let claimed = bench.claim("mail", 1_000).await;
    let finishes = claimed.into_iter().enumerate().map(|(n, job)| Finish {
        run: job.run,
        outcome: match n % 3 {
            0 => Outcome::Completed,
            1 => retried(2),
            _ => Outcome::Rescheduled {
                due: Due::In(Duration::from_millis(1)),
            },
        },
    });
    let written = bench.finish_all(finishes.collect()).await;
    assert_eq!(written, vec![Written::Applied; 1_000]);
}
