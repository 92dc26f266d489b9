//! What is refused before it reaches the database. A refusal changes nothing:
//! the harness compares the jobs after each.

use job_engine::limits::{
    BATCH_LEN_MAX, JOB_TYPE_LEN_MAX, PAYLOAD_LEN_MAX, TRACE_LEN_MAX, TYPES_MAX,
};
use job_engine::store::{Checkpoint, Finish, Heartbeat, NewJob, Outcome, Reclaim, Spawned};
use job_engine::{Command, JobType, Payload, Rejection};

use crate::conformance::Harness;
use crate::conformance::fixtures::{LEASE, id, new_job, new_jobs, policy, quota};
use crate::store::Store;

pub async fn a_job_type_that_is_not_allowed_is_refused_by_every_command<S: Store>(
    harness: &mut Harness<S>,
) {
    let too_long = "x".repeat(JOB_TYPE_LEN_MAX + 1);
    for name in ["", "a\0b", &too_long] {
        let job_type = JobType::from(name);
        let spawn = Command::Spawn(vec![NewJob {
            job_type: job_type.clone(),
            ..new_job(1)
        }]);
        let claim = harness.new_claim(vec![quota(job_type.clone(), 1)]);
        let reclaim = Reclaim {
            policies: vec![policy(job_type)],
            jobs_max: 1,
        };
        for command in [spawn, Command::Claim(claim), Command::Reclaim(reclaim)] {
            let rejection = harness.refuse(command).await;
            assert!(matches!(rejection, Rejection::JobType { .. }));
        }
    }
}

pub async fn the_longest_job_type_is_accepted<S: Store>(harness: &mut Harness<S>) {
    // Bytes count, not characters.
    let name = format!("x{}", "é".repeat(JOB_TYPE_LEN_MAX / 2));
    assert_eq!(name.len(), JOB_TYPE_LEN_MAX);
    let job_type = JobType::from(name);
    let job = NewJob {
        job_type: job_type.clone(),
        ..new_job(1)
    };
    assert_eq!(harness.spawn_one(job).await, Spawned::Created);
    assert_eq!(harness.claim_type(job_type, 1).await.jobs.len(), 1);
}

pub async fn too_long_a_text_is_refused<S: Store>(harness: &mut Harness<S>) {
    let started = harness.start(1).await;
    let too_long = Payload::from_json(format!("\"{}\"", "x".repeat(PAYLOAD_LEN_MAX - 1)));
    let config = Command::Spawn(vec![NewJob {
        config: too_long.clone(),
        ..new_job(2)
    }]);
    let trace = Command::Spawn(vec![NewJob {
        trace: Some("x".repeat(TRACE_LEN_MAX + 1)),
        ..new_job(3)
    }]);
    let state = Command::Checkpoint(Checkpoint {
        run: started,
        state: too_long,
    });
    let expected = [
        ("config", id(2), PAYLOAD_LEN_MAX),
        ("trace context", id(3), TRACE_LEN_MAX),
        ("execution state", id(1), PAYLOAD_LEN_MAX),
    ];
    for (command, (what, job, len_max)) in [config, trace, state].into_iter().zip(expected) {
        let expected = Rejection::TooLong {
            what: what.to_owned(),
            job,
            len: len_max + 1,
            len_max,
        };
        assert_eq!(harness.refuse(command).await, expected);
    }
}

pub async fn the_longest_trace_context_is_accepted<S: Store>(harness: &mut Harness<S>) {
    let trace = Some("x".repeat(TRACE_LEN_MAX));
    let job = NewJob {
        trace: trace.clone(),
        ..new_job(1)
    };
    harness.spawn_one(job).await;
    assert_eq!(harness.claim_one().await.trace, trace);
}

pub async fn too_many_entries_are_refused<S: Store>(harness: &mut Harness<S>) {
    harness.start(1).await;
    let many = BATCH_LEN_MAX as u128 + 1;
    let runs = || (1..=many).map(|n| harness.nth(n, 1));
    let finishes = runs().map(|run| Finish {
        run,
        outcome: Outcome::Completed,
    });
    let types = || (0..=TYPES_MAX).map(|n| JobType::from(format!("type {n}")));
    let halves = ["a", "b"].map(|name| quota(JobType::new(name), BATCH_LEN_MAX as u32 / 2 + 1));
    let batches = vec![
        Command::Spawn(new_jobs(many)),
        Command::Finish(finishes.collect()),
        Command::Heartbeat(Heartbeat {
            runs: runs().collect(),
            lease: LEASE,
        }),
        Command::Reclaim(Reclaim {
            policies: Vec::new(),
            jobs_max: BATCH_LEN_MAX as u32 + 1,
        }),
        Command::Claim(harness.new_claim(halves.into())),
    ];
    for rejection in harness.refuse_all(batches).await {
        assert!(
            matches!(rejection, Rejection::TooMany { len_max, .. } if len_max == BATCH_LEN_MAX)
        );
    }
    let quotas = types().map(|job_type| quota(job_type, 0)).collect();
    let long_lists = vec![
        Command::Claim(harness.new_claim(quotas)),
        Command::Reclaim(Reclaim {
            policies: types().map(policy).collect(),
            jobs_max: 1,
        }),
    ];
    for rejection in harness.refuse_all(long_lists).await {
        let expected = Rejection::TooMany {
            len: TYPES_MAX + 1,
            len_max: TYPES_MAX,
        };
        assert_eq!(rejection, expected);
    }
}

pub async fn a_batch_with_one_refused_job_creates_none<S: Store>(harness: &mut Harness<S>) {
    let refused = NewJob {
        job_type: JobType::new(""),
        ..new_job(2)
    };
    let batch = vec![new_job(1), refused, new_job(3)];
    harness.refuse(Command::Spawn(batch)).await;
    assert_eq!(harness.find(id(1)).await, None);
}
