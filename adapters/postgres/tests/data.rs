//! Values at their limits.

use std::time::Duration;

use job_engine::limits::{BATCH_LEN_MAX, ERROR_LEN_MAX, JOB_TYPE_LEN_MAX};
use job_engine::store::{Finish, Outcome, Spawned, Written};
use job_engine::{Command, Due, ErrorText, JobType, Payload, Rejection, StoreError, Timestamp};
use job_tokio::Store;

use crate::support::{
    TestDatabase, at, checkpoint, claim, claim_command, claim_one, completed, find, finish, id,
    new_job, reclaim, spawn,
};

#[tokio::test]
async fn a_config_of_10_mb_comes_back_to_the_letter() {
    let (_database, store) = TestDatabase::with_store().await;
    let config = Payload::from_json(format!("\"{}\"", "ü{\\\\".repeat(2_000_000)));
    let mut job = new_job(1, "a");
    job.config = config.clone();
    spawn(&store, at(0), vec![job]).await;
    let claimed = claim(&store, at(1), claim_command(1, 1, "a", 1)).await;
    assert!(claimed.jobs[0].config == config);
    assert!(find(&store, id(1)).await.unwrap().config == config);
    let kept = checkpoint(claimed.jobs[0].run, config.as_str());
    store.execute(None, &kept).await.unwrap();
    let live = find(&store, id(1)).await.unwrap().live.unwrap();
    assert!(live.state == Some(config));
}

#[tokio::test]
async fn a_batch_that_is_too_long_for_one_message_is_created() {
    let (_database, store) = TestDatabase::with_store().await;
    let config = Payload::from_json(format!("\"{}\"", "x".repeat(30_000_000)));
    let jobs = (0..4).map(|n| {
        let mut job = new_job(n, "a");
        job.config = config.clone();
        job
    });
    assert_eq!(
        spawn(&store, at(0), jobs.collect()).await,
        [Spawned::Created; 4]
    );
    assert!(find(&store, id(3)).await.unwrap().config == config);
}

#[tokio::test]
async fn the_largest_batch_is_carried_out() {
    let (_database, store) = TestDatabase::with_store().await;
    let jobs: Vec<_> = (0..BATCH_LEN_MAX as u128)
        .map(|n| new_job(n, "a"))
        .collect();
    spawn(&store, at(0), jobs).await;
    let command = claim_command(1, 1, "a", BATCH_LEN_MAX as u32);
    let claimed = claim(&store, at(1), command).await;
    let finishes: Vec<_> = claimed.jobs.iter().map(|job| completed(job.run)).collect();
    assert_eq!(finishes.len(), BATCH_LEN_MAX);
    let written = finish(&store, at(2), finishes).await;
    assert!(written.iter().all(|written| *written == Written::Applied));
}

#[tokio::test]
async fn json_is_kept_as_it_was_written() {
    let (_database, store) = TestDatabase::with_store().await;
    let texts = [
        " {\"b\":1,  \"a\":\"\\u0000\",\n\"a\":1.0e0}\t",
        "\"\\ud800\"",
        "123456789012345678901234567890.00",
        "null",
    ];
    for (n, text) in (0..).zip(texts) {
        let mut job = new_job(n, "a");
        job.config = Payload::from_json(text);
        spawn(&store, at(0), vec![job]).await;
        assert_eq!(find(&store, id(n)).await.unwrap().config.as_str(), text);
    }
}

#[tokio::test]
async fn what_is_not_json_is_refused_without_a_trace_of_it() {
    let (_database, store) = TestDatabase::with_store().await;
    for text in ["{secret", "\"secret\0\"", ""] {
        let mut job = new_job(1, "a");
        job.config = Payload::from_json(text);
        let reply = store.execute(None, &Command::Spawn(vec![job])).await;
        let Err(StoreError::Rejected(Rejection::Data(message))) = reply else {
            panic!("{reply:?}");
        };
        assert!(!message.contains("secret"), "{message}");
    }
    assert_eq!(find(&store, id(1)).await, None);
    // Nothing is wrong with the connection.
    assert_eq!(
        spawn(&store, at(0), vec![new_job(1, "a")]).await,
        [Spawned::Created]
    );
}

