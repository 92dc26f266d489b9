//! Every interleaving of two workers and two jobs with one crash and one lost
//! reply, up to a bound.
//!
//! Where the explorer draws what happens next, this tries everything that could:
//! any message arrives, any runner ends, any timer goes off; a worker
//! crashes; a reply is lost. States that were seen are not followed again.
//! As anything may be late, only the checks of safety apply.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use job_engine::lifecycle::State as JobState;
use job_engine::worker::{Action, Ended, Input, OpId};
use job_engine::{Command, Entropy, ModelStore, Reply, Run, StoreError, Timestamp, Worker};

use crate::check::{Audit, Violation};
use crate::event::{Call, Disturbance, Event, Moment, SPAWN_OPS, Who};
use crate::scenario::{
    DueSpec, Fault, JobSpec, Knobs, RetrySpec, START, Scenario, Topic, TypeSpec, WorkerSpec,
};
use job_engine::draw::mix;

/// What is explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// So many steps at most.
    pub depth: u32,
    /// So many crashes.
    pub crashes: u32,
    /// So many lost replies.
    pub losses: u32,
    /// So many timers go off.
    pub timers: u32,
    /// So many runs fail.
    pub failures: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            depth: 9,
            crashes: 1,
            losses: 1,
            timers: 3,
            failures: 1,
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Exhausted {
    /// So many different states.
    pub states: u64,
    /// So many steps from one state to another.
    pub steps: u64,
    /// So many states in which all jobs have ended.
    pub ended: u64,
    /// So many states that the bound on the depth cut off.
    pub cut: u64,
    /// A property that does not hold, and the steps that lead there.
    pub violation: Option<(Violation, Vec<String>)>,
}

/// Tries everything within the bounds, one step after the other from all states
/// that the last one led to.
pub fn exhaust(bounds: Bounds) -> Exhausted {
    let scenario = scenario();
    let mut found = Exhausted::default();
    let first = match World::new(&scenario, bounds) {
        Ok(world) => world,
        Err(violation) => {
            found.violation = Some((violation, Vec::new()));
            return found;
        }
    };
    let mut seen = HashSet::from([first.digest()]);
    let mut layer = vec![(first, Vec::new())];
    for depth in 1..=bounds.depth {
        let mut next_layer = Vec::new();
        for (world, path) in layer {
            for choice in world.choices() {
                found.steps += 1;
                let mut next = world.clone();
                let taken = next.take(&scenario, choice);
                if let Err(violation) = taken {
                    let path = path.iter().chain([&choice]).map(Choice::to_string);
                    found.violation = Some((violation, path.collect()));
                    found.states = seen.len() as u64;
                    return found;
                }
                if !seen.insert(next.digest()) {
                    continue;
                }
                found.ended += u64::from(next.all_ended());
                if depth == bounds.depth {
                    found.cut += u64::from(!next.choices().is_empty());
                } else {
                    let mut path: Vec<Choice> = path.clone();
                    path.push(choice);
                    next_layer.push((next, path));
                }
            }
        }
        layer = next_layer;
    }
    found.states = seen.len() as u64;
    found
}

/// What can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// The request at this place arrives.
    Request(usize),
    /// The reply at this place arrives.
    Reply(usize),
    /// The reply at this place is lost: its worker gives up.
    Lose(usize),
    /// A runner ends well, or fails.
    End(usize, Run, bool),
    /// The timer of a worker goes off.
    Timer(usize),
    /// A worker crashes and starts anew.
    Crash(usize),
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(place) => write!(f, "request {place} arrives"),
            Self::Reply(place) => write!(f, "reply {place} arrives"),
            Self::Lose(place) => write!(f, "reply {place} is lost"),
            Self::End(worker, run, well) => {
                let how = if *well { "completes" } else { "fails" };
                let key = crate::scenario::job_key(run.job);
                write!(f, "run {key}#{} of w{worker} {how}", run.fence)
            }
            Self::Timer(worker) => write!(f, "the timer of w{worker} goes off"),
            Self::Crash(worker) => write!(f, "w{worker} crashes and starts anew"),
        }
    }
}

