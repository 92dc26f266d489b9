//! Level 1: the engine and the model store in a seeded event loop.
//!
//! No runtime, no tasks, no waiting: the world is a queue of what is to happen,
//! and time jumps from one of them to the next.

mod clock;
mod faults;
mod process;
mod queue;
mod runners;
mod spawns;
mod store;

use job_engine::lifecycle::RunEnd;
use job_engine::worker::{Action, Ended, Input};
use job_engine::{Command, JobType, ModelStore, Reply, Run, StoreError, Timestamp, Worker};

use crate::check::Violation;
use crate::event::{Call, Disturbance, Event, Moment, Who};
use crate::network::Network;
use crate::recorder::{Keep, Recorder, Report};
use crate::scenario::{START, Scenario, type_place};
use process::{Back, Process, Request, Waiting};
use queue::Queue;

/// Simulates a scenario to its end, or to the first violation.
pub fn run(scenario: &Scenario, keep: Keep) -> Report {
    World::new(scenario, keep).run()
}

/// A worker that gets so many inputs at one moment spins.
const INPUTS_MAX: u32 = 10_000;
/// So does one whose timer goes off so often, and nothing comes of it, within so many
/// microseconds: none has so many types that become due at different times.
const IDLE_TIMERS_MAX: u32 = 200;
const IDLE_TIMERS_US: u64 = 100_000;

struct World<'s> {
    scenario: &'s Scenario,
    now_us: u64,
    /// How far the clock of the store is ahead.
    store_ahead_us: i64,
    calm: bool,
    queue: Queue<Task>,
    model: ModelStore,
    network: Network,
    recorder: Recorder<'s>,
    /// The workers in their order, then whoever spawns from outside.
    processes: Vec<Process>,
    announcements: u64,
    inputs_now: u32,
}

/// What is to happen.
#[derive(Clone, Debug)]
enum Task {
    /// A process starts.
    Start(usize),
    /// The timer of an engine goes off.
    Timer(usize, Who),
    /// A request arrives at the store.
    Request(Box<Request>),
    /// An answer arrives at a process.
    Answer(usize, Call, Box<Result<Reply, StoreError>>),
    /// A process gives up waiting for an answer.
    GiveUp(usize, Call),
    /// A runner does something.
    Run(usize, Who, Run, Step),
    /// An announcement arrives.
    Wake(usize, Who, JobType),
    /// Announcements arrive from now on, or no longer.
    Listen(usize, Who, bool),
    /// A job is spawned: its place, whether for the second time.
    Spawn(usize, bool),
    /// A fault begins.
    Fault(usize),
    /// A process that stood still goes on.
    Resume(usize, Who),
    /// Nothing goes wrong any more.
    Calm,
    /// The simulation is over.
    End,
}

/// What a runner does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Keeps its state.
    Checkpoint,
    /// Ends as its spec says.
    End,
    /// Ends early, as it was asked to.
    Yield,
    /// Is aborted.
    Abort,
}

impl<'s> World<'s> {
    fn new(scenario: &'s Scenario, keep: Keep) -> Self {
        let network = Network::new(scenario);
        let workers = scenario.workers.iter();
        let workers = workers.map(|spec| Process::new(scenario, spec));
        Self {
            scenario,
            now_us: 0,
            store_ahead_us: 0,
            calm: false,
            queue: Queue::new(),
            model: ModelStore::new(),
            network: if keep.befell {
                network.noting()
            } else {
                network
            },
            recorder: Recorder::new(scenario, keep),
            processes: workers.chain([Process::outside(scenario)]).collect(),
            announcements: 0,
            inputs_now: 0,
        }
    }

    fn run(mut self) -> Report {
        self.schedule();
        while let Some((at_us, task)) = self.queue.pop() {
            if at_us != self.now_us {
                self.now_us = at_us;
                self.inputs_now = 0;
            }
            if matches!(task, Task::End) {
                break;
            }
            self.perform(task);
            if self.recorder.is_over() {
                break;
            }
        }
        let befell = self.network.take_befell();
        let mut report = self
            .recorder
            .finish(moment(self.now_us, self.store_ahead_us), &self.model);
        report.befell = befell;
        report
    }

    fn schedule(&mut self) {
        let scenario = self.scenario;
        for (place, worker) in scenario.workers.iter().enumerate() {
            self.queue.push(worker.start_ms * 1_000, Task::Start(place));
        }
        for (place, fault) in scenario.faults.iter().enumerate() {
            if let Some((at_ms, _)) = fault.span_ms()
                && at_ms < scenario.calm_from_ms
            {
                self.queue.push(at_ms * 1_000, Task::Fault(place));
            }
        }
        for (place, job) in scenario.jobs.iter().enumerate() {
            if job.parent.is_none() {
                self.queue
                    .push(job.spawn_ms * 1_000, Task::Spawn(place, false));
            }
            if let Some(again_ms) = job.again_ms {
                self.queue.push(again_ms * 1_000, Task::Spawn(place, true));
            }
        }
        self.queue.push(scenario.calm_from_ms * 1_000, Task::Calm);
        self.queue.push(scenario.horizon_ms * 1_000, Task::End);
    }

