//! Takes in every event of a simulation, at every level: checks it, hashes it,
//! and keeps it for people if asked to.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use job_engine::{Command, ModelStore, Timestamp};

use crate::check::coverage::Coverage;
use crate::check::{Audit, Violation};
use crate::event::{Event, Moment, Who};
use crate::hash::TraceHash;
use crate::scenario::{Fault, Scenario};
use crate::trace::Trace;

/// What to keep of a simulation beside its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// All events, as text.
    pub trace: bool,
    /// What befell single messages, as faults.
    pub befell: bool,
    /// The hash after each event.
    pub hashes: bool,
    /// What the store carried out.
    pub commands: bool,
    /// When something happened that a fault could disturb.
    pub moments: bool,
}

impl Keep {
    /// Nothing but the result.
    pub const NOTHING: Self = Self {
        trace: false,
        befell: false,
        hashes: false,
        commands: false,
        moments: false,
    };
    /// All events, as text.
    pub const TRACE: Self = Self {
        trace: true,
        ..Self::NOTHING
    };
    /// What the store carried out.
    pub const COMMANDS: Self = Self {
        commands: true,
        ..Self::NOTHING
    };
    /// When something happened that a fault could disturb.
    pub const MOMENTS: Self = Self {
        moments: true,
        ..Self::NOTHING
    };
}

/// What came of a simulation.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The first property that did not hold. The simulation ends with it.
    pub violation: Option<Violation>,
    /// The hash over all events.
    pub hash: TraceHash,
    /// How many events there were.
    pub events: u64,
    /// How much time was simulated, in microseconds.
    pub simulated_us: u64,
    /// Which rare situations occurred.
    pub coverage: Coverage,
    /// All events, if asked for.
    pub trace: Trace,
    /// What befell single messages, if asked for.
    pub befell: Vec<Fault>,
    /// The hash after each event, if asked for.
    pub hashes: Vec<TraceHash>,
    /// What the store carried out, each at its time, if asked for.
    pub commands: Vec<(Timestamp, Command)>,
    /// When something happened that a fault could disturb, in milliseconds, if asked
    /// for.
    pub moments: BTreeSet<u64>,
    /// So many inputs the test of an application asked for.
    pub inputs: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Recorder<'s> {
    scenario: Cow<'s, Scenario>,
    /// None where the jobs are those of an application.
    audit: Option<Audit>,
    keep: Keep,
    report: Report,
}

impl<'s> Recorder<'s> {
    /// A recorder for one simulation of this scenario.
    pub fn new(scenario: &'s Scenario, keep: Keep) -> Self {
        Self {
            scenario: Cow::Borrowed(scenario),
            audit: Some(Audit::new(scenario)),
            keep,
            report: Report::default(),
        }
    }

    /// One that tasks can share, which may outlive whoever starts them.
    pub fn owned(scenario: &Scenario, keep: Keep) -> Recorder<'static> {
        Recorder {
            scenario: Cow::Owned(scenario.clone()),
            audit: Some(Audit::new(scenario)),
            keep,
            report: Report::default(),
        }
    }

    /// One for the jobs of an application, of which the scenario knows nothing: its
    /// test checks what must hold.
    pub fn of_application(scenario: &Scenario, keep: Keep) -> Recorder<'static> {
        Recorder {
            audit: None,
            ..Self::owned(scenario, keep)
        }
    }

    /// Takes in what happened. `model` is the store after it. After a violation
    /// it takes in nothing more; [`Recorder::is_over`] says so.
    pub fn observe(&mut self, now: Moment, model: &ModelStore, event: &Event<'_>) {
        let report = &mut self.report;
        if report.violation.is_some() {
            return;
        }
        report.events += 1;
        report.simulated_us = now.true_us;
        report.hash.feed(now, event);
        if self.keep.hashes {
            report.hashes.push(report.hash);
        }
        if self.keep.trace {
            report.trace.push(&self.scenario, now, event);
        }
        if self.keep.moments && is_moment(event) {
            report.moments.insert(now.true_us / 1_000);
        }
        if self.keep.commands
            && let Event::Applied { command, .. } = event
        {
            report.commands.push((now.store, (*command).clone()));
        }
        if let Some(audit) = &mut self.audit {
            report.violation = audit.observe(now, model, event).err();
        }
    }

    /// Takes in that a worker says of itself that it does nothing else than look for jobs,
    /// each time after so long; `None`: that it does more.
    pub fn rests(&mut self, now: Moment, who: Who, rests: Option<Duration>) {
        if let (None, Some(audit)) = (&self.report.violation, &mut self.audit) {
            self.report.violation = audit.rests(now, who, rests).err();
        }
    }

    /// Ends the simulation with a violation that only its runner can see.
    pub fn violated(&mut self, violation: Violation) {
        self.report.violation.get_or_insert(violation);
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.report.events
    }

    /// Whether a property did not hold.
    pub fn is_over(&self) -> bool {
        self.report.violation.is_some()
    }

    /// Checks what must be true at the end, and says what came of it all.
    pub fn finish(mut self, now: Moment, model: &ModelStore) -> Report {
        if self.report.violation.is_none() {
            self.report.simulated_us = now.true_us;
            if let Some(audit) = &mut self.audit {
                self.report.violation = audit.finish(now, model).err();
            }
        }
        self.report.hash = self.report.hash.finished();
        if let Some(audit) = &self.audit {
            self.report.coverage = audit.coverage().clone();
        }
        self.report
    }
}

/// Whether a fault would disturb something then: no look for jobs that finds none.
fn is_moment(event: &Event<'_>) -> bool {
    match event {
        Event::Sent { command, .. } => matches!(
            command,
            Command::Spawn(_) | Command::Finish(_) | Command::Checkpoint(_)
        ),
        Event::Started { .. } | Event::Ended { .. } | Event::Noted { .. } => true,
        _ => false,
    }
}