#[derive(Clone, Debug)]
struct World {
    now_us: u64,
    model: ModelStore,
    audit: Audit,
    workers: Vec<Machine>,
    requests: Vec<(Call, Command)>,
    replies: Vec<(Call, Result<Reply, StoreError>)>,
    crashes_left: u32,
    losses_left: u32,
    timers_left: u32,
    failures_left: u32,
}

#[derive(Clone, Debug)]
struct Machine {
    who: Who,
    engine: Worker,
    runners: BTreeSet<Run>,
}

impl World {
    fn new(scenario: &Scenario, bounds: Bounds) -> Result<Self, Violation> {
        let mut world = Self {
            now_us: 0,
            model: ModelStore::new(),
            audit: Audit::new(scenario),
            workers: Vec::new(),
            requests: Vec::new(),
            replies: Vec::new(),
            crashes_left: bounds.crashes,
            losses_left: bounds.losses,
            timers_left: bounds.timers,
            failures_left: bounds.failures,
        };
        // Anything may be late, for ever.
        world.observe(&Event::Disturbed {
            who: None,
            until_us: u64::MAX / 4,
            by: Disturbance::Anything,
        })?;
        for job in &scenario.jobs {
            let call = Call {
                who: Who::OUTSIDE,
                op: SPAWN_OPS + u64::from(job.key),
            };
            world.apply(call, &Command::Spawn(vec![job.new_job(0)]))?;
        }
        for (place, worker) in scenario.workers.iter().enumerate() {
            let who = Who {
                worker: worker.key,
                incarnation: 1,
            };
            world.workers.push(Machine::new(scenario, who, START));
            world.up(place)?;
        }
        Ok(world)
    }

    fn up(&mut self, place: usize) -> Result<(), Violation> {
        let machine = &self.workers[place];
        let (who, id) = (machine.who, machine.engine.id());
        self.observe(&Event::Up { who, id })?;
        self.input(place, Input::TimerFired)
    }

    fn choices(&self) -> Vec<Choice> {
        let mut choices = Vec::new();
        choices.extend((0..self.requests.len()).map(Choice::Request));
        choices.extend((0..self.replies.len()).map(Choice::Reply));
        if self.losses_left > 0 {
            choices.extend((0..self.replies.len()).map(Choice::Lose));
        }
        for (place, machine) in self.workers.iter().enumerate() {
            for run in &machine.runners {
                choices.push(Choice::End(place, *run, true));
                if self.failures_left > 0 {
                    choices.push(Choice::End(place, *run, false));
                }
            }
            if self.timers_left > 0 && machine.engine.poll_timeout().is_some() {
                choices.push(Choice::Timer(place));
            }
            if self.crashes_left > 0 {
                choices.push(Choice::Crash(place));
            }
        }
        choices
    }

    fn take(&mut self, scenario: &Scenario, choice: Choice) -> Result<(), Violation> {
        match choice {
            Choice::Request(place) => {
                let (call, command) = self.requests.remove(place);
                let reply = self.apply(call, &command)?;
                self.replies.push((call, Ok(reply)));
                Ok(())
            }
            Choice::Reply(place) => {
                let (call, result) = self.replies.remove(place);
                self.answer(call, result)
            }
            Choice::Lose(place) => {
                self.losses_left -= 1;
                let (call, _) = self.replies.remove(place);
                self.answer(call, Err(StoreError::Unknown("lost".to_owned())))
            }
            Choice::End(place, run, well) => {
                let ended = if well {
                    Ended::Completed
                } else {
                    self.failures_left -= 1;
                    Ended::Failed(job_engine::ErrorText::new("as chosen"))
                };
                let machine = &mut self.workers[place];
                machine.runners.remove(&run);
                let who = machine.who;
                let event = Event::Ended {
                    who,
                    run,
                    ended: &ended,
                };
                self.observe(&event)?;
                self.input(place, Input::RunEnded { run, ended })
            }
            Choice::Timer(place) => {
                self.timers_left -= 1;
                let due = self.workers[place].engine.poll_timeout();
                let due = due.map_or(0, |at| at.saturating_since(START).as_micros() as u64);
                self.now_us = self.now_us.max(due);
                self.input(place, Input::TimerFired)
            }
            Choice::Crash(place) => {
                self.crashes_left -= 1;
                let mut who = self.workers[place].who;
                self.observe(&Event::Crashed { who })?;
                who.incarnation += 1;
                self.workers[place] = Machine::new(scenario, who, self.now());
                self.up(place)
            }
        }
    }