    fn perform(&mut self, task: Task) {
        let Some(task) = self.unless_paused(task) else {
            return;
        };
        match task {
            Task::Start(process) => self.start(process),
            Task::Timer(process, who) => self.timer(process, who),
            Task::Request(request) => self.request(*request),
            Task::Answer(process, call, result) => self.answer(process, call, *result),
            Task::GiveUp(process, call) => {
                let result = Err(StoreError::Unknown("no answer".to_owned()));
                if self.waits(process, call) {
                    self.answer(process, call, result);
                }
            }
            Task::Run(process, who, run, step) => self.step(process, who, run, step),
            Task::Wake(process, who, job_type) => {
                if self.processes[process].is(who) && self.processes[process].engine.is_some() {
                    let event = Event::Woken {
                        who,
                        job_type: &job_type,
                    };
                    self.observe(&event);
                    self.input(process, Input::Woken(job_type));
                }
            }
            Task::Listen(process, who, listening) => self.listen(process, who, listening),
            Task::Spawn(place, again) => self.spawn(place, again),
            Task::Fault(place) => self.fault(place),
            Task::Resume(process, who) => self.resume(process, who),
            Task::Calm => self.calm(),
            Task::End => {}
        }
    }

    /// The task, unless its process stands still, which then does it later.
    fn unless_paused(&mut self, task: Task) -> Option<Task> {
        let process = match &task {
            Task::Timer(process, _)
            | Task::Answer(process, ..)
            | Task::GiveUp(process, _)
            | Task::Run(process, ..)
            | Task::Wake(process, ..)
            | Task::Listen(process, ..) => *process,
            _ => return Some(task),
        };
        match &mut self.processes[process].deferred {
            Some(deferred) => {
                deferred.push(task);
                None
            }
            None => Some(task),
        }
    }

    fn start(&mut self, place: usize) {
        let now_us = self.now_us;
        if self.processes[place].alive {
            return;
        }
        if let Back::After(_, Some(knobs)) = &self.processes[place].back {
            self.processes[place].knobs = knobs.clone();
        }
        let id = self.processes[place].start(self.scenario, now_us);
        let who = self.processes[place].who;
        self.observe(&Event::Configured {
            who,
            knobs: &self.processes[place].knobs.clone(),
        });
        self.observe(&Event::Up { who, id });
        if !self.processes[place].knobs.poll_only {
            let connected_us = now_us + self.scenario.latency_us.1;
            self.queue
                .push(connected_us, Task::Listen(place, who, true));
        }
        self.set_timer(place);
    }

    fn listen(&mut self, place: usize, who: Who, listening: bool) {
        let process = &self.processes[place];
        if !process.is(who) || process.engine.is_none() {
            return;
        }
        if listening && !self.calm && !self.network.hears(who.worker, self.now_us) {
            // Tries again, as a listener does.
            let again_us = self.now_us + 1_000_000;
            self.queue.push(again_us, Task::Listen(place, who, true));
            return;
        }
        self.processes[place].connected = listening;
        self.observe(&Event::Listening { who, listening });
        self.input(place, Input::Listening(listening));
    }

    fn timer(&mut self, place: usize, who: Who) {
        let now_us = self.now_us;
        let process = &mut self.processes[place];
        if !process.is(who) || process.timer_at.is_none_or(|at_us| at_us > now_us) {
            return;
        }
        process.timer_at = None;
        let shows = process.clock.read(now_us);
        let due = process.engine.as_ref().and_then(Worker::poll_timeout);
        if due.is_some_and(|due| due <= shows) {
            let acts = self.input(place, Input::TimerFired);
            self.fired(place, acts);
        } else {
            self.set_timer(place);
        }
    }

    /// The timer of a worker went off; `acts` says whether anything came of it.
    fn fired(&mut self, place: usize, acts: bool) {
        let now_us = self.now_us;
        let process = &mut self.processes[place];
        let (since_us, count) = process.idle_timers;
        process.idle_timers = match acts || now_us - since_us > IDLE_TIMERS_US {
            true => (now_us, 0),
            false => (since_us, count + 1),
        };
        if process.idle_timers.1 > IDLE_TIMERS_MAX {
            let text = format!(
                "{}: more than {IDLE_TIMERS_MAX} timers between {since_us} and {now_us} us, and \
                 it does nothing",
                process.who
            );
            self.recorder.violated(Violation::new("pace.spins", text));
        }
    }

    fn set_timer(&mut self, place: usize) {
        let now_us = self.now_us;
        let process = &mut self.processes[place];
        let Some(timeout) = process.engine.as_ref().and_then(Worker::poll_timeout) else {
            return;
        };
        let at_us = process.late(process.clock.when(timeout, now_us));
        if process.timer_at.is_none_or(|earlier| at_us < earlier) {
            process.timer_at = Some(at_us);
            self.queue.push(at_us, Task::Timer(place, process.who));
        }
    }

