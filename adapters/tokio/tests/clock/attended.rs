//! Futures of which it is known whether they sleep.

use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use futures_util::FutureExt;
use job_tokio::ClockHandle;
use tokio::time::Instant;

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn what_is_attended_is_known_to_sleep_for_as_long_as_it_does() {
    let start = DateTime::UNIX_EPOCH;
    let (clock, controller) = ClockHandle::manual_at(start);
    let inner = clock.clone();
    let mut sleeping = clock.attend(async move {
        let long = inner.timeout(3 * HOUR, std::future::pending::<()>());
        _ = inner.timeout(HOUR, long).await;
        std::future::pending::<()>().await;
    });
    let mut other = clock.attend(std::future::pending::<()>());
    assert_eq!(sleeping.next_wake(), None);
    for future in [(&mut sleeping).now_or_never(), (&mut other).now_or_never()] {
        assert_eq!(future, None);
    }
    assert_eq!(sleeping.next_wake(), Some(start + TimeDelta::hours(1)));
    assert_eq!(other.next_wake(), None);
    controller.advance(HOUR).await;
    assert_eq!((&mut sleeping).now_or_never(), None);
    assert_eq!(sleeping.next_wake(), None);
}

/// A clock that waited for it would wait for as long as its patience lasts.
#[tokio::test]
async fn a_clock_does_not_wait_for_what_is_attended() {
    let (clock, controller) = ClockHandle::manual();
    let mut sleeping = clock.attend(clock.sleep(HOUR));
    let polled = tokio::spawn(async move {
        assert_eq!((&mut sleeping).now_or_never(), None);
        Some(sleeping)
    });
    let sleeping = polled.await.unwrap().unwrap();
    let begun = Instant::now();
    assert_eq!(controller.advance(2 * HOUR).await, 1);
    assert!(begun.elapsed() < Duration::from_secs(5));
    sleeping.await;
}

#[tokio::test]
async fn what_a_spawned_task_sleeps_is_not_that_of_who_is_attended() {
    let (clock, controller) = ClockHandle::manual();
    let inner = clock.clone();
    let mut joining = clock.attend(async move {
        let sleep = inner.sleep(HOUR);
        tokio::spawn(sleep).await.unwrap();
    });
    assert_eq!((&mut joining).now_or_never(), None);
    controller.advance(Duration::ZERO).await;
    assert_eq!(joining.next_wake(), None);
    controller.advance(HOUR).await;
    joining.await;
}
