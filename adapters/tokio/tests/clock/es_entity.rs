//! Clocks of es-entity become ours.

use std::time::Duration;

use job_tokio::{ClockHandle, to_timestamp};
use tokio::sync::oneshot;

use crate::support::{after, poll, secs, start};

#[test]
fn the_real_time_of_es_entity_is_ours() {
    let clock = ClockHandle::from(es_entity::clock::ClockHandle::realtime());
    assert!(!clock.is_artificial());
    assert_eq!(clock.store_time(), None);
}

#[tokio::test]
async fn a_manual_clock_of_es_entity_is_followed() {
    let (theirs, controller) = es_entity::clock::ClockHandle::manual_at(start());
    let clock = ClockHandle::from(theirs);
    assert!(clock.is_artificial() && clock.is_manual());
    assert_eq!(clock.manual_now(), Some(start()));
    assert_eq!(clock.artificial_id(), None);
    let (begin, begun) = oneshot::channel();
    let sees = clock.clone();
    let task = tokio::spawn(async move {
        let mut first = sees.sleep(secs(5));
        assert!(poll(&mut first).await.is_pending());
        begin.send(()).unwrap();
        first.await;
        let slept = sees.now();
        let limited = sees.timeout(secs(1), std::future::pending::<()>()).await;
        sees.sleep_until(after(9)).await;
        (slept, limited.is_err(), sees.now())
    });
    begun.await.unwrap();
    controller.advance(secs(20)).await;
    assert_eq!(task.await.unwrap(), (after(5), true, after(9)));
    assert_eq!(clock.now(), after(20));
    assert_eq!(clock.store_time(), Some(to_timestamp(after(20))));
    let _busy = clock.busy();
    clock.participate(clock.sleep(Duration::ZERO)).await;
}

#[tokio::test]
async fn a_sleep_on_a_clock_of_es_entity_may_move_between_tasks() {
    let (theirs, controller) = es_entity::clock::ClockHandle::manual_at(start());
    let mut sleep = ClockHandle::from(theirs).sleep(secs(5));
    let sleep = tokio::spawn(async move {
        assert!(poll(&mut sleep).await.is_pending());
        Some(sleep)
    });
    let mut sleep = sleep.await.unwrap().unwrap();
    let (begin, begun) = oneshot::channel();
    let task = tokio::spawn(async move {
        assert!(poll(&mut sleep).await.is_pending());
        begin.send(()).unwrap();
        sleep.await;
    });
    begun.await.unwrap();
    controller.advance(secs(5)).await;
    task.await.unwrap();
}

/// Their clock drops fractions of a millisecond.
#[tokio::test]
async fn a_sleep_on_a_clock_of_es_entity_is_never_too_short() {
    let (theirs, controller) = es_entity::clock::ClockHandle::manual_at(start());
    let clock = ClockHandle::from(theirs);
    let mut short = clock.sleep(Duration::from_micros(1_500));
    let mut endless = clock.sleep(Duration::MAX);
    assert!(poll(&mut short).await.is_pending());
    controller.advance(Duration::from_millis(1)).await;
    assert!(poll(&mut short).await.is_pending());
    controller.advance(Duration::from_millis(1)).await;
    assert!(poll(&mut short).await.is_ready());
    assert!(poll(&mut endless).await.is_pending());
    assert_eq!(controller.pending_wake_count(), 0);
}