    /// Feeds the engine of a process, and does what it says. Returns whether that is
    /// anything.
    fn input(&mut self, place: usize, input: Input) -> bool {
        let now_us = self.now_us;
        let process = &mut self.processes[place];
        let Some(engine) = &mut process.engine else {
            return false;
        };
        engine.handle_input(process.clock.read(now_us), input);
        self.inputs_now += 1;
        if self.inputs_now > INPUTS_MAX {
            let text = format!("more than {INPUTS_MAX} inputs at {now_us} us");
            self.recorder.violated(Violation::new("pace.spins", text));
            return false;
        }
        let mut acts = false;
        while let Some(action) = self.processes[place]
            .engine
            .as_mut()
            .and_then(Worker::poll_action)
        {
            self.act(place, action);
            acts = true;
        }
        self.set_timer(place);
        let process = &self.processes[place];
        if let Some(engine) = &process.engine {
            let now = moment(now_us, self.store_ahead_us);
            self.recorder.rests(now, process.who, engine.rests());
        }
        acts
    }

    fn act(&mut self, place: usize, action: Action) {
        let who = self.processes[place].who;
        match action {
            Action::Execute { op, command } => {
                let releases = |command: &Command| match command {
                    Command::Finish(finishes) => {
                        let mut ends = finishes.iter().map(|f| f.outcome.end());
                        ends.any(|end| matches!(end, RunEnd::Released | RunEnd::Interrupted))
                    }
                    _ => false,
                };
                if releases(&command) && self.dies_at(place, "before_release") {
                    return;
                }
                let call = Call { who, op: op.0 };
                let limit = self.processes[place].knobs.store_timeout();
                self.send(place, call, command, Vec::new(), Waiting::Engine, limit);
            }
            Action::Start(job) => {
                if !self.dies_at(place, "before_start") {
                    self.start_runner(place, &job);
                }
            }
            Action::Stop { run, reason } => {
                self.observe(&Event::Told { who, run, reason });
                self.stop_runner(place, run);
            }
            Action::Abort(run) => {
                self.observe(&Event::Aborted { who, run });
                self.abort_runner(place, run);
            }
            Action::Announce(types) => {
                for job_type in types {
                    self.announce(place, &job_type);
                }
            }
            Action::Observe(observation) => {
                let observation = &observation;
                self.observe(&Event::Logged { who, observation });
            }
            Action::Stopped => {
                self.observe(&Event::Stopped { who });
                let back = self.processes[place].back.clone();
                self.processes[place].end();
                if let Back::After(after_ms, _) = back {
                    self.queue
                        .push(self.now_us + after_ms * 1_000, Task::Start(place));
                }
            }
        }
    }

    /// Tells the workers of other processes that jobs of a type may be due.
    fn announce(&mut self, from: usize, job_type: &JobType) {
        self.announcements += 1;
        for place in 0..self.processes.len() {
            let process = &self.processes[place];
            if place == from || !process.connected {
                continue;
            }
            let (who, type_place) = (process.who, type_place(job_type));
            let copies =
                self.network
                    .announcement(who, type_place, self.announcements, self.now_us);
            for travels_us in copies.into_iter().flatten() {
                let at_us = process.late(self.now_us + travels_us);
                self.queue
                    .push(at_us, Task::Wake(place, who, job_type.clone()));
            }
        }
    }

    /// The process dies here, if a fault says so.
    fn dies_at(&mut self, place: usize, point: &'static str) -> bool {
        if self.calm {
            return false;
        }
        let Some(back_ms) = self.processes[place].dies_at(point) else {
            return false;
        };
        let who = self.processes[place].who;
        self.observe(&Event::Point { who, point });
        self.crash(place, Some(back_ms));
        true
    }

    /// The process is gone.
    fn crash(&mut self, place: usize, back_ms: Option<u64>) {
        if !self.processes[place].alive {
            return;
        }
        let who = self.processes[place].who;
        self.observe(&Event::Crashed { who });
        self.processes[place].end();
        match back_ms {
            Some(back_ms) => self
                .queue
                .push(self.now_us + back_ms * 1_000, Task::Start(place)),
            None => self.processes[place].back = Back::WithCalm,
        }
    }

    fn disturb(&mut self, who: Option<Who>, until_us: u64, by: Disturbance) {
        self.observe(&Event::Disturbed { who, until_us, by });
    }

    fn observe(&mut self, event: &Event<'_>) {
        let now = moment(self.now_us, self.store_ahead_us);
        self.recorder.observe(now, &self.model, event);
    }

    fn store_now(&self) -> Timestamp {
        moment(self.now_us, self.store_ahead_us).store
    }
}

fn moment(true_us: u64, store_ahead_us: i64) -> Moment {
    Moment {
        true_us,
        store: Timestamp::from_micros(START.as_micros() + true_us.cast_signed() + store_ahead_us),
    }
}

/// The end of a runner that says why.
fn failed(text: &str) -> Ended {
    Ended::Failed(job_engine::ErrorText::new(text))
}
