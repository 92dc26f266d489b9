//! Texts that come back to the letter, and numbers at the ends of their range.

use std::time::Duration;

use job_engine::limits::ERROR_LEN_MAX;
use job_engine::store::{NewJob, Outcome, Spawned, Written};
use job_engine::{Due, JobId, JobType, Run, Timestamp};
use uuid::Uuid;

use crate::conformance::Harness;
use crate::conformance::fixtures::{
    LEASE, MAIL, SECOND, START, error, id, json, new_job, policy, quota,
};
use crate::store::Store;

const TEN_MEGABYTES: usize = 10 * 1024 * 1024;

/// Texts that a database which looks into them would change: escapes, NUL
/// among them, whitespace, the order and number of keys, numbers.
const JSON_TEXTS: [&str; 12] = [
    r#""\u0000""#,
    r#"{"a\u0000b":"\u0000c\u0000"}"#,
    "\"\u{1f600} äöü \u{10ffff} \u{2028}\"",
    r#""\ud83d\ude00 \u00e9 \" \\ \/ \b\f\n\r\t""#,
    " {\n\t\"a\" : 1 ,\r\n \"b\":[ ] }  ",
    r#"{"b":1,"a":2,"b":3}"#,
    "[1.0, 1e2, -0, 0.10, 123456789012345678901234567890, 1E400]",
    "null",
    "true",
    "0",
    r#""""#,
    r#""' ; -- $1 ?1 :a @b %s {} /* */""#,
];

pub async fn a_config_of_ten_megabytes_is_kept<S: Store>(harness: &mut Harness<S>) {
    let config = json(&format!("\"{}\"", "\\u0000é".repeat(TEN_MEGABYTES / 8)));
    let big = NewJob {
        config: config.clone(),
        ..new_job(1)
    };
    // Beside others of its kind in one batch.
    let bigs = (2..=4).map(|n| NewJob {
        id: id(n),
        ..big.clone()
    });
    harness
        .spawn([big.clone()].into_iter().chain(bigs).collect())
        .await;
    assert_eq!(harness.claim_one().await.config, config);
    assert_eq!(harness.job(4).await.config, config);
}

pub async fn a_state_of_ten_megabytes_is_kept<S: Store>(harness: &mut Harness<S>) {
    let run = harness.start(1).await;
    let state = format!("\"{}\"", "x".repeat(TEN_MEGABYTES));
    assert_eq!(harness.checkpoint(run, &state).await, Written::Applied);
    harness.finish(run, Outcome::Released).await;
    assert_eq!(harness.claim_one().await.state, Some(json(&state)));
}

pub async fn json_comes_back_to_the_letter<S: Store>(harness: &mut Harness<S>) {
    for (text, n) in JSON_TEXTS.into_iter().zip(1..) {
        let config = json(text);
        harness
            .spawn_one(NewJob {
                config,
                ..new_job(n)
            })
            .await;
        let claimed = harness.claim_one().await;
        assert_eq!(claimed.config.as_str(), text);
        harness.checkpoint(claimed.run, text).await;
        let state = harness.live(n).await.state.expect("it was kept");
        assert_eq!(state.as_str(), text);
        assert_eq!(harness.job(n).await.config.as_str(), text);
    }
}

pub async fn an_error_comes_back_to_the_letter<S: Store>(harness: &mut Harness<S>) {
    let long = "é".repeat(ERROR_LEN_MAX);
    let texts = [
        "",
        "line one\nline two\r\n\ttabbed",
        "quotes ' \" ` and \\ and \\u0000 and {}",
        "\u{1f600} äöü \u{fffd} \u{7f} \u{1}",
        "a\0b",
        &long,
    ];
    for (text, n) in texts.into_iter().zip(1..) {
        let run = harness.start(n).await;
        let expected = error(text);
        let outcome = Outcome::Errored {
            error: expected.clone(),
        };
        harness.finish(run, outcome).await;
        assert_eq!(harness.job(n).await.runs[0].error, Some(expected));
    }
}

