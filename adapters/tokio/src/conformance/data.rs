//! What goes in comes out; what is not allowed does not go in.

use std::time::Duration;

use job_engine::limits::{BATCH_LEN_MAX, JOB_TYPE_LEN_MAX, PAYLOAD_LEN_MAX, TRACE_LEN_MAX};
use job_engine::store::{
    Checkpoint, Claim, Command, Finish, Heartbeat, NewJob, Outcome, Spawned, TypePolicy, Written,
};
use job_engine::{Due, Payload, StoreError, Timestamp};

use super::bench::{Bench, LEASE, error, job, of, policy, run, secs};
use crate::store::Store;

/// Reading does not create.
pub async fn an_unknown_job_is_not_found<S: Store>(bench: &mut Bench<S>) {
    assert!(bench.find(job(1)).await.is_none());
}

/// Every kind of end, in order.
pub async fn a_job_is_found_with_its_whole_history<S: Store>(bench: &mut Bench<S>) {
    let retried = Outcome::Retried {
        delay: secs(1),
        attempt: 2,
        error: error("no route"),
    };
    let new = NewJob {
        unique_type: true,
        trace: Some("trace".to_owned()),
        ..bench.new_job(1, "mail")
    };
    bench.spawn_all(vec![new]).await;
    let rescheduled = Outcome::Rescheduled {
        due: Due::In(secs(2)),
    };
    for outcome in [retried, Outcome::Released, rescheduled] {
        let started = bench.claim_one(1, "mail").await;
        bench.pass(secs(1));
        bench.finish(started, outcome).await;
        bench.pass(secs(3));
    }
    bench.claim_one(1, "mail").await;
    bench.pass(LEASE);
    bench.reclaim(vec![policy("mail")], 10).await;
    bench.claim_one(1, "mail").await;
    let found = bench.read(1).await;
    assert_eq!(found.runs.len(), 4);
    assert!(
        found
            .runs
            .iter()
            .zip(1..)
            .all(|(run, fence)| run.fence.0 == fence)
    );
    assert!(found.unique_type && found.trace.as_deref() == Some("trace"));
    assert_eq!(found.fold(), Some(job_engine::lifecycle::State::Running));
}

/// White space, escapes, any character; names, too.
pub async fn texts_come_back_to_the_letter<S: Store>(bench: &mut Bench<S>) {
    let texts = [
        "null",
        " { \"a\" :  1, \"a\": 2 } ",
        r#""nul \u0000 escaped, surrogates \ud83e\udd80""#,
        "\"\u{1f980} 'quoted' \\\\ \u{7f} % _ $1 ?1 /*schema*/\"",
        "[1e400, 123456789012345678901234567890, -0.0]",
    ];
    let name = "it's a \"type\" \u{1f980} % ;--";
    for (n, text) in (1..).zip(texts) {
        let new = NewJob {
            config: Payload::from_json(text),
            ..bench.new_job(n, name)
        };
        assert_eq!(bench.spawn_all(vec![new]).await, [Spawned::Created]);
        let claimed = bench.claim(name, 1).await.remove(0);
        assert_eq!(claimed.config.as_str(), text);
        assert_eq!(bench.checkpoint(claimed.run, text).await, Written::Applied);
        let state = bench.read(n).await.live.unwrap().state.unwrap();
        assert_eq!(state.as_str(), text);
    }
}

/// And so does an execution state of that size.
pub async fn a_config_of_ten_megabytes_comes_back<S: Store>(bench: &mut Bench<S>) {
    let large = format!("\"{}\"", "0123456789".repeat(1 << 20));
    let new = NewJob {
        config: Payload::from_json(large.clone()),
        ..bench.new_job(1, "mail")
    };
    bench.spawn_all(vec![new]).await;
    let started = bench.claim_one(1, "mail").await;
    assert_eq!(bench.checkpoint(started, &large).await, Written::Applied);
    let found = bench.read(1).await;
    assert!(found.config.as_str() == large);
    assert!(found.live.unwrap().state.unwrap().as_str() == large);
}

