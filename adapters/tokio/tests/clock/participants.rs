//! What a manual clock waits for.

use std::pin::pin;
use std::sync::Arc;

use job_tokio::ClockHandle;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::yield_now;

use crate::support::{Log, after, manual, on_each_runtime, poll, secs, two_threads};

/// Sleeps, yields and looks at the clock, again and again: exact each time.
async fn tick(clock: ClockHandle, period: i64, until: i64, yields: usize) {
    let mut expected = 0;
    while expected + period <= until {
        expected += period;
        clock.sleep(secs(period.unsigned_abs())).await;
        assert_eq!(clock.now(), after(expected), "after the sleep");
        for _ in 0..yields {
            yield_now().await;
        }
        assert_eq!(clock.now(), after(expected), "after the yields");
    }
}

#[test]
fn participants_that_yield_between_their_sleeps_see_exact_times() {
    let runtime = two_threads();
    for repeat in 0..1_000 {
        runtime.block_on(async {
            let (clock, controller) = manual();
            let tasks: Vec<_> = [(1, 3), (2, 0), (3, 7), (4, 1)]
                .into_iter()
                .map(|(period, yields)| {
                    let ticks = tick(clock.clone(), period, 24, yields);
                    tokio::spawn(clock.participate(ticks))
                })
                .collect();
            assert_eq!(controller.advance(secs(24)).await, 24 + 12 + 8 + 6);
            for task in tasks {
                let failed = format!("repeat {repeat}");
                task.await.expect(&failed);
            }
        });
    }
}

#[test]
fn a_participant_that_joins_others_and_passes_messages_sees_exact_times() {
    let runtime = two_threads();
    for _ in 0..200 {
        runtime.block_on(async {
            let (clock, controller) = manual();
            let (sender, mut receiver) = mpsc::channel(1);
            let sees = clock.clone();
            let parent = tokio::spawn(clock.participate(async move {
                for i in 1..=20 {
                    let child = sees.clone();
                    let child = tokio::spawn(sees.participate(async move {
                        child.sleep(secs(1)).await;
                        yield_now().await;
                        child.now()
                    }));
                    assert_eq!(child.await.unwrap(), after(i));
                    assert_eq!(sees.now(), after(i), "after the join");
                    sender.send(i).await.unwrap();
                }
            }));
            let sees = clock.clone();
            let consumer = tokio::spawn(clock.participate(async move {
                while let Some(i) = receiver.recv().await {
                    assert_eq!(sees.now(), after(i), "after the message");
                }
            }));
            let ticker = tokio::spawn(clock.participate(tick(clock.clone(), 1, 30, 2)));
            controller.advance(secs(30)).await;
            for task in [parent, consumer, ticker] {
                task.await.unwrap();
            }
        });
    }
}

#[test]
fn a_participant_that_uses_up_its_budget_sees_exact_times() {
    on_each_runtime(|| async {
        let (clock, controller) = manual();
        let sees = clock.clone();
        let greedy = tokio::spawn(clock.participate(async move {
            for i in 1..=20 {
                sees.sleep(secs(1)).await;
                let (sender, mut receiver) = mpsc::unbounded_channel();
                // tokio lets a task take some 128 before it makes it wait.
                (0..500).for_each(|n| sender.send(n).unwrap());
                drop(sender);
                while receiver.recv().await.is_some() {}
                assert_eq!(sees.now(), after(i));
            }
        }));
        let ticker = tokio::spawn(clock.participate(tick(clock.clone(), 1, 30, 0)));
        controller.advance(secs(30)).await;
        greedy.await.unwrap();
        ticker.await.unwrap();
    });
}

#[test]
fn a_participant_is_waited_for_from_the_moment_it_is_made() {
    on_each_runtime(|| async {
        let (clock, controller) = manual();
        let task = tokio::spawn(clock.participate(tick(clock.clone(), 5, 20, 2)));
        assert_eq!(controller.advance(secs(20)).await, 4);
        task.await.unwrap();
    });
}

