//! What the test of an application holds in its hands.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use job::{JobState, Jobs};
use job_engine::JobId;
use job_engine::draw::mix_words;
use job_engine::history::Snapshot;
use job_tokio::to_datetime;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::UNSETTLED;
use crate::check::Violation;
use crate::event::{Call, Who};
use crate::paused::backend::Simulated;
use crate::paused::call::Caller;
use crate::paused::process::spawning;
use crate::paused::state::World;
use crate::paused::wire::{Deliver, Message, Work};
use crate::scenario::{START, job_key};

/// How long a caller waits for another service.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often [`Sim::settle`] looks, at first and at last.
const LOOKS_EVERY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));
/// A job that is due, or runs, for so long in the calm will not end.
const STUCK_AFTER: Duration = Duration::from_secs(24 * 3_600);
/// A job that runs so often in the calm never ends.
const RUNS_MAX: usize = 1_000;
/// So many jobs are named in a message.
const NAMED_MAX: usize = 5;

/// One simulation, in the hands of the test of an application. Clones are the same one,
/// so that what stands in for other services can have it too.
///
/// The test itself is outside of all processes: nothing befalls it, and its calls of the
/// store always arrive.
#[derive(Clone)]
pub struct Sim {
    world: World,
    /// The service of the test, once it has started the workers.
    outside: Arc<Mutex<Option<Jobs<Simulated>>>>,
}

/// Another service did not answer, within 10 s: it may have done what it was asked, or
/// not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    name: String,
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer to {:?} within {SERVICE_TIMEOUT:?}", self.name)
    }
}

impl Error for Unanswered {}

impl Sim {
    pub(super) fn new(world: World) -> Self {
        let outside = Arc::default();
        Self { world, outside }
    }

    /// Starts the workers. `register` adds the initializers to the service of a process;
    /// it is called once for the test, whose service only spawns, and at every start of
    /// a worker. Returns what it returned to the test: the spawners, most likely.
    ///
    /// What it captures is shared by all processes, and outlives their crashes: it is for
    /// what stands in for the world outside.
    ///
    /// # Panics
    ///
    /// When it is called a second time.
    pub async fn start<R>(
        &self,
        register: impl Fn(&mut Jobs<Simulated>) -> R + Send + Sync + 'static,
    ) -> R {
        assert!(
            self.world.register().is_none(),
            "the workers of a simulation are started once"
        );
        let mut jobs = spawning(&self.world).await;
        let registered = register(&mut jobs);
        *self.outside.lock().unwrap_or_else(PoisonError::into_inner) = Some(jobs);
        let register = move |jobs: &mut Jobs<Simulated>| drop(register(jobs));
        self.world.registers(Some(Arc::new(register)));
        registered
    }

