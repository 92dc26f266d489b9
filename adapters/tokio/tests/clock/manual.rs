//! The manual clock: order, exact times, cancelling, moving.

use std::pin::pin;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use futures_util::FutureExt;
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use job_tokio::{ArtificialClockConfig, ClockHandle, ClockSleep, to_timestamp};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::Instant;

use crate::support::{Log, after, manual, on_each_runtime, poll, secs, start};

#[test]
fn clocks_and_sleeps_can_be_shared_with_other_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<ClockHandle>();
    shared::<ClockSleep>();
    shared::<job_tokio::ClockController>();
    shared::<job_tokio::BusyGuard>();
    shared::<job_tokio::ClockTimeout<ClockSleep>>();
    shared::<job_tokio::Participant<ClockSleep>>();
}

#[test]
fn a_manual_clock_stands_still_until_it_is_advanced_and_needs_no_runtime() {
    let (clock, controller) = manual();
    assert_eq!((clock.now(), controller.now()), (start(), start()));
    assert_eq!(clock.manual_now(), Some(start()));
    assert_eq!(clock.today(), NaiveDate::from_ymd_opt(1970, 1, 12).unwrap());
    assert!(clock.is_artificial() && clock.is_manual());
    let mut sleep = pin!(clock.sleep(secs(60)));
    assert!((&mut sleep).now_or_never().is_none());
    assert_eq!(controller.advance(secs(59)).now_or_never(), None);
    assert_eq!(futures_block_on(controller.advance(secs(60))), 1);
    assert_eq!(clock.now(), after(60));
    assert_eq!(clock.store_time(), Some(to_timestamp(after(60))));
    assert_eq!(sleep.now_or_never(), Some(()));
}

/// A runtime is one way to wait; this is the plainest other one.
fn futures_block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Some(output) = (&mut future).now_or_never() {
            return output;
        }
    }
}

#[test]
fn a_manual_clock_starts_at_the_real_time_in_whole_microseconds() {
    let before = ClockHandle::realtime().now();
    let config = ArtificialClockConfig::manual();
    let late = ClockHandle::realtime().now() - config.start_at;
    assert!(late >= chrono::TimeDelta::zero() && late < chrono::TimeDelta::hours(1));
    assert!(to_timestamp(config.start_at) >= to_timestamp(before));
    assert_eq!(config.start_at.timestamp_subsec_nanos() % 1_000, 0);
    let (clock, _controller) = ClockHandle::artificial(config.clone());
    assert_eq!(clock.now(), config.start_at);
}

#[test]
fn sleepers_wake_in_the_order_of_their_times_and_each_sees_its_own() {
    on_each_runtime(|| async {
        let (clock, controller) = manual();
        let log = Log::new();
        for wait in [50, 10, 40, 20, 30, 99] {
            let (sleep, clock, log) = (clock.sleep(secs(wait)), clock.clone(), log.clone());
            let task = clock.clone().participate(async move {
                sleep.await;
                log.push(clock.now());
            });
            tokio::spawn(task);
        }
        assert_eq!(controller.advance(secs(60)).await, 5);
        assert_eq!(log.take(), [10, 20, 30, 40, 50].map(after));
        assert_eq!(clock.now(), after(60));
        assert_eq!(controller.pending_wake_count(), 1);
        assert_eq!(controller.next_wake(), Some(after(99)));
    });
}