pub async fn a_job_type_can_hold_any_character_but_nul<S: Store>(harness: &mut Harness<S>) {
    let names = [
        " ",
        "two words",
        "'; DROP TABLE job_live; --",
        "\"quoted\" \\back\\",
        "[\"json\"]",
        "{\"a\":1}",
        "line\nbreak\t",
        "ünïcode \u{1f600}",
        "%_*?",
        "1",
        "null",
    ];
    for (name, n) in names.into_iter().zip(1..) {
        let job_type = JobType::new(name);
        let job = NewJob {
            job_type: job_type.clone(),
            unique_type: true,
            ..new_job(n)
        };
        assert_eq!(harness.spawn_one(job).await, Spawned::Created);
        let claimed = harness.claim_type(job_type.clone(), 1).await;
        assert_eq!(claimed.jobs[0].job_type.as_str(), name);
        harness.advance(LEASE);
        let reclaimed = harness.reclaim_with(vec![policy(job_type)], 1).await;
        assert_eq!(reclaimed[0].job_type.as_str(), name);
    }
}

pub async fn an_empty_trace_context_is_not_a_missing_one<S: Store>(harness: &mut Harness<S>) {
    let traces = [Some(String::new()), None, Some("é' \"\\".to_owned())];
    for (trace, n) in traces.into_iter().zip(1..) {
        let job = NewJob {
            trace: trace.clone(),
            ..new_job(n)
        };
        harness.spawn_one(job).await;
        assert_eq!(harness.job(n).await.trace, trace);
        assert_eq!(harness.claim_one().await.trace, trace);
    }
}

pub async fn the_ends_of_time_can_be_due<S: Store>(harness: &mut Harness<S>) {
    let due = |at, n| NewJob {
        due: Due::At(at),
        ..new_job(n)
    };
    harness
        .spawn(vec![due(Timestamp::MIN, 1), due(Timestamp::MAX, 2)])
        .await;
    let claimed = harness.claim_type(MAIL, 10).await;
    assert_eq!(claimed.jobs.len(), 1);
    assert_eq!(claimed.jobs[0].due_at, Timestamp::MIN);
    assert_eq!(claimed.next_due, [(MAIL, Timestamp::MAX)]);
    let due = Due::At(Timestamp::MIN);
    harness
        .finish(harness.nth(1, 1), Outcome::Rescheduled { due })
        .await;
    assert_eq!(harness.live(1).await.due_at, Timestamp::MIN);
    harness.set_now(Timestamp::MAX);
    assert_eq!(harness.claim_type(MAIL, 10).await.jobs.len(), 2);
}

pub async fn the_ends_of_time_can_be_now<S: Store>(harness: &mut Harness<S>) {
    for (now, n) in [
        (Timestamp::MIN, 1),
        (Timestamp::EPOCH, 2),
        (Timestamp::MAX, 3),
    ] {
        harness.set_now(now);
        let run = harness.start(n).await;
        assert_eq!(harness.job(n).await.spawned_at, now);
        harness.heartbeat(run).await;
        harness.finish(run, Outcome::Completed).await;
        assert_eq!(harness.job(n).await.runs[0].ended_at, now);
    }
}

pub async fn the_longest_durations_are_capped_at_the_end_of_time<S: Store>(
    harness: &mut Harness<S>,
) {
    let due = Due::In(Duration::MAX);
    harness.spawn_one(NewJob { due, ..new_job(1) }).await;
    assert_eq!(harness.live(1).await.due_at, Timestamp::MAX);

    harness.spawn_one(new_job(2)).await;
    let mut claim = harness.new_claim(vec![quota(MAIL, 1)]);
    claim.lease = Duration::MAX;
    harness.claim(&claim).await;
    let lease = harness.live(2).await.lease.expect("it runs");
    assert_eq!(lease.expires_at, Timestamp::MAX);
    harness.repeat_claim(&claim).await;
    harness
        .heartbeat_for(vec![harness.nth(2, 1)], Duration::MAX)
        .await;
    assert_eq!(harness.reclaim().await, []);

    let retried = Outcome::Retried {
        delay: Duration::MAX,
        attempt: 2,
        error: error("no route"),
    };
    harness.finish(harness.nth(2, 1), retried).await;
    assert_eq!(harness.live(2).await.due_at, Timestamp::MAX);

    let third = harness.start(3).await;
    harness.finish(third, Outcome::Rescheduled { due }).await;
    assert_eq!(harness.live(3).await.due_at, Timestamp::MAX);

    harness.start(4).await;
    harness.advance(LEASE);
    let mut policy = policy(MAIL);
    policy.healthy_after = Duration::MAX;
    assert_eq!(harness.reclaim_with(vec![policy], 1).await.len(), 1);
    assert_eq!(harness.live(4).await.attempt, 2);
}

