//! Which job a test takes when it takes one.

use chrono::{DateTime, TimeDelta};
use job::{JobId, Jobs, Sqlite};
use serde_json::json;

use super::{DAY, Log, open};
use crate::support::{TestBackend, TestInitializer};

on_every_backend![
    the_job_that_is_due_longest_runs_first_whatever_its_type,
    the_job_that_is_due_longest_is_lost_first,
];

async fn the_job_that_is_due_longest_runs_first_whatever_its_type<B: TestBackend>() {
    let place = B::place().await;
    let mut test = open::<B>(&place).await;
    let log = Log::default();
    let a = test.add_initializer(log.initializer("a"));
    let b = test.add_initializer(log.initializer("b"));
    let c = test.add_initializer(log.initializer("c"));
    let now = test.now();
    // Those of the same time run in the order of the names of their types.
    for (spawner, n, secs) in [
        (&c, 4, -5),
        (&b, 3, -5),
        (&a, 5, -1),
        (&a, 2, -7),
        (&c, 1, -9),
        (&a, 6, 1),
    ] {
        let due_at = now + TimeDelta::seconds(secs);
        let spawned = spawner.spawn_at(JobId::new(), json!(n), due_at).await;
        spawned.unwrap();
    }
    for n in 1..=5 {
        assert!(test.run_one().await);
        assert_eq!(log.entries().last(), Some(&json!(n)));
    }
    assert!(!test.run_one().await);
    assert_eq!(test.advance(DAY).await, 1);
}

async fn the_job_that_is_due_longest_is_lost_first<B: TestBackend>() {
    let place = B::place().await;
    let mut test = open::<B>(&place).await;
    let a = test.add_initializer(TestInitializer::completing("a"));
    let b = test.add_initializer(TestInitializer::completing("b"));
    let (short, long) = (JobId::new(), JobId::new());
    let due_at = test.now() - TimeDelta::seconds(1);
    a.spawn(short, json!(1)).await.unwrap();
    b.spawn_at(long, json!(2), due_at).await.unwrap();
    assert_eq!(test.lose_one().await, Some(long));
    assert_eq!(test.lose_one().await, Some(short));
    assert_eq!(test.lose_one().await, None);
    assert_eq!(test.advance(DAY).await, 2);
}

/// They are not known before they are claimed.
#[tokio::test]
async fn jobs_of_other_services_are_taken_when_no_other_is_due() {
    let place = Sqlite::place().await;
    let mut test = open::<Sqlite>(&place).await;
    let log = Log::default();
    let spawner = test.add_initializer(log.initializer("logged"));
    let config = Sqlite::on(&place).build().unwrap();
    let mut others = Jobs::init(config).await.unwrap();
    let other = others.add_initializer(TestInitializer::<Sqlite>::completing("logged"));
    let long_ago = DateTime::UNIX_EPOCH;
    other
        .spawn_at(JobId::new(), json!("other"), long_ago)
        .await
        .unwrap();
    assert!(test.run_one().await);
    spawner.spawn(JobId::new(), json!("own")).await.unwrap();
    assert!(test.run_one().await);
    assert!(!test.run_one().await);
    assert_eq!(log.entries(), [json!("other"), json!("own")]);
}