    fn answer(&mut self, call: Call, result: Result<Reply, StoreError>) -> Result<(), Violation> {
        let place = self
            .workers
            .iter()
            .position(|machine| machine.who == call.who);
        let Some(place) = place else {
            return self.observe(&Event::Unheard { call });
        };
        let event = Event::Answered {
            call,
            result: &result,
        };
        self.observe(&event)?;
        let op = OpId(call.op);
        self.input(place, Input::Replied { op, result })
    }

    fn apply(&mut self, call: Call, command: &Command) -> Result<Reply, Violation> {
        let reply = self.model.apply(self.now(), command);
        let reply = reply.map_err(|error| Violation::new("store.rejected", error.to_string()))?;
        let event = Event::Applied {
            call,
            command,
            reply: &reply,
        };
        self.observe(&event)?;
        Ok(reply)
    }

    fn input(&mut self, place: usize, input: Input) -> Result<(), Violation> {
        let now = self.now();
        self.workers[place].engine.handle_input(now, input);
        while let Some(action) = self.workers[place].engine.poll_action() {
            let who = self.workers[place].who;
            match action {
                Action::Execute { op, command } => {
                    let call = Call { who, op: op.0 };
                    self.observe(&Event::Sent {
                        call,
                        command: &command,
                    })?;
                    if let Some(reply) = self.finds_nothing(call, &command)? {
                        let result = Ok(reply);
                        let engine = &mut self.workers[place].engine;
                        engine.handle_input(now, Input::Replied { op, result });
                    } else {
                        self.requests.push((call, command));
                    }
                }
                Action::Start(job) => {
                    self.observe(&Event::Started { who, job: &job })?;
                    self.workers[place].runners.insert(job.run);
                }
                Action::Stop { run, reason } => {
                    self.observe(&Event::Told { who, run, reason })?;
                }
                Action::Abort(run) => {
                    self.observe(&Event::Aborted { who, run })?;
                    if self.workers[place].runners.remove(&run) {
                        let ended = Ended::Aborted;
                        let event = Event::Ended {
                            who,
                            run,
                            ended: &ended,
                        };
                        self.observe(&event)?;
                        let engine = &mut self.workers[place].engine;
                        engine.handle_input(now, Input::RunEnded { run, ended });
                    }
                }
                Action::Observe(observation) => {
                    let observation = &observation;
                    self.observe(&Event::Logged { who, observation })?;
                }
                Action::Announce(_) | Action::Stopped => {}
            }
        }
        Ok(())
    }

    /// A look for lost jobs that finds none changes nothing, whenever it arrives:
    /// it is carried out and answered at once.
    fn finds_nothing(&mut self, call: Call, command: &Command) -> Result<Option<Reply>, Violation> {
        let nothing = Reply::Reclaimed(Vec::new());
        let now = self.now();
        let lapses = |job: &job_engine::Snapshot| {
            let lease = job.live.as_ref().and_then(|live| live.lease);
            lease.is_some_and(|lease| lease.expires_at <= now)
        };
        if !matches!(command, Command::Reclaim(_)) || self.model.jobs().any(lapses) {
            return Ok(None);
        }
        self.apply(call, command)?;
        self.observe(&Event::Answered {
            call,
            result: &Ok(nothing.clone()),
        })?;
        Ok(Some(nothing))
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), Violation> {
        let now = Moment {
            true_us: self.now_us,
            store: self.now(),
        };
        self.audit.observe(now, &self.model, event)
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(START.as_micros() + self.now_us.cast_signed())
    }

    fn all_ended(&self) -> bool {
        let mut jobs = self.model.jobs();
        jobs.all(|job| matches!(job.state(), JobState::Completed | JobState::Errored))
    }