pub async fn a_fraction_of_a_microsecond_is_rounded_up<S: Store>(harness: &mut Harness<S>) {
    let due = Due::In(Duration::from_nanos(1_001));
    harness.spawn_one(NewJob { due, ..new_job(1) }).await;
    let due_at = Timestamp::from_micros(START.as_micros() + 2);
    assert_eq!(harness.live(1).await.due_at, due_at);
}

pub async fn attempts_are_counted_to_the_end_of_31_bits<S: Store>(harness: &mut Harness<S>) {
    const COUNT_MAX: u32 = i32::MAX as u32;
    let mut started = harness.start(1).await;
    for attempt in [COUNT_MAX, u32::MAX] {
        let retried = Outcome::Retried {
            delay: SECOND,
            attempt,
            error: error("no route"),
        };
        harness.finish(started, retried).await;
        harness.advance(SECOND);
        let claimed = harness.claim_one().await;
        assert_eq!(claimed.attempt, COUNT_MAX);
        started = claimed.run;
    }
    // And a crash counts no further.
    let mut policy = policy(MAIL);
    policy.attempts_max = Some(COUNT_MAX);
    policy.crashes_max = Some(u32::MAX);
    harness.advance(LEASE);
    let reclaimed = harness.reclaim_with(vec![policy], 1).await;
    assert_eq!(reclaimed[0].attempt, COUNT_MAX);
    assert_eq!(harness.live(1).await.attempt, COUNT_MAX);
}

pub async fn tokens_and_claim_numbers_use_all_their_bits<S: Store>(harness: &mut Harness<S>) {
    for (number, n) in [i64::MIN, -1, 0, 1 << 53, (1 << 53) + 1, i64::MAX]
        .into_iter()
        .zip(1..)
    {
        let job = NewJob {
            token: number,
            ..new_job(n)
        };
        harness.spawn_one(job.clone()).await;
        assert_eq!(harness.spawn_one(job.clone()).await, Spawned::Created);
        let token = number ^ 1;
        let another = harness.spawn_one(NewJob { token, ..job }).await;
        assert_eq!(another, Spawned::DuplicateId, "{number}");
        let mut claim = harness.new_claim(vec![quota(MAIL, 1)]);
        claim.id.seq = number;
        assert_eq!(harness.claim(&claim).await.jobs.len(), 1);
        assert_eq!(harness.repeat_claim(&claim).await.jobs.len(), 1);
        let lease = harness.live(n).await.lease.expect("it runs");
        assert_eq!(lease.claim_seq, number);
    }
}

pub async fn all_uuids_are_ids<S: Store>(harness: &mut Harness<S>) {
    for uuid in [
        Uuid::nil(),
        Uuid::max(),
        Uuid::from_u128(0x22_00_27_5c << 96),
    ] {
        let job = JobId(uuid);
        harness
            .spawn_one(NewJob {
                id: job,
                ..new_job(1)
            })
            .await;
        let claimed = harness.claim_one().await;
        assert_eq!(claimed.run.job, job);
        let run = Run { job, ..claimed.run };
        assert_eq!(harness.heartbeat(run).await, Written::Applied);
        let written = harness.finish(run, Outcome::Completed).await;
        assert_eq!(written, Written::Applied);
        assert_eq!(harness.find(job).await.map(|found| found.id), Some(job));
    }
}