/// Nothing overflows.
pub async fn times_and_durations_stay_in_range<S: Store>(bench: &mut Bench<S>) {
    let dues = [
        Due::At(Timestamp::MIN),
        Due::At(Timestamp::MAX),
        Due::In(Duration::MAX),
        Due::In(Duration::from_secs(1_000 * 365 * 86_400) + Duration::from_micros(1)),
        Due::In(Duration::from_nanos(1)),
    ];
    for (n, due) in (1..).zip(dues) {
        bench.spawn_due(n, "mail", due).await;
    }
    let claim = Claim {
        lease: Duration::MAX,
        ..bench.new_claim(&[("mail", 10)])
    };
    let claimed = bench.send_claim(claim).await;
    assert_eq!(claimed.jobs.len(), 1);
    let forever = TypePolicy {
        healthy_after: Duration::MAX,
        attempts_max: Some(u32::MAX),
        crashes_max: Some(u32::MAX),
        ..policy("mail")
    };
    assert!(bench.reclaim(vec![forever.clone()], 10).await.is_empty());
    let retried = Outcome::Retried {
        delay: Duration::MAX,
        attempt: u32::MAX,
        error: error("no route"),
    };
    bench.finish(claimed.jobs[0].run, retried).await;
    let live = bench.read(1).await.live.unwrap();
    assert_eq!(live.due_at, Timestamp::MAX);
    bench.now = Timestamp::MAX;
    assert_eq!(bench.claim("mail", 10).await.len(), 5);
    bench.reclaim(vec![forever], 10).await;
    bench.now = Timestamp::MIN;
    bench.spawn(9, "mail").await;
    bench.claim_one(9, "mail").await;
}

/// Whole commands, that is.
pub async fn what_is_not_allowed_is_refused_and_changes_nothing<S: Store>(bench: &mut Bench<S>) {
    let long = "x".repeat(JOB_TYPE_LEN_MAX + 1);
    let mut refused = Vec::new();
    for name in ["", "a\0b", &long] {
        let batch = vec![bench.new_job(1, "mail"), bench.new_job(2, name)];
        refused.push(Command::Spawn(batch));
        let claim = bench.new_claim(&[("mail", 1), (name, 1)]);
        refused.push(Command::Claim(claim));
        refused.push(Command::Reclaim(job_engine::store::Reclaim {
            policies: vec![policy(name)],
            jobs_max: 1,
        }));
    }
    let too_long = Payload::from_json("x".repeat(PAYLOAD_LEN_MAX + 1));
    refused.push(Command::Spawn(vec![NewJob {
        config: too_long.clone(),
        ..bench.new_job(1, "mail")
    }]));
    refused.push(Command::Spawn(vec![NewJob {
        trace: Some("x".repeat(TRACE_LEN_MAX + 1)),
        ..bench.new_job(1, "mail")
    }]));
    refused.push(Command::Checkpoint(Checkpoint {
        run: run(1, 1),
        state: too_long,
    }));
    let many = BATCH_LEN_MAX + 1;
    let batch = (0..many as u128)
        .map(|n| bench.new_job(n, "mail"))
        .collect();
    refused.push(Command::Spawn(batch));
    refused.push(Command::Claim(
        bench.new_claim(&[("mail", 600), ("sms", 401)]),
    ));
    refused.push(Command::Finish(vec![
        Finish {
            run: run(1, 1),
            outcome: Outcome::Completed,
        };
        many
    ]));
    refused.push(Command::Heartbeat(Heartbeat {
        runs: vec![run(1, 1); many],
        lease: LEASE,
    }));
    for command in refused {
        let result = bench.execute(command).await;
        assert!(matches!(result, Err(StoreError::Rejected(_))), "{result:?}");
    }
    assert!(bench.find(job(1)).await.is_none());
    // The longest that is allowed is allowed.
    let longest = "x".repeat(JOB_TYPE_LEN_MAX);
    assert_eq!(bench.spawn(1, &longest).await, Spawned::Created);
    assert_eq!(bench.claim(&longest, 1).await[0].job_type, of(&longest));
}
