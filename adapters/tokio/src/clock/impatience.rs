//! Tests: a manual clock whose patience ends.

use std::future::poll_fn;
use std::panic::Location;
use std::sync::Arc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use chrono::DateTime;
use tokio::task::yield_now;

use super::activity::{BusyGuard, Cause, CauseKind};
use super::manual::{ManualClock, ManualSleep};
use super::participant::Participant;

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

/// Awaits what never comes, on a clock on which a task sleeps; returns the message.
async fn message_of_a_wait<F>(never: impl FnOnce(Arc<ManualClock>) -> F) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let clock = impatient_clock();
    let duration = Duration::from_secs(60);
    let sleep = ManualSleep::new(Arc::clone(&clock), duration, Location::caller());
    let never = never(Arc::clone(&clock));
    let wait = tokio::spawn(async move { clock.wait_for(never, Location::caller()).await });
    let panic = wait.await.unwrap_err().into_panic();
    drop(sleep);
    *panic.downcast::<String>().unwrap()
}

#[tokio::test]
async fn a_wait_for_what_never_comes_ends_with_who_sleeps_until_when() {
    let message = message_of_a_wait(|_| std::future::pending()).await;
    for part in [
        "what is waited for at adapters/tokio/src/clock/impatience.rs:",
        "for 20ms of real time nobody moved the clock",
        "The clock stands at 1970-01-01 00:00:00 UTC; a sleep lasts until 1970-01-01 00:01:00 UTC",
        "Advance the clock",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn a_wait_that_asks_again_and_again_ends_as_well() {
    let message = message_of_a_wait(|clock| async move {
        loop {
            drop(guard(&clock));
            yield_now().await;
        }
    });
    assert!(message.await.contains("Advance the clock"));
}

/// As long as a guard lives, there is no end to its patience.
#[tokio::test]
async fn a_wait_goes_on_while_something_is_busy() {
    let clock = impatient_clock();
    let busy = guard(&clock);
    let (tell, told) = tokio::sync::oneshot::channel();
    // It is real work that takes longer than the patience; a thread stands in for it.
    let work = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        tell.send(()).unwrap();
        drop(busy);
    });
    clock.wait_for(told, Location::caller()).await.unwrap();
    work.join().unwrap();
}

#[tokio::test]
async fn a_clock_is_forgotten_when_someone_sleeps_and_nobody_does_anything() {
    let clock = impatient_clock();
    let sleep = |secs| {
        let duration = Duration::from_secs(secs);
        ManualSleep::new(Arc::clone(&clock), duration, Location::caller())
    };
    let begin = clock.signs();
    assert!(clock.stands_still_since(begin) && !clock.is_forgotten_since(begin));
    let long = sleep(60);
    assert!(clock.stands_still_since(begin) && !clock.is_forgotten_since(begin));
    let begin = clock.signs();
    assert!(clock.is_forgotten_since(begin));

    // A poll begins no sleep, and a call from outside has no consequences.
    poll_fn(|context| Poll::Ready(long.poll(context).is_pending())).await;
    drop(guard(&clock));
    assert!(clock.is_forgotten_since(begin));

    let busy = guard(&clock);
    assert!(!clock.stands_still_since(begin) && !clock.is_forgotten_since(begin));
    let begin = clock.signs();
    drop(busy);
    assert!(!clock.stands_still_since(begin) && !clock.is_forgotten_since(begin));

    let begin = clock.signs();
    drop(sleep(1));
    assert!(clock.stands_still_since(begin) && !clock.is_forgotten_since(begin));

    let begin = clock.signs();
    clock.advance(Duration::ZERO).await;
    assert!(!clock.stands_still_since(begin) && !clock.is_forgotten_since(begin));

    let begin = clock.signs();
    Participant::new(Some(clock.activity()), Location::caller(), async {}).await;
    assert!(!clock.stands_still_since(begin) && !clock.is_forgotten_since(begin));
}

#[test]
fn whoever_watches_a_clock_does_not_keep_it_alive() {
    let clock = impatient_clock();
    clock
        .net()
        .set_patience(&clock, Some(Duration::from_secs(3_600)));
    drop(ManualSleep::new(
        Arc::clone(&clock),
        Duration::from_secs(60),
        Location::caller(),
    ));
    let gone = Arc::downgrade(&clock);
    drop(clock);
    assert!(gone.upgrade().is_none());
}
