//! Tests: a manual clock whose patience ends.

use std::future::poll_fn;
use std::panic::Location;
use std::sync::Arc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use chrono::DateTime;

use super::activity::{BusyGuard, Cause, CauseKind};
use super::manual::{ManualClock, ManualSleep};

/// Runs out of patience soon.
fn impatient_clock() -> Arc<ManualClock> {
    let mut clock = ManualClock::new(DateTime::UNIX_EPOCH);
    clock.patience = Duration::from_millis(20);
    Arc::new(clock)
}

fn guard(clock: &ManualClock) -> BusyGuard {
    let (kind, made_at) = (CauseKind::Guard, Location::caller());
    clock.activity().begin(Cause { kind, made_at })
}

#[tokio::test]
async fn the_clock_goes_on_in_the_end_although_a_guard_is_never_dropped() {
    let clock = impatient_clock();
    let _busy = guard(&clock);
    assert!(
        clock
            .activity()
            .to_string()
            .contains("1 x busy guard made at")
    );
    clock.advance(Duration::from_secs(1)).await;
    assert_eq!(clock.now().timestamp(), 1);
}

/// Real I/O has no place in a paused test; a thread that takes its time
/// stands in for it.
#[tokio::test(start_paused = true)]
async fn paused_time_of_tokio_does_not_wear_out_the_patience() {
    let mut clock = ManualClock::new(DateTime::UNIX_EPOCH);
    clock.patience = Duration::from_secs(3_600);
    let busy = guard(&clock);
    let before = tokio::time::Instant::now();
    let work = thread::spawn(move || drop(busy));
    clock.advance(Duration::from_secs(1)).await;
    work.join().unwrap();
    assert_eq!(clock.now().timestamp(), 1);
    assert_eq!(tokio::time::Instant::now(), before);
}

#[tokio::test]
async fn a_sleep_that_is_kept_unpolled_is_waited_for_only_once() {
    let clock = impatient_clock();
    let made_at = Location::caller();
    let sleep = ManualSleep::new(Arc::clone(&clock), Duration::from_secs(1), made_at);
    let polled = tokio::spawn(async move {
        poll_fn(|context| Poll::Ready(sleep.poll(context).is_pending())).await;
        sleep
    });
    let sleep = polled.await.unwrap();
    assert_eq!(clock.advance(Duration::from_secs(1)).await, 1);
    assert!(clock.activity().is_idle());
    clock.advance(Duration::from_secs(1)).await;
    assert_eq!(clock.now().timestamp(), 2);
    drop(sleep);
}