#[test]
fn ties_wake_in_the_order_in_which_the_sleeps_were_made() {
    on_each_runtime(|| async {
        let (clock, controller) = manual();
        let log = Log::new();
        let sleeps: Vec<_> = (0..100).map(|i| (i, clock.sleep(secs(7)))).collect();
        // Awaited in the opposite order.
        for (i, sleep) in sleeps.into_iter().rev() {
            let log = log.clone();
            tokio::spawn(clock.participate(async move {
                sleep.await;
                log.push(i);
            }));
        }
        assert_eq!(controller.advance(secs(7)).await, 100);
        assert_eq!(log.take(), (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn tasks_that_the_clock_does_not_know_see_exact_times_up_to_their_next_await() {
    on_each_runtime(|| async {
        for _ in 0..100 {
            let (clock, controller) = manual();
            let log = Log::new();
            let mut begun = Vec::new();
            for period in [2, 3, 5] {
                let (clock, log) = (clock.clone(), log.clone());
                let (begin, begins) = oneshot::channel();
                begun.push(begins);
                tokio::spawn(async move {
                    let mut sleep = clock.sleep(secs(period));
                    assert!(poll(&mut sleep).await.is_pending());
                    begin.send(()).unwrap();
                    loop {
                        sleep.await;
                        log.push(clock.now());
                        sleep = clock.sleep(secs(period));
                    }
                });
            }
            join_all(begun).await;
            assert_eq!(controller.advance(secs(30)).await, 15 + 10 + 6);
            let mut expected: Vec<_> = [2, 3, 5]
                .into_iter()
                .flat_map(|period| (1..=30 / period).map(move |i| after(i * period)))
                .collect();
            expected.sort();
            assert_eq!(log.take(), expected);
        }
    });
}

#[tokio::test]
async fn what_a_sleeper_wakes_runs_before_the_clock_goes_on() {
    let (clock, controller) = manual();
    let log = Log::new();
    let (mut sender, receiver) = oneshot::channel();
    {
        let (clock, log) = (clock.clone(), log.clone());
        tokio::spawn(async move {
            receiver.await.unwrap();
            log.push(clock.now());
        });
    }
    // A chain of tasks that the clock does not know, each woken by another.
    for _ in 0..6 {
        let (before, receiver) = oneshot::channel();
        tokio::spawn(async move {
            receiver.await.unwrap();
            sender.send(()).unwrap();
        });
        sender = before;
    }
    let sleeps = clock.clone();
    tokio::spawn(async move {
        sleeps.sleep(secs(1)).await;
        sender.send(()).unwrap();
        sleeps.sleep(secs(1)).await;
    });
    assert_eq!(controller.advance(secs(9)).await, 2);
    assert_eq!(log.take(), [after(1)]);
}

#[tokio::test]
async fn a_cancelled_sleep_wakes_nobody_and_cancelling_is_cheap() {
    const SLEEPS: u64 = 30_000;
    let (clock, controller) = manual();
    let begun = Instant::now();
    let mut sleeps: Vec<_> = (0..SLEEPS)
        .map(|i| Box::pin(clock.sleep(secs(1 + i))))
        .collect();
    for sleep in &mut sleeps {
        assert!(poll(sleep).await.is_pending());
    }
    assert_eq!(controller.pending_wake_count(), 30_000);
    // From the middle outwards: neither end of the queue is at hand.
    let (early, late) = sleeps.split_at_mut(15_000);
    for (early, late) in early.iter_mut().rev().zip(late) {
        early.set(clock.sleep(Duration::ZERO));
        late.set(clock.sleep(Duration::ZERO));
    }
    assert_eq!(controller.pending_wake_count(), 0);
    // Well under a second, even on a busy machine. With a walk through the queue
    // for each it would be 450 million steps.
    assert!(begun.elapsed() < secs(10));
    assert_eq!(controller.advance(secs(SLEEPS)).await, 0);
}

#[test]
fn a_sleep_wakes_the_task_that_it_moved_to() {
    on_each_runtime(|| async {
        let (clock, controller) = manual();
        let mut sleep = clock.sleep(secs(5));
        let sleep = tokio::spawn(async move {
            assert!(poll(&mut sleep).await.is_pending());
            Some(sleep)
        });
        let mut sleep = sleep.await.unwrap().unwrap();
        let (first_poll, polled) = oneshot::channel();
        let sees = clock.clone();
        let task = tokio::spawn(async move {
            assert!(poll(&mut sleep).await.is_pending());
            first_poll.send(()).unwrap();
            sleep.await;
            sees.now()
        });
        polled.await.unwrap();
        assert_eq!(controller.advance(secs(5)).await, 1);
        assert_eq!(task.await.unwrap(), after(5));
    });
}

#[tokio::test]
async fn the_task_that_moves_the_clock_may_keep_its_own_sleeps_for_later() {
    let (clock, controller) = manual();
    let begun = Instant::now();
    let mut first = pin!(clock.sleep(secs(1)));
    assert!(poll(&mut first).await.is_pending());
    // Behind a waker that is not the one of the task.
    let mut others: FuturesUnordered<_> = (2..5).map(|i| clock.sleep(secs(i))).collect();
    assert!(poll(others.next()).await.is_pending());
    assert_eq!(controller.advance(secs(9)).await, 4);
    // The clock did not run out of patience, which is 10 s.
    assert!(begun.elapsed() < secs(9));
    assert!(poll(first).await.is_ready());
    assert_eq!(others.count().await, 3);
}

#[test]
fn whoever_moves_the_clock_may_sleep_on_it_in_the_same_task() {
    on_each_runtime(|| async {
        let (clock, controller) = manual();
        let sleeper = async {
            clock.sleep(secs(3)).await;
            let first = clock.now();
            clock.sleep(secs(4)).await;
            (first, clock.now())
        };
        let (times, woken) = tokio::join!(sleeper, controller.advance(secs(10)));
        assert_eq!((times, woken), ((after(3), after(7)), 2));
    });
}

#[tokio::test]
async fn the_next_wake_is_one_step_with_all_that_share_its_time() {
    let (clock, controller) = manual();
    assert_eq!(controller.advance_to_next_wake().await, None);
    assert_eq!(clock.now(), start());
    let log = Log::new();
    for wait in [4, 4, 6] {
        let (clock, log) = (clock.clone(), log.clone());
        tokio::spawn(async move {
            clock.sleep(secs(wait)).await;
            log.push(clock.now());
        });
    }
    // The tasks have not even begun; the clock lets them.
    assert_eq!(controller.advance_to_next_wake().await, Some(after(4)));
    assert_eq!(log.take(), [after(4), after(4)]);
    assert_eq!(controller.advance_to_next_wake().await, Some(after(6)));
    assert_eq!(log.take(), [after(6)]);
    assert_eq!(controller.advance_to_next_wake().await, None);
}

#[tokio::test]
async fn the_time_can_be_set_forward_and_not_back() {
    let (clock, controller) = manual();
    let log = Log::new();
    for wait in [10, 20] {
        let (clock, log) = (clock.clone(), log.clone());
        tokio::spawn(async move {
            clock.sleep_until(after(wait)).await;
            log.push(clock.now());
        });
    }
    assert_eq!(controller.set_time(after(15)).await, 1);
    assert_eq!((clock.now(), log.take()), (after(15), vec![after(10)]));
    assert_eq!(controller.set_time(after(14)).await, 0);
    assert_eq!(clock.now(), after(15));
    assert_eq!(controller.set_time(after(15)).await, 0);
    assert_eq!(controller.set_time(after(20)).await, 1);
    assert_eq!(log.take(), [after(20)]);
}

#[test]
fn sleeps_that_are_over_at_once_wait_for_nothing() {
    let (clock, controller) = manual();
    assert_eq!(clock.sleep(Duration::ZERO).now_or_never(), Some(()));
    assert_eq!(clock.sleep_until(after(0)).now_or_never(), Some(()));
    assert_eq!(
        clock.sleep_until(DateTime::<Utc>::MIN_UTC).now_or_never(),
        Some(())
    );
    assert_eq!(controller.pending_wake_count(), 0);
}

#[tokio::test]
async fn an_endless_sleep_never_wakes_not_even_at_the_end_of_time() {
    let (clock, controller) = manual();
    let mut endless = pin!(clock.sleep(Duration::MAX));
    let mut beyond = pin!(clock.sleep_until(DateTime::<Utc>::MAX_UTC));
    let mut far = pin!(clock.sleep(secs(1_000_000_000)));
    assert!(poll(&mut endless).await.is_pending() && poll(&mut beyond).await.is_pending());
    assert!(poll(&mut far).await.is_pending());
    assert_eq!(controller.pending_wake_count(), 1);
    assert_eq!(controller.advance(Duration::MAX).await, 1);
    assert!(poll(far).await.is_ready());
    assert_eq!(
        clock.timestamp(),
        job_tokio::to_timestamp(DateTime::<Utc>::MAX_UTC)
    );
    assert_eq!(controller.advance(Duration::MAX).await, 0);
    assert!(poll(endless).await.is_pending() && poll(beyond).await.is_pending());
    let (clock, _controller) = ClockHandle::manual_at(DateTime::<Utc>::MAX_UTC);
    assert_eq!(to_timestamp(clock.now()), clock.timestamp());
}

#[test]
fn calls_at_the_same_time_take_turns_and_add_up() {
    on_each_runtime(|| async {
        let (clock, controller) = manual();
        let log = Log::new();
        let (sees, entries) = (clock.clone(), log.clone());
        tokio::spawn(clock.participate(async move {
            loop {
                sees.sleep(secs(1)).await;
                yield_now().await;
                entries.push(sees.now());
            }
        }));
        let calls = (0..10).map(|_| {
            let controller = controller.clone();
            tokio::spawn(async move { controller.advance(secs(10)).await })
        });
        let woken = join_all(calls).await.into_iter().map(Result::unwrap);
        assert_eq!(woken.sum::<usize>(), 100);
        assert_eq!(log.take(), (1..=100).map(after).collect::<Vec<_>>());
    });
}

#[tokio::test]
async fn a_call_that_is_dropped_leaves_the_clock_where_it_was() {
    let (clock, controller) = manual();
    let busy = clock.busy();
    {
        let mut call = pin!(controller.advance(secs(10)));
        for _ in 0..100 {
            assert!(poll(&mut call).await.is_pending());
            yield_now().await;
        }
        assert_eq!(clock.now(), start());
    }
    drop(busy);
    assert_eq!(controller.advance(secs(3)).await, 0);
    assert_eq!(clock.now(), after(3));
}