#[tokio::test]
async fn the_longest_names_and_errors_are_kept() {
    let (_database, store) = TestDatabase::with_store().await;
    let name = "ü".repeat(JOB_TYPE_LEN_MAX / 2);
    let mut job = new_job(1, "a");
    job.job_type = JobType::from(name);
    job.unique_type = true;
    spawn(&store, at(0), vec![job.clone()]).await;
    let mut command = claim_command(1, 1, "a", 1);
    command.quotas[0].job_type = job.job_type.clone();
    let claimed = claim(&store, at(1), command).await;
    assert_eq!(claimed.jobs[0].job_type, job.job_type);
    let error = ErrorText::new(&"\0\u{1f980}'\"\\\n".repeat(ERROR_LEN_MAX));
    let outcome = Outcome::Errored {
        error: error.clone(),
    };
    let run = claimed.jobs[0].run;
    finish(&store, at(2), vec![Finish { run, outcome }]).await;
    let runs = find(&store, id(1)).await.unwrap().runs;
    assert_eq!(runs[0].error, Some(error));
}

#[tokio::test]
async fn enormous_durations_end_at_the_last_time_there_is() {
    let (_database, store) = TestDatabase::with_store().await;
    let mut never = new_job(1, "a");
    never.due = Due::In(Duration::MAX);
    spawn(&store, at(0), vec![never, new_job(2, "a")]).await;
    let job = find(&store, id(1)).await.unwrap();
    assert_eq!(job.live.unwrap().due_at, Timestamp::MAX);
    let mut command = claim_command(1, 1, "a", 5);
    command.lease = Duration::MAX;
    let claimed = claim(&store, at(1), command).await;
    assert_eq!(claimed.jobs.len(), 1);
    assert_eq!(claimed.next_due, [(JobType::new("a"), Timestamp::MAX)]);
    let live = find(&store, id(2)).await.unwrap().live.unwrap();
    assert_eq!(live.lease.unwrap().expires_at, Timestamp::MAX);
    let outcome = Outcome::Retried {
        delay: Duration::MAX,
        attempt: u32::MAX,
        error: ErrorText::new("no"),
    };
    let run = claimed.jobs[0].run;
    finish(&store, at(2), vec![Finish { run, outcome }]).await;
    let live = find(&store, id(2)).await.unwrap().live.unwrap();
    // The column holds no more.
    assert_eq!(
        (live.due_at, live.attempt),
        (Timestamp::MAX, i32::MAX as u32)
    );
}

#[tokio::test]
async fn counts_stop_at_the_greatest_that_the_tables_hold() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a")]).await;
    let run = claim_one(&store, at(1), "a").await;
    let set = "UPDATE job_live SET attempt = 2147483647, crashes = 2147483647";
    sqlx::query(set).execute(store.pool()).await.unwrap();
    let lost = reclaim(&store, Timestamp::MAX, "a").await;
    assert_eq!((lost[0].run, lost[0].attempt), (run, i32::MAX as u32));
    let live = find(&store, id(1)).await.unwrap().live.unwrap();
    assert_eq!(
        (live.attempt, live.crashes),
        (i32::MAX as u32, i32::MAX as u32)
    );
}

#[tokio::test]
async fn the_first_and_the_last_time_are_times_like_others() {
    let (_database, store) = TestDatabase::with_store().await;
    let mut early = new_job(1, "a");
    early.due = Due::At(Timestamp::MIN);
    spawn(&store, Timestamp::MIN, vec![early, new_job(2, "a")]).await;
    let claimed = claim(&store, Timestamp::MIN, claim_command(1, 1, "a", 5)).await;
    assert_eq!(claimed.now, Timestamp::MIN);
    assert_eq!(claimed.jobs.len(), 2);
    let runs = claimed.jobs.iter().map(|job| completed(job.run)).collect();
    finish(&store, Timestamp::MAX, runs).await;
    let job = find(&store, id(1)).await.unwrap();
    assert_eq!(job.spawned_at, Timestamp::MIN);
    assert_eq!(job.runs[0].ended_at, Timestamp::MAX);
}
