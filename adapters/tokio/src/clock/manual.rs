//! The clock that stands still until it is moved.

use std::collections::BTreeMap;
use std::panic::Location;
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::task;

use super::activity::{Activity, AfterPoll, BusyGuard, Cause, CauseKind};
use super::attended;
use super::id::ClockId;
use super::net::Net;
use super::patience::Patience;
use super::sleepers::{Sleeper, SleeperId, Sleepers};
use super::sync::{Mutex, MutexGuard, ThreadId, Turns, thread, yield_now};
use crate::time::{clamp, is_reached, later};

/// How often a step of the clock lets the runtime run the tasks that the clock
/// does not know. On a runtime of one thread, a chain of so many tasks, each
/// woken by the one before, gets through.
const YIELDS: usize = 8;
/// How long a step of the clock waits, in real time, for what is busy. Longer
/// than a healthy store call takes, shorter than anyone watches a test hang.
const PATIENCE: Duration = Duration::from_secs(10);

/// So many sleeps are told of one by one.
const TOLD_MAX: usize = 5;

/// A clock that stands still until it is moved. It moves in steps, from one
/// sleeper's time to the next one's; between two of them it waits until nothing
/// is busy.
#[derive(Debug)]
pub(super) struct ManualClock {
    id: ClockId,
    state: Mutex<State>,
    activity: Arc<Activity>,
    /// Held by whoever moves the clock.
    moving: Turns<()>,
    pub(super) patience: Duration,
    net: Net,
}

/// What a clock has seen of life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signs {
    /// How often it was moved.
    moves: u64,
    /// How many sleeps were begun and how many were dropped, in all.
    sleeps: u64,
    /// See [`Activity::begun`].
    begun: u64,
    /// Whether nothing was busy at that moment.
    is_idle: bool,
}

#[derive(Debug)]
struct State {
    now: DateTime<Utc>,
    moves: u64,
    sleeps: u64,
    /// So many futures were ever attended.
    attended: u64,
    sleepers: Sleepers<Awaiter>,
    /// Sleeps of unknown tasks that are over and were not polled since.
    woken: BTreeMap<SleeperId, BusyGuard>,
}

/// Who awaits a sleep, and where the sleep was made.
#[derive(Debug)]
struct Awaiter {
    who: Who,
    /// The future that awaits it, if it is one that is attended.
    attended: Option<u64>,
    made_at: &'static Location<'static>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// A participant, which is busy by itself once it is woken.
    Participant,
    /// Some other task of tokio.
    Task(task::Id),
    /// A future that a thread blocks on.
    Thread(ThreadId),
}

impl ManualClock {
    pub(super) fn new(start_at: DateTime<Utc>) -> Self {
        Self {
            id: ClockId::draw(),
            state: Mutex::new(State {
                now: clamp(start_at),
                moves: 0,
                sleeps: 0,
                attended: 0,
                sleepers: Sleepers::new(),
                woken: BTreeMap::new(),
            }),
            activity: Activity::new(),
            moving: Turns::new(()),
            patience: PATIENCE,
            net: Net::new(),
        }
    }

    pub(super) fn id(&self) -> ClockId {
        self.id
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.state().now
    }

    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    pub(super) fn pending_wakes(&self) -> usize {
        self.state().sleepers.count()
    }

    pub(super) fn next_wake(&self) -> Option<DateTime<Utc>> {
        self.state().sleepers.next_wake()
    }

    /// Names a future that is attended.
    pub(super) fn number(&self) -> u64 {
        let mut state = self.state();
        state.attended += 1;
        state.attended
    }

    /// When the next sleep is over that an attended future awaits.
    pub(super) fn next_wake_of(&self, attended: u64) -> Option<DateTime<Utc>> {
        let state = self.state();
        let mut sleeps = state.sleepers.iter();
        let of_it = sleeps.find(|(_, awaiter)| {
            let awaiter = awaiter.and_then(|awaiter| awaiter.attended);
            awaiter == Some(attended)
        });
        of_it.map(|(wake_at, _)| wake_at)
    }

    pub(super) fn net(&self) -> &Net {
        &self.net
    }

