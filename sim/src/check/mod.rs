//! What must hold, one module a property.
//!
//! The [`Audit`] sees every event of a simulation, at every level, keeps its
//! own books of what happened, and compares. It knows the rules from the
//! documentation, not from the code that it checks.

mod announced;
mod attempts;
mod backoff;
mod belief;
mod books;
mod capacity;
mod claims;
pub mod coverage;
mod data;
mod due;
mod effects;
mod ends;
mod fences;
mod heartbeats;
mod leases;
mod lifecycle;
mod liveness;
mod logs;
mod obligations;
mod overlap;
mod pace;
mod reclaims;
mod repeats;
mod rests;
mod shutdown;
mod spawns;
mod transition;
mod unique;

use std::fmt;
use std::time::Duration;

use job_engine::ModelStore;
use serde::{Deserialize, Serialize};

use crate::event::{Event, Moment, Who};
use crate::scenario::{Scenario, job_key};
use books::Books;
use coverage::Coverage;
pub use liveness::calm_ms;
use transition::Transition;

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Violation {
    /// The check that found it: the name of its module, and of the rule.
    pub check: String,
    /// What happened, and what should have.
    pub text: String,
    /// The job that it is about, by key.
    pub job: Option<u32>,
    /// The worker that it is about, by key.
    pub worker: Option<u32>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.text)
    }
}

impl Violation {
    pub(crate) fn new(check: &str, text: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            text: text.into(),
            job: None,
            worker: None,
        }
    }

    /// Something panicked at this place, with this text.
    pub(crate) fn panicked((place, text): (String, String)) -> Self {
        Self::new(&format!("a panic at {place}"), text)
    }

    pub(crate) fn of_job(mut self, key: u32) -> Self {
        self.job = Some(key);
        self
    }

    pub(crate) fn of(mut self, who: Who) -> Self {
        self.worker = Some(who.worker);
        self
    }
}

/// What a check says.
pub(crate) type Verdict = Result<(), Violation>;

/// Returns a [`Violation`] unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $check:literal, $($text:tt)+) => {
        if !$condition {
            return Err($crate::check::Violation::new($check, format!($($text)+)));
        }
    };
}
pub(crate) use ensure;

/// All checks of one simulation, and what they remember.
#[derive(Clone, Debug)]
pub struct Audit {
    books: Books,
    coverage: Coverage,
}

impl Audit {
    /// An audit of a simulation that has not begun.
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            books: Books::new(scenario),
            coverage: Coverage::default(),
        }
    }

    /// Takes in what happened, and says what is wrong with it. `model` is the
    /// store after it.
    ///
    /// # Errors
    ///
    /// The first [`Violation`] that a check found.
    pub fn observe(
        &mut self,
        now: Moment,
        model: &ModelStore,
        event: &Event<'_>,
    ) -> Result<(), Violation> {
        let books = &mut self.books;
        books.now = now;
        obligations::check(books)?;
        coverage::event(&mut self.coverage, books, event);
        if let Event::Applied {
            call,
            command,
            reply,
        } = event
        {
            transition::each(books, model, *call, command, reply, |books, change| {
                coverage::transition(&mut self.coverage, books, change);
                check_transition(books, change)
                    .map_err(|violation| violation.of_job(job_key(change.job)))
            })?;
            lifecycle::others(books, model)?;
            leases::after(books, command, reply)?;
            due::after(books, command, reply)?;
            repeats::after(books, command, reply)?;
        }
        check_event(books, event)?;
        books.take_in(event);
        Ok(())
    }

    /// Takes in that `who` says of itself that it does nothing else than look for jobs, each
    /// time after so long; `None`: that it does more.
    ///
    /// # Errors
    ///
    /// A [`Violation`] if that is not so.
    pub fn rests(
        &mut self,
        now: Moment,
        who: Who,
        rests: Option<Duration>,
    ) -> Result<(), Violation> {
        self.books.now = now;
        rests::said(&self.books, who, rests).map_err(|violation| violation.of(who))
    }

    /// Checks what must be true when the simulation is over.
    ///
    /// # Errors
    ///
    /// The first [`Violation`] that a check found.
    pub fn finish(&mut self, now: Moment, model: &ModelStore) -> Result<(), Violation> {
        self.books.now = now;
        obligations::check(&mut self.books)?;
        lifecycle::all(&self.books, model)?;
        effects::finish(&self.books, model)?;
        liveness::finish(&self.books, model)
    }

    /// Which rare situations occurred.
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }
}

fn check_transition(books: &Books, change: &Transition<'_>) -> Verdict {
    lifecycle::transition(change)?;
    fences::transition(change)?;
    leases::transition(books, change)?;
    attempts::transition(books, change)?;
    backoff::transition(books, change)?;
    due::transition(books, change)?;
    data::transition(books, change)?;
    unique::transition(books, change)?;
    spawns::transition(books, change)?;
    reclaims::transition(books, change)?;
    ends::transition(books, change)?;
    logs::transition(books, change)
}

fn check_event(books: &mut Books, event: &Event<'_>) -> Verdict {
    capacity::event(books, event)?;
    // Before what it looks at is taken.
    announced::event(books, event)?;
    claims::event(books, event)?;
    overlap::event(books, event)?;
    belief::event(books, event)?;
    shutdown::event(books, event)?;
    effects::event(books, event)?;
    data::event(books, event)?;
    ends::event(books, event)?;
    spawns::event(books, event)?;
    repeats::event(books, event)?;
    heartbeats::event(books, event)?;
    logs::event(books, event)?;
    pace::event(books, event)
}