    /// All that decides what can follow, as a number.
    fn digest(&self) -> u64 {
        let mut digest = Digest(mix(self.now_us));
        let left = [
            self.crashes_left,
            self.losses_left,
            self.timers_left,
            self.failures_left,
        ];
        let machines: BTreeMap<Who, &Machine> = self
            .workers
            .iter()
            .map(|machine| (machine.who, machine))
            .collect();
        // The same messages in another order are the same.
        let mut wires: Vec<u64> = Vec::new();
        let wire = |message: &dyn fmt::Debug| {
            let mut digest = Digest(0);
            fmt::write(&mut digest, format_args!("{message:?}")).expect("a digest takes all");
            digest.0
        };
        wires.extend(self.requests.iter().map(|request| wire(request)));
        wires.extend(self.replies.iter().map(|reply| wire(reply)));
        wires.sort_unstable();
        let jobs: Vec<_> = self.model.jobs().collect();
        let all = format_args!("{left:?}{machines:?}{wires:?}{jobs:?}");
        fmt::write(&mut digest, all).expect("a digest takes all");
        digest.0
    }
}

/// Takes in text.
struct Digest(u64);

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for chunk in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0.rotate_left(25) ^ u64::from_le_bytes(word))
                .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        Ok(())
    }
}

impl Machine {
    fn new(scenario: &Scenario, who: Who, now: Timestamp) -> Self {
        let key = [u64::from(who.worker), u64::from(who.incarnation)];
        let seed = scenario.draws().seed_bytes(Topic::WorkerSeed, key);
        let knobs = &scenario.workers[who.worker as usize].knobs;
        let config = scenario.worker_config(knobs);
        Self {
            who,
            engine: Worker::new(now, config, Entropy::from_seed(seed)),
            runners: BTreeSet::new(),
        }
    }
}

/// Two workers and two jobs. Leases are short and polls rare, so that what is
/// interesting happens within few timers.
fn scenario() -> Scenario {
    let knobs = Knobs {
        jobs_max: 2,
        jobs_min: 2,
        lease_ms: 10_000,
        poll_ms: 60_000,
        poll_deaf_ms: 60_000,
        shutdown_timeout_ms: 1_000,
        ..Knobs::default()
    };
    let retry = RetrySpec {
        attempts_max: Some(2),
        min_backoff_ms: 0,
        max_backoff_ms: 0,
        jitter_pct: 0,
        reset_after_multiples: 0,
        crashes_max: None,
        undecodable_max_ms: 3_600_000,
    };
    let worker = |key| WorkerSpec {
        key,
        start_ms: 0,
        clock_ahead_ms: 0,
        clock_drift_ppm: 0,
        knobs: knobs.clone(),
    };
    let job = |key| JobSpec {
        key,
        spawn_ms: 0,
        by: None,
        parent: None,
        job_type: 0,
        unique: false,
        due: DueSpec::Now,
        again_ms: None,
        runs: Vec::new(),
    };
    Scenario {
        seed: 0,
        horizon_ms: 600_000,
        calm_from_ms: 600_000,
        latency_us: (0, 0),
        types: vec![TypeSpec {
            retries: vec![retry],
        }],
        workers: vec![worker(0), worker(1)],
        jobs: vec![job(0), job(1)],
        // That something may go wrong is all that the checks want to know.
        claimed_job_ms: 0,
        left_out: Vec::new(),
        faults: vec![Fault::Crash {
            worker: 0,
            at_ms: 600_000,
            back_ms: None,
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_breaks_within_a_few_steps() {
        let bounds = Bounds {
            depth: 5,
            ..Bounds::default()
        };
        let found = exhaust(bounds);
        assert_eq!(found.violation, None);
        assert!(found.states > 500, "{found:?}");
    }

    #[test]
    fn planted_bugs_are_found_within_a_few_steps() {
        use job_engine::planted::{self, Bug};
        for (bug, depth) in [
            (Bug::HistoryWrongEnd, 5),
            (Bug::UnknownClaimForgotten, 4),
            (Bug::ReclaimsEarly, 6),
        ] {
            let bounds = Bounds {
                depth,
                ..Bounds::default()
            };
            let found = planted::with(bug, || exhaust(bounds));
            assert!(found.violation.is_some(), "{bug}");
        }
    }
}