    /// What it has seen of life up to now.
    pub(super) fn signs(&self) -> Signs {
        let (begun, is_idle) = (self.activity.begun(), self.activity.is_idle());
        let state = self.state();
        Signs {
            moves: state.moves,
            sleeps: state.sleeps,
            begun,
            is_idle,
        }
    }

    /// Whether nobody has moved it since, and nothing was busy then, was woken since or is
    /// busy now.
    ///
    /// Sleeps do not count: whoever asks again and again for what does not come may set a
    /// limit on each call.
    pub(super) fn stands_still_since(&self, before: Signs) -> bool {
        let now = self.signs();
        (now.moves, now.begun) == (before.moves, before.begun) && now.is_idle && before.is_idle
    }

    /// Whether someone sleeps on it in vain: as above, and nobody has begun or dropped a
    /// sleep either.
    pub(super) fn is_forgotten_since(&self, before: Signs) -> bool {
        self.stands_still_since(before)
            && self.signs().sleeps == before.sleeps
            && self.next_wake().is_some()
    }

    /// Awaits `future` for as long as the clock is moved, or something is busy.
    ///
    /// # Panics
    ///
    /// When for the patience of the clock nothing of this was the case.
    pub(super) async fn wait_for<F: Future>(
        &self,
        future: F,
        made_at: &'static Location<'static>,
    ) -> F::Output {
        // It is still there, with all its sleeps, when the message is made.
        let mut future = pin!(future);
        loop {
            let before = self.signs();
            let mut patience = Patience::new(self.patience);
            if let Some(output) = patience.output_of(future.as_mut()).await {
                return output;
            }
            if self.stands_still_since(before) {
                let advice = match self.next_wake() {
                    Some(_) => "Advance the clock, before or meanwhile",
                    None => "It waits for something else than the clock",
                };
                panic!(
                    "what is waited for at {made_at} has not come, and for {:?} of real time \
                     nobody moved the clock and nothing was busy. {}. {advice}",
                    self.patience,
                    self.waiting()
                );
            }
        }
    }

    /// Who sleeps until when, and where the first of them were made.
    pub(super) fn waiting(&self) -> String {
        let state = self.state();
        let mut text = format!("The clock stands at {}", state.now);
        for (wake_at, awaiter) in state.sleepers.iter().take(TOLD_MAX) {
            text += &format!("; a sleep lasts until {wake_at}");
            if let Some(awaiter) = awaiter {
                text += &format!(", made at {}", awaiter.made_at);
            }
        }
        match state.sleepers.count() {
            0 => text + ", and nobody sleeps on it",
            count if count > TOLD_MAX => text + &format!("; so do {} more", count - TOLD_MAX),
            _ => text,
        }
    }

    /// Moves the clock forward by `duration`. Returns how many it woke.
    pub(super) async fn advance(&self, duration: Duration) -> usize {
        let _moving = self.moving.lock().await;
        let mut patience = Patience::new(self.patience);
        self.settle(&mut patience).await;
        // Read under the lock, so that calls at the same time add up.
        let target = later(self.now(), duration).unwrap_or(DateTime::<Utc>::MAX_UTC);
        self.move_to(target, &mut patience).await
    }

    /// Moves the clock forward to `target`. Returns how many it woke; `None` if
    /// `target` is in the past.
    pub(super) async fn advance_to(&self, target: DateTime<Utc>) -> Option<usize> {
        let _moving = self.moving.lock().await;
        let mut patience = Patience::new(self.patience);
        self.settle(&mut patience).await;
        if target < self.now() {
            return None;
        }
        Some(self.move_to(target, &mut patience).await)
    }

    /// Moves the clock to the next wake-up, and wakes all that sleep until then.
    pub(super) async fn advance_to_next_wake(&self) -> Option<DateTime<Utc>> {
        let _moving = self.moving.lock().await;
        let mut patience = Patience::new(self.patience);
        self.settle(&mut patience).await;
        let target = self.next_wake()?;
        self.move_to(target, &mut patience).await;
        Some(target)
    }

    async fn move_to(&self, target: DateTime<Utc>, patience: &mut Patience) -> usize {
        let mut woken = 0;
        while let Some(woke) = self.step(clamp(target)) {
            woken += usize::from(woke);
            self.settle(patience).await;
        }
        woken
    }

