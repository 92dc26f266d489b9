//! Real time, and the time of tokio.

use std::time::Duration;

use chrono::TimeDelta;
use job_tokio::{ClockHandle, to_timestamp};
use tokio::time::Instant;

use crate::support::{after, secs, start};

const YEAR: u64 = 365 * 24 * 60 * 60;

#[tokio::test(start_paused = true)]
async fn a_clock_that_follows_tokio_shows_its_time_from_a_given_start_on() {
    tokio::time::advance(secs(7)).await;
    let clock = ClockHandle::tokio_time(start());
    assert_eq!(clock.now(), start());
    assert!(clock.is_artificial() && !clock.is_manual());
    assert_eq!(clock.manual_now(), None);
    tokio::time::advance(secs(5)).await;
    assert_eq!(clock.now(), after(5));
    clock.sleep(secs(10)).await;
    assert_eq!(clock.now(), after(15));
    clock.sleep_until(after(60)).await;
    assert_eq!(clock.now(), after(60));
    assert_eq!(clock.store_time(), Some(to_timestamp(after(60))));
    let limited = clock.timeout(secs(3), std::future::pending::<()>()).await;
    assert!(limited.is_err());
    assert_eq!(clock.timestamp(), to_timestamp(after(63)));
}

#[tokio::test(start_paused = true)]
async fn sleeps_of_many_years_are_neither_cut_short_nor_a_panic() {
    for clock in [ClockHandle::realtime(), ClockHandle::tokio_time(start())] {
        let begun = Instant::now();
        clock.sleep(secs(5 * YEAR)).await;
        assert_eq!(begun.elapsed(), secs(5 * YEAR));
        for endless in [Duration::MAX, Duration::MAX / 2] {
            let sleep = clock.sleep(endless);
            assert!(tokio::time::timeout(secs(100 * YEAR), sleep).await.is_err());
        }
    }
}

#[test]
fn real_time_is_that_of_the_machine_and_leaves_the_store_its_own() {
    let clock = ClockHandle::realtime();
    assert!(!clock.is_artificial() && !clock.is_manual());
    assert_eq!((clock.store_time(), clock.manual_now()), (None, None));
    let (wall, steady) = (to_timestamp(clock.now()), clock.timestamp());
    let apart = wall
        .saturating_since(steady)
        .max(steady.saturating_since(wall));
    assert!(apart < secs(60), "{apart:?}");
    assert!(clock.timestamp() >= steady);
    assert!(ClockHandle::realtime().timestamp() >= steady);
    assert!(format!("{clock:?}").starts_with("ClockHandle(realtime, "));
}

/// Otherwise a driver whose timer is due would find that it is not, for ever.
#[tokio::test(start_paused = true)]
async fn after_a_sleep_in_real_time_so_much_time_has_passed_also_where_it_is_paused() {
    let clock = ClockHandle::realtime();
    let before = clock.timestamp();
    clock.sleep(secs(3_600)).await;
    assert_eq!(clock.timestamp().saturating_since(before), secs(3_600));
}

#[tokio::test]
async fn a_sleep_in_real_time_takes_its_time() {
    let clock = ClockHandle::realtime();
    let begun = Instant::now();
    clock.sleep(Duration::from_millis(5)).await;
    clock
        .sleep_until(clock.now() + TimeDelta::milliseconds(5))
        .await;
    assert!(begun.elapsed() >= Duration::from_millis(9));
    clock.sleep_until(clock.now() - TimeDelta::hours(1)).await;
}
