//! The models. Each is as small as it can be and still show its point: the orders to try
//! grow faster than exponentially.

use std::future::poll_fn;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use chrono::DateTime;
use loom::sync::Mutex;

use super::activity::{BusyGuard, Cause, CauseKind};
use super::manual::{ManualClock, ManualSleep};
use super::participant::Participant;
use super::sync::{Notify, thread};

const SECOND: Duration = Duration::from_secs(1);

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(DateTime::UNIX_EPOCH))
}

fn now(clock: &ManualClock) -> i64 {
    clock.now().timestamp()
}

fn sleep(clock: &Arc<ManualClock>, secs: u32) -> ManualSleep {
    ManualSleep::new(Arc::clone(clock), secs * SECOND, Location::caller())
}

async fn end_of(sleep: ManualSleep) {
    poll_fn(|context| sleep.poll(context)).await;
}

fn participant<F: Future>(clock: &ManualClock, future: F) -> Participant<F> {
    Participant::new(Some(clock.activity()), Location::caller(), future)
}

fn busy(clock: &ManualClock) -> BusyGuard {
    let (kind, made_at) = (CauseKind::Guard, Location::caller());
    clock.activity().begin(Cause { kind, made_at })
}

/// Wakes the thread of a task. It is shared by the standard library, not by loom: a
/// waker is cloned where tokio holds a lock, and nobody else may have a turn there.
struct Task(loom::sync::Notify);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let task = Arc::new(Task(loom::sync::Notify::new()));
    let waker = Waker::from(Arc::clone(&task));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => task.0.wait(),
        }
    }
}

/// Polls once, for a task that does not care.
fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Tries all orders with at most so many turns cut short, which is where almost all
/// mistakes show; `LOOM_MAX_PREEMPTIONS` says otherwise. For models of which all orders
/// would take minutes.
fn model(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(2);
    builder.check(model);
}

/// After a model: nobody is waited for, nobody sleeps.
fn assert_all_over(clock: &ManualClock) {
    assert!(clock.activity().is_idle(), "{}", clock.activity());
    assert_eq!(clock.pending_wakes(), 0);
}

#[test]
fn two_sleepers_see_their_own_times_before_the_clock_goes_on() {
    model(|| {
        let clock = clock();
        let sleepers = [1, 2].map(|secs| {
            let sees = Arc::clone(&clock);
            let task = participant(&clock, async move {
                end_of(sleep(&sees, secs)).await;
                now(&sees)
            });
            thread::spawn(move || block_on(task))
        });
        assert_eq!(block_on(clock.advance(3 * SECOND)), 2);
        assert_eq!(now(&clock), 3);
        assert_eq!(sleepers.map(|thread| thread.join().unwrap()), [1, 2]);
        assert_all_over(&clock);
    });
}

#[test]
fn a_chain_of_participants_has_run_when_the_clock_goes_on() {
    model(|| {
        let clock = clock();
        let seen = Arc::new(Mutex::new(None));
        let message = Arc::new(Notify::new());
        let (sees, sent, sets) = (Arc::clone(&clock), Arc::clone(&message), Arc::clone(&seen));
        let mut second = Box::pin(participant(&clock, async move {
            sent.notified().await;
            *sets.lock().unwrap() = Some(now(&sees));
        }));
        // It listens, and nothing is sent before that.
        assert!(poll_once(second.as_mut()).is_pending());
        let sleep = sleep(&clock, 1);
        let first = participant(&clock, async move {
            end_of(sleep).await;
            message.notify_waiters();
        });
        let threads = [
            thread::spawn(move || block_on(first)),
            thread::spawn(move || block_on(second)),
        ];
        assert_eq!(block_on(clock.advance(2 * SECOND)), 1);
        assert_eq!(*seen.lock().unwrap(), Some(1));
        for thread in threads {
            thread.join().unwrap();
        }
        assert_all_over(&clock);
    });
}

#[test]
fn a_sleep_that_is_cancelled_while_it_is_woken_keeps_nobody() {
    loom::model(|| {
        let clock = clock();
        let sleep = sleep(&clock, 1);
        let thread = thread::spawn(move || {
            let _ = sleep.poll(&Context::from_waker(Waker::noop()));
            drop(sleep);
        });
        let woken = block_on(clock.advance(SECOND));
        assert!(woken <= 1);
        assert_eq!(now(&clock), 1);
        thread.join().unwrap();
        assert_all_over(&clock);
    });
}

#[test]
fn a_guard_that_comes_and_goes_keeps_the_clock_only_meanwhile() {
    loom::model(|| {
        let clock = clock();
        let first = busy(&clock);
        let sees = Arc::clone(&clock);
        let thread = thread::spawn(move || {
            let before = now(&sees);
            drop(first);
            drop(busy(&sees));
            before
        });
        block_on(clock.advance(SECOND));
        assert_eq!(now(&clock), 1);
        assert_eq!(
            thread.join().unwrap(),
            0,
            "the clock went on beside a guard"
        );
        assert_all_over(&clock);
    });
}

#[test]
fn a_sleep_wakes_the_task_that_it_moved_to() {
    loom::model(|| {
        let clock = clock();
        let sleep = sleep(&clock, 1);
        let thread = thread::spawn(move || {
            let _ = sleep.poll(&Context::from_waker(Waker::noop()));
            block_on(end_of(sleep));
        });
        assert!(block_on(clock.advance(SECOND)) <= 1);
        thread.join().unwrap();
        assert_all_over(&clock);
    });
}

#[test]
fn a_participant_that_sleeps_again_is_woken_again() {
    model(|| {
        let clock = clock();
        let sees = Arc::clone(&clock);
        let task = participant(&clock, async move {
            end_of(sleep(&sees, 1)).await;
            let first = now(&sees);
            end_of(sleep(&sees, 1)).await;
            (first, now(&sees))
        });
        let thread = thread::spawn(move || block_on(task));
        assert_eq!(block_on(clock.advance(3 * SECOND)), 2);
        assert_eq!(now(&clock), 3);
        assert_eq!(thread.join().unwrap(), (1, 2));
        assert_all_over(&clock);
    });
}

#[test]
fn a_participant_that_is_dropped_while_it_is_woken_is_not_waited_for() {
    loom::model(|| {
        let clock = clock();
        let (keeps, kept) = std::sync::mpsc::channel();
        let mut task = Box::pin(participant(
            &clock,
            poll_fn(move |context| {
                keeps.send(context.waker().clone()).unwrap();
                Poll::<()>::Pending
            }),
        ));
        assert!(poll_once(task.as_mut()).is_pending());
        let thread = thread::spawn(move || drop(task));
        // Whoever wakes it may keep its waker for longer than it lives.
        let waker = kept.recv().unwrap();
        waker.wake_by_ref();
        block_on(clock.advance(SECOND));
        thread.join().unwrap();
        assert_all_over(&clock);
        drop(waker);
    });
}

#[test]
fn calls_at_the_same_time_take_turns_and_add_up() {
    model(|| {
        let clock = clock();
        let sees = Arc::clone(&clock);
        let sleeper = participant(&clock, async move {
            end_of(sleep(&sees, 2)).await;
            now(&sees)
        });
        let sleeper = thread::spawn(move || block_on(sleeper));
        let moves = Arc::clone(&clock);
        let other = thread::spawn(move || block_on(moves.advance(SECOND)));
        let woken = block_on(clock.advance(SECOND)) + other.join().unwrap();
        assert_eq!((woken, now(&clock)), (1, 2));
        assert_eq!(sleeper.join().unwrap(), 2);
        assert_all_over(&clock);
    });
}
