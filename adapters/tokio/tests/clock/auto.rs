//! The artificial clock that runs by itself. Paused time of tokio stands in for
//! real time.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use job_tokio::{
    ArtificialClockConfig, ArtificialMode, ClockController, ClockHandle, to_timestamp,
};
use tokio::time::Instant;

use crate::support::{after, poll, secs, start};

fn auto(time_scale: f64) -> (ClockHandle, ClockController) {
    ClockHandle::artificial(ArtificialClockConfig::auto_at(start(), time_scale))
}

#[tokio::test(start_paused = true)]
async fn time_runs_by_itself_so_many_times_as_fast() {
    let (clock, controller) = auto(1_000.0);
    assert!(clock.is_artificial() && !clock.is_manual());
    assert_eq!(clock.manual_now(), None);
    let begun = Instant::now();
    clock.sleep(secs(3_600)).await;
    assert_eq!(begun.elapsed(), Duration::from_millis(3_600));
    assert_eq!(clock.now(), after(3_600));
    tokio::time::sleep(secs(1)).await;
    assert_eq!(controller.now(), after(4_600));
    assert_eq!(clock.store_time(), Some(to_timestamp(after(4_600))));
}

#[tokio::test(start_paused = true)]
async fn slow_clocks_and_very_fast_ones_keep_their_promise_too() {
    let (clock, _controller) = auto(0.5);
    let begun = Instant::now();
    clock.sleep(secs(10)).await;
    assert_eq!(begun.elapsed(), secs(20));
    let (clock, _controller) = auto(1e15);
    let begun = Instant::now();
    clock.sleep(Duration::from_nanos(1)).await;
    clock.sleep_until(start() + TimeDelta::days(365)).await;
    assert!(clock.now() > start() + TimeDelta::days(365));
    assert!(begun.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn its_controller_moves_it_forward_in_addition() {
    let (clock, controller) = auto(1.0);
    let begun = Instant::now();
    let mut sleeps = [10, 20, 30].map(|wait| Box::pin(clock.sleep(secs(wait))));
    for sleep in &mut sleeps {
        assert!(poll(sleep).await.is_pending());
    }
    assert_eq!(controller.pending_wake_count(), 3);
    assert_eq!(controller.advance(secs(15)).await, 1);
    assert_eq!(controller.advance_to_next_wake().await, Some(after(20)));
    assert_eq!(clock.now(), after(20));
    assert_eq!(controller.set_time(after(5)).await, 0);
    assert_eq!(controller.set_time(after(25)).await, 0);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    for sleep in sleeps {
        sleep.await;
    }
    assert_eq!((clock.now(), begun.elapsed()), (after(30), secs(5)));
    assert_eq!(controller.pending_wake_count(), 0);
    assert_eq!(controller.advance_to_next_wake().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_sleeps_is_woken_when_its_controller_moves_it() {
    let (clock, controller) = auto(1e-6);
    let sees = clock.clone();
    let task = tokio::spawn(async move {
        sees.sleep(secs(60)).await;
        sees.now()
    });
    while controller.pending_wake_count() == 0 {
        tokio::task::yield_now().await;
    }
    controller.advance(secs(60)).await;
    assert!(task.await.unwrap() >= after(60));
}

#[tokio::test(start_paused = true)]
async fn an_endless_sleep_never_wakes() {
    let (clock, controller) = auto(1e12);
    let mut sleep = Box::pin(clock.sleep(Duration::MAX));
    assert!(
        tokio::time::timeout(secs(1_000_000), &mut sleep)
            .await
            .is_err()
    );
    assert_eq!(clock.timestamp(), to_timestamp(DateTime::<Utc>::MAX_UTC));
    assert_eq!(controller.advance(Duration::MAX).await, 0);
    assert!(poll(sleep).await.is_pending());
}

#[test]
fn a_time_scale_that_makes_no_sense_is_refused() {
    for time_scale in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let made = std::panic::catch_unwind(|| auto(time_scale));
        let panic = made.expect_err("refused").downcast::<String>().unwrap();
        assert!(
            panic.contains("must be a positive, finite number"),
            "{panic}"
        );
    }
}

#[test]
fn the_configuration_says_what_it_is() {
    let mode = ArtificialMode::AutoAdvance { time_scale: 2.0 };
    assert_eq!(ArtificialClockConfig::auto(2.0).mode, mode);
    let start_at = start();
    let config = ArtificialClockConfig::auto_at(start_at, 2.0);
    assert_eq!(config, ArtificialClockConfig { start_at, mode });
}