#[test]
fn a_participant_may_move_the_clock_itself() {
    on_each_runtime(|| async {
        let (clock, controller) = manual();
        let ticker = tokio::spawn(clock.participate(tick(clock.clone(), 1, 20, 1)));
        let sees = clock.clone();
        let mover = tokio::spawn(clock.participate(async move {
            let own = tick(sees.clone(), 2, 20, 1);
            let (woken, ()) = tokio::join!(controller.advance(secs(20)), own);
            (woken, sees.now())
        }));
        assert_eq!(mover.await.unwrap(), (30, after(20)));
        ticker.await.unwrap();
    });
}

#[test]
fn a_participant_may_leave_a_sleep_unpolled_while_it_waits_for_another() {
    on_each_runtime(|| async {
        let (clock, controller) = manual();
        let sees = clock.clone();
        let task = tokio::spawn(clock.participate(async move {
            let mut limit = pin!(sees.sleep(secs(3)));
            assert!(poll(&mut limit).await.is_pending());
            // The limit is over in the middle of this.
            sees.sleep(secs(5)).await;
            assert_eq!(sees.now(), after(5));
            limit.await;
            sees.now()
        }));
        assert_eq!(controller.advance(secs(10)).await, 2);
        assert_eq!(task.await.unwrap(), after(5));
    });
}

#[tokio::test]
async fn the_clock_waits_for_a_guard_and_goes_on_when_it_is_dropped() {
    let (clock, controller) = manual();
    let sees = clock.clone();
    let log = Log::new();
    let entries = log.clone();
    let (reply, replied) = oneshot::channel();
    // A store call, say: the answer comes from somewhere else.
    tokio::spawn(clock.participate(async move {
        sees.sleep(secs(1)).await;
        let busy = sees.busy();
        replied.await.unwrap();
        entries.push(sees.now());
        drop(busy);
    }));
    let call = tokio::spawn(async move { controller.advance(secs(5)).await });
    for _ in 0..1_000 {
        yield_now().await;
    }
    assert!(!call.is_finished());
    assert_eq!(clock.now(), after(1));
    reply.send(()).unwrap();
    assert_eq!(call.await.unwrap(), 1);
    assert_eq!((clock.now(), log.take()), (after(5), vec![after(1)]));
}

#[tokio::test]
async fn a_participant_that_ended_or_was_dropped_is_not_waited_for() {
    let (clock, controller) = manual();
    let notify = Arc::new(Notify::new());
    let mut ended = pin!(clock.participate(notify.clone().notified_owned()));
    assert!(poll(&mut ended).await.is_pending());
    notify.notify_one();
    assert!(poll(&mut ended).await.is_ready());

    let waits = Arc::clone(&notify);
    let mut dropped = Box::pin(clock.participate(async move { waits.notified().await }));
    assert!(poll(&mut dropped).await.is_pending());
    notify.notify_one();
    drop(dropped);
    drop(clock.participate(async {}));

    let aborted = tokio::spawn(clock.participate(std::future::pending::<()>()));
    aborted.abort();
    assert!(aborted.await.unwrap_err().is_cancelled());
    assert_eq!(controller.advance(secs(1)).await, 0);
    assert_eq!(clock.now(), after(1));
}

#[tokio::test]
async fn a_participant_that_panics_is_not_waited_for() {
    let (clock, controller) = manual();
    let sees = clock.clone();
    let panics = tokio::spawn(clock.participate(async move {
        sees.sleep(secs(1)).await;
        panic!("on purpose");
    }));
    assert_eq!(controller.advance(secs(2)).await, 1);
    assert!(panics.await.unwrap_err().is_panic());
    assert_eq!(controller.advance(secs(2)).await, 0);
}

#[tokio::test]
async fn other_clocks_wait_for_nobody() {
    let clock = ClockHandle::realtime();
    let _busy = clock.busy();
    assert_eq!(clock.participate(async { 5 }).await, 5);
}