    /// Lets time pass, and with it all that is due or goes wrong meanwhile.
    pub async fn advance(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Lets time pass until nothing goes wrong any more, all jobs have ended, and nobody
    /// is at work: no worker either that has lost its lease and does not know. Fails the
    /// test when a job does not end: when it has been due, or at work, for a day, or has
    /// run a thousand times.
    ///
    /// Jobs that reschedule themselves for ever never end: use [`Sim::advance`] then. What
    /// a test does after the first call happens in peace.
    #[track_caller]
    pub fn settle(&self) -> impl Future<Output = ()> {
        self.settled(Location::caller())
    }

    async fn settled(&self, called_at: &'static Location<'static>) {
        let world = &self.world;
        world.sleep_until(world.calm_from_us()).await;
        let (mut wait, longest) = LOOKS_EVERY;
        let (mut seen, mut seen_us) = (Vec::new(), world.now_us());
        let runs_before = self.runs();
        loop {
            tokio::time::sleep(wait).await;
            let live = self.live();
            let (is_quiet, now_us) = (world.state().is_quiet(), world.now_us());
            if live.is_empty() && is_quiet {
                return;
            }
            let now = START.saturating_add(Duration::from_micros(now_us));
            // What waits until it is due is not stuck.
            let busy = live.iter().filter(|job| !is_due_after(job, now));
            let busy: Vec<_> = busy.map(|job| (job.id, job.runs.len())).collect();
            if busy != seen {
                (seen, seen_us) = (busy, now_us);
                wait = LOOKS_EVERY.0;
            }
            let restless = live.iter().find(|job| {
                let before = runs_before.get(&job.id).copied().unwrap_or(0);
                job.runs.len() > before + RUNS_MAX
            });
            let problem = if let Some(job) = restless {
                let job = in_words(job);
                Some(format!(
                    "{job} has run {RUNS_MAX} times since things ceased to go wrong; does it reschedule itself for ever? Use Sim::advance then"
                ))
            } else if is_quiet && seen.is_empty() {
                None
            } else {
                let is_stuck = Duration::from_micros(now_us - seen_us) >= STUCK_AFTER;
                is_stuck.then(|| unsettled(&live))
            };
            if let Some(problem) = problem {
                let text = format!("{called_at}: {problem}");
                world.state().violated(Violation::new(UNSETTLED, text));
                return std::future::pending().await;
            }
            wait = (wait * 2).min(longest);
            if is_quiet && seen.is_empty() {
                let due = live.iter().filter_map(|job| job.live.as_ref());
                let next = due.map(|live| live.due_at).min();
                wait = next.map_or(wait, |next| next.saturating_since(now));
                wait = wait.max(LOOKS_EVERY.0);
            }
        }
    }

    /// How often each live job has run.
    fn runs(&self) -> BTreeMap<JobId, usize> {
        let live = self.live().into_iter();
        live.map(|job| (job.id, job.runs.len())).collect()
    }

    fn live(&self) -> Vec<Snapshot> {
        let state = self.world.state();
        let jobs = state.model.jobs().filter(|job| job.live.is_some());
        jobs.cloned().collect()
    }

    /// The time.
    pub fn now(&self) -> DateTime<Utc> {
        let passed = Duration::from_micros(self.world.now_us());
        to_datetime(START.saturating_add(passed))
    }

    /// The seed of the simulation.
    pub fn seed(&self) -> u64 {
        self.world.scenario().seed
    }

    /// The numbers from 0 to `count`, `count` excluded: inputs of the test, such as orders
    /// to be made. When a simulation fails, it is made smaller, and some are left out.
    pub fn inputs(&self, count: u32) -> Vec<u32> {
        self.world.state().asked_for_inputs(count);
        let left_out = &self.world.scenario().left_out;
        let inputs = (0..count).filter(|input| !left_out.contains(input));
        inputs.collect()
    }

    /// A number from `from` to `to`, both included, that follows from the seed, from
    /// what it is for, and from which of these it is. It does not depend on what was
    /// drawn before, so it stays the same while a failing simulation is made smaller.
    pub fn draw(&self, what_for: &str, which: u64, (from, to): (u64, u64)) -> u64 {
        let name = what_for
            .bytes()
            .fold(0, |hash, byte| mix_words(hash, [u64::from(byte)]));
        let draw = mix_words(self.seed(), [name, which]);
        let span = u128::from(to.saturating_sub(from)) + 1;
        from + ((u128::from(draw) * span) >> 64) as u64
    }

    /// The service of the test: for [`Jobs::find`], or a transaction of its own, which
    /// [`SimulatedPool::begin`] begins. It never polls; a test in which it does fails.
    ///
    /// [`SimulatedPool::begin`]: crate::SimulatedPool::begin
    ///
    /// # Panics
    ///
    /// Before [`Sim::start`].
    pub fn jobs(&self) -> Jobs<Simulated> {
        let outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        outside.clone().expect("Sim::start comes first")
    }

    /// Makes a note in the timeline that is printed if the simulation fails; in a runner,
    /// with its process and its run.
    pub fn note(&self, text: impl AsRef<str>) {
        let of = self.world.state().at_turn();
        let of = of.filter(|(who, _)| *who != Who::OUTSIDE);
        self.world.note(of, text);
    }

    /// Calls another service, which `work` stands in for. In a runner, the call takes
    /// time both ways, and gets lost on either way like those of the store: while its
    /// process is cut off, or has an unreliable network. A runner whose process crashes
    /// never hears the answer.
    ///
    /// `name` says what is called for what, for people.
    ///
    /// # Errors
    ///
    /// [`Unanswered`] after 10 s.
    ///
    /// # Panics
    ///
    /// In a task that a runner, or the test, has started.
    pub async fn call<T: Send + 'static>(
        &self,
        name: impl Into<String>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        let name = name.into();
        let of = self.world.state().at_turn();
        let Some((who, _)) = of else {
            panic!(
                "{name:?} is asked for in a task that is neither that of a runner nor that of \
                 the test: nobody could say what befalls it. Await it in the runner instead of \
                 starting a task"
            );
        };
        let of = of.filter(|(who, _)| *who != Who::OUTSIDE);
        let Some(call) = self.world.next_call(who, Caller::OfService) else {
            return std::future::pending().await;
        };
        self.world.note(of, format!("asks for: {name}"));
        let (sender, receiver) = oneshot::channel();
        let perform = Box::new(move || {
            let reply = work();
            let deliver = move || {
                // An error means that nobody waits any longer.
                let _ = sender.send(reply);
            };
            Box::new(deliver) as Deliver
        });
        let on_its_way = Work {
            call,
            name: name.clone(),
            perform,
        };
        self.send(call, on_its_way);
        let answer = async {
            match receiver.await {
                Ok(reply) => reply,
                // It is lost.
                Err(_) => std::future::pending().await,
            }
        };
        let answered = timeout(SERVICE_TIMEOUT, answer).await;
        answered.map_err(|_| {
            self.world.note(of, format!("gets no answer to: {name}"));
            Unanswered { name }
        })
    }

