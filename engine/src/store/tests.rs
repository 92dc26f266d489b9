use super::*;
use crate::ids::{Fence, WorkerId};
use uuid::Uuid;

fn run(n: u128) -> Run {
    Run {
        job: JobId(Uuid::from_u128(n)),
        fence: Fence(1),
        claim: ClaimId {
            worker: WorkerId(Uuid::nil()),
            seq: 1,
        },
    }
}

fn new_job(trace: &str) -> NewJob {
    NewJob {
        id: run(1).job,
        job_type: JobType::new("mail"),
        unique_type: false,
        due: Due::Now,
        config: Payload::from_json("null"),
        trace: Some(trace.to_owned()),
        token: 1,
    }
}

#[test]
fn a_run_or_a_type_that_is_named_twice_is_refused() {
    let finish = |n| Finish {
        run: run(n),
        outcome: Outcome::Completed,
    };
    let quota = |name: &str| Quota {
        job_type: name.into(),
        jobs_max: 1,
    };
    let claim = |names: [&str; 2]| {
        Command::Claim(Claim {
            id: ClaimId {
                worker: WorkerId(Uuid::nil()),
                seq: 1,
            },
            repeat: false,
            quotas: names.map(quota).to_vec(),
            lease: Duration::ZERO,
        })
    };
    let heartbeat = |runs: [Run; 2]| {
        Command::Heartbeat(Heartbeat {
            runs: runs.to_vec(),
            lease: Duration::ZERO,
        })
    };
    for good in [
        Command::Finish(vec![finish(1), finish(2)]),
        claim(["a", "b"]),
        heartbeat([run(1), run(2)]),
    ] {
        good.check().unwrap();
    }
    for bad in [
        Command::Finish(vec![finish(1), finish(1)]),
        claim(["a", "a"]),
        heartbeat([run(1), run(1)]),
    ] {
        assert!(
            matches!(bad.check(), Err(Rejection::Twice { .. })),
            "{bad:?}"
        );
    }
}

#[test]
fn a_trace_context_with_a_nul_is_refused() {
    Command::Spawn(vec![new_job("00-1-2-01")]).check().unwrap();
    let refused = Command::Spawn(vec![new_job("a\0b")]).check();
    assert!(matches!(refused, Err(Rejection::Nul { .. })));
}

#[test]
fn what_is_as_long_as_it_may_be_is_taken_and_what_is_longer_is_refused() {
    let named = |name: &str| JobType::from(name).check();
    for good in ["a", &"x".repeat(JOB_TYPE_LEN_MAX)] {
        named(good).unwrap();
    }
    for bad in ["", "a\0b", &"x".repeat(JOB_TYPE_LEN_MAX + 1)] {
        assert!(
            matches!(named(bad), Err(Rejection::JobType { .. })),
            "{bad:?}"
        );
    }

    let traced = |len| Command::Spawn(vec![new_job(&"x".repeat(len))]).check();
    traced(TRACE_LEN_MAX).unwrap();
    let refused = Rejection::TooLong {
        what: "trace context".to_owned(),
        job: run(1).job,
        len: TRACE_LEN_MAX + 1,
        len_max: TRACE_LEN_MAX,
    };
    assert_eq!(traced(TRACE_LEN_MAX + 1), Err(refused));

    let spawned = |len| Command::Spawn(vec![new_job(""); len]).check();
    spawned(BATCH_LEN_MAX).unwrap();
    let refused = Rejection::TooMany {
        len: BATCH_LEN_MAX + 1,
        len_max: BATCH_LEN_MAX,
    };
    assert_eq!(spawned(BATCH_LEN_MAX + 1), Err(refused));
}

#[test]
fn a_lost_lease_counts_as_an_attempt_and_as_a_crash_unless_the_run_was_healthy() {
    let policy = TypePolicy {
        job_type: JobType::new("mail"),
        attempts_max: Some(3),
        crashes_max: None,
        healthy_after: Duration::from_secs(10),
    };
    let retry = |attempt, crashes| AfterCrash::Retry { attempt, crashes };
    let (brief, long) = (Duration::from_secs(9), policy.healthy_after);
    let after = |attempt, crashes, alive| policy.after_crash(attempt, crashes, alive);
    assert_eq!(after(1, 0, brief), retry(2, 1));
    assert_eq!(after(2, 4, brief), retry(3, 5));
    // Whoever was well for long begins anew, but for the first attempt, which is not had
    // twice.
    assert_eq!(after(3, 4, long), retry(1, 1));
    assert_eq!(after(2, 4, long), retry(1, 1));
    assert_eq!(after(1, 4, long), retry(2, 1));
    // Also if it was allowed more attempts when it was claimed.
    for attempt in [3, 4, 9] {
        let lost = after(attempt, 0, brief);
        assert_eq!(lost, AfterCrash::Abandon(LOST_AT_LAST_ATTEMPT), "{attempt}");
    }
}