    /// Shows the time of the next sleeper and wakes it; returns whether somebody
    /// was there to be woken. Without a sleeper up to `target`: shows `target`.
    fn step(&self, target: DateTime<Utc>) -> Option<bool> {
        let mut state = self.state();
        state.moves += 1;
        let Some((id, sleeper)) = state.sleepers.pop_due(target) else {
            state.now = state.now.max(target);
            return None;
        };
        state.now = state.now.max(id.0);
        let Some(Sleeper { waker, note }) = sleeper else {
            return Some(false);
        };
        // The task that moves the clock is polled anyway. It may keep its sleep
        // for later, and to wait for that would be to wait for itself.
        // What is attended is polled by whoever moves the clock, if not now then later.
        let is_own = note.attended.is_some() || note.who == self.current();
        if note.who != Who::Participant && !is_own {
            let busy = self.activity.begin(Cause {
                kind: CauseKind::Sleep,
                made_at: note.made_at,
            });
            state.woken.insert(id, busy);
        }
        drop(state);
        waker.wake();
        Some(true)
    }

    /// Waits until all that was woken waits again or is done.
    async fn settle(&self, patience: &mut Patience) {
        loop {
            for _ in 0..YIELDS {
                yield_now().await;
            }
            let mut idle = pin!(self.activity.idle().notified());
            idle.as_mut().enable();
            if self.activity.is_idle() {
                return;
            }
            if patience.reports_end() {
                tracing::warn!(
                    busy = %self.activity,
                    waited = ?self.patience,
                    "the manual clock goes on although not all that it woke waits again: \
                     times may be off"
                );
                // Once is enough: nobody polls these sleeps.
                let unpolled = std::mem::take(&mut self.state().woken);
                drop(unpolled);
            }
            if patience.is_over() {
                return;
            }
            patience.wait_for(idle).await;
        }
    }

    /// Who runs here.
    fn current(&self) -> Who {
        if self.activity.is_polling() {
            return Who::Participant;
        }
        match task::try_id() {
            Some(id) => Who::Task(id),
            None => Who::Thread(thread::current().id()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sleep on a manual clock.
#[derive(Debug)]
pub(super) struct ManualSleep {
    clock: Arc<ManualClock>,
    /// `None` if it never ends.
    id: Option<SleeperId>,
    made_at: &'static Location<'static>,
}

impl ManualSleep {
    pub(super) fn new(
        clock: Arc<ManualClock>,
        duration: Duration,
        made_at: &'static Location<'static>,
    ) -> Self {
        let mut state = clock.state();
        let now = state.now;
        let id = later(now, duration).map(|wake_at| state.sleepers.add(now, wake_at));
        state.sleeps += 1;
        drop(state);
        clock.net.watch(&clock);
        Self { clock, id, made_at }
    }

    pub(super) fn until(
        clock: Arc<ManualClock>,
        deadline: DateTime<Utc>,
        made_at: &'static Location<'static>,
    ) -> Self {
        let mut state = clock.state();
        let now = state.now;
        let id = is_reached(deadline).then(|| state.sleepers.add(now, deadline));
        state.sleeps += 1;
        drop(state);
        clock.net.watch(&clock);
        Self { clock, id, made_at }
    }

    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let Some(id) = self.id else {
            return Poll::Pending;
        };
        let note = Awaiter {
            who: self.clock.current(),
            attended: attended::polled_on(&self.clock),
            made_at: self.made_at,
        };
        let waker = context.waker().clone();
        let mut state = self.clock.state();
        match state.sleepers.park(id, Sleeper { waker, note }) {
            Ok(before) => {
                drop(state);
                drop(before);
                Poll::Pending
            }
            Err(_over) => {
                let busy = state.woken.remove(&id);
                drop(state);
                // The task goes on after its sleep, until it waits for the next
                // thing: busy for that long.
                if let Some(busy) = busy {
                    AfterPoll::new(busy).defer();
                }
                Poll::Ready(())
            }
        }
    }
}

impl Drop for ManualSleep {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let mut state = self.clock.state();
            state.sleeps += 1;
            let awaiter = state.sleepers.remove(id);
            let busy = state.woken.remove(&id);
            drop(state);
            drop((awaiter, busy));
        }
    }
}