    fn send(&self, call: Call, work: Work) {
        let mut message = Some(Message::ForService(work));
        let mut state = self.world.state();
        let now_us = state.now_us;
        let request = state.network.request(call, now_us);
        if let Some(travels_us) = request.travels_us
            && let Some(message) = message.take()
        {
            state.wire.send(now_us + travels_us, message);
        }
        // What is lost is dropped when nothing is held any more.
        drop(state);
        drop(message);
    }

    /// Lets go of all that could hold on to this.
    pub(super) fn end(&self) {
        self.world.end();
        let outside = self.outside.lock();
        let outside = outside.unwrap_or_else(PoisonError::into_inner).take();
        drop(outside);
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim")
            .field("seed", &self.seed())
            .field("now", &self.now())
            .finish_non_exhaustive()
    }
}

fn is_due_after(job: &Snapshot, now: job_engine::Timestamp) -> bool {
    let live = job.live.as_ref();
    live.is_some_and(|live| live.lease.is_none() && live.due_at > now)
}

fn unsettled(live: &[Snapshot]) -> String {
    let named: Vec<String> = live.iter().take(NAMED_MAX).map(in_words).collect();
    let more = live.len().saturating_sub(NAMED_MAX);
    let more = match more {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let jobs = if live.len() == 1 {
        "a job has"
    } else {
        "jobs have"
    };
    format!(
        "{jobs} not ended a day after the last thing that happened to {}: {}{more}",
        if live.len() == 1 { "it" } else { "them" },
        named.join(", ")
    )
}

fn in_words(snapshot: &Snapshot) -> String {
    let live = snapshot.live.as_ref();
    let attempt = live.map_or(0, |live| live.attempt);
    let state = match live.is_some_and(|live| live.lease.is_some()) {
        true => JobState::Running,
        false => JobState::Pending,
    };
    let error = snapshot
        .runs
        .iter()
        .rev()
        .find_map(|run| run.error.as_ref());
    let error = error.map_or(String::new(), |error| format!(", last error: {error}"));
    format!(
        "job {} of type {} ({state:?}, attempt {attempt}{error})",
        job_key(snapshot.id),
        snapshot.job_type
    )
}
