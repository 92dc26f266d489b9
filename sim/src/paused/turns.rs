//! Whose tasks are polled: processes stand still, and those that are gone do nothing more.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;
use std::time::Duration;

use job_engine::{Run, WorkerId};
use job_tokio::turn::{Turns, Wait};

use super::state::{State, World};
use crate::event::{Disturbance, Event, Who};

/// The turns of the tasks of all processes.
pub(super) struct OfWorld {
    world: World,
    /// What is left of processes that crashed: no destructor of theirs ever runs, or not
    /// before all is over.
    graveyard: RefCell<Vec<Box<dyn Any>>>,
}

impl OfWorld {
    pub(super) fn new(world: &World) -> Self {
        Self {
            world: world.clone(),
            graveyard: RefCell::default(),
        }
    }
}

impl Drop for OfWorld {
    fn drop(&mut self) {
        for remains in self.graveyard.take() {
            // It is over: whatever panics now changes nothing any more.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(remains)));
        }
    }
}

impl Turns for OfWorld {
    fn begin(&self, worker: WorkerId, run: Option<Run>, task: &Waker) -> bool {
        self.world.state().begin_turn(worker, run, task)
    }

    fn end(&self) {
        self.world.state().end_turn();
    }

    fn wait(&self, _: WorkerId, duration: Duration, period: Duration) -> Option<Wait> {
        let of_application = self.world.state().of_application;
        of_application.then(|| self.world.wait(duration, period))
    }

    fn bury(&self, worker: WorkerId, remains: Box<dyn Any>) {
        if self.world.state().is_gone(worker) {
            self.graveyard.borrow_mut().push(remains);
        }
    }
}

/// A process that stands still.
pub(super) struct Still {
    who: Who,
    /// By the fault at this place.
    fault: usize,
    until_us: u64,
    /// Its tasks that want to go on.
    tasks: Vec<Waker>,
}

impl State {
    /// A process stands still, because of the fault at this place.
    pub(crate) fn stand_still(&mut self, who: Who, fault: usize, until_us: u64) {
        if self.stands_still(who) {
            // The later end is that of both.
            if let Some(still) = self.still.get_mut(&who.worker)
                && until_us > still.until_us
            {
                (still.fault, still.until_us) = (fault, until_us);
                self.disturb(Some(who), until_us, Disturbance::StandingStill);
            }
            return;
        }
        let tasks = Vec::new();
        let still = Still {
            who,
            fault,
            until_us,
            tasks,
        };
        self.still.insert(who.worker, still);
        self.observe(&Event::Paused { who });
        self.disturb(Some(who), until_us, Disturbance::StandingStill);
    }

    pub(crate) fn stands_still(&self, who: Who) -> bool {
        let still = self.still.get(&who.worker);
        still.is_some_and(|still| still.who == who)
    }

    /// The process that stands still because of the fault at this place goes on.
    pub(crate) fn goes_on(&mut self, fault: usize) {
        let mut still = self.still.iter();
        let Some((&worker, _)) = still.find(|(_, still)| still.fault == fault) else {
            return;
        };
        let still = self.still.remove(&worker).expect("it was found");
        let who = still.who;
        if self.is_up(who) {
            self.observe(&Event::Resumed { who });
        }
        still.tasks.into_iter().for_each(Waker::wake);
    }

    /// Whether a task of a process may be polled now.
    pub(crate) fn begin_turn(&mut self, id: WorkerId, run: Option<Run>, task: &Waker) -> bool {
        let Some(who) = self.who(id) else {
            return true;
        };
        if !self.is_up(who) {
            // Nothing of it ever goes on: it is about to be dropped.
            return false;
        }
        if let Some(still) = self.still.get_mut(&who.worker).filter(|s| s.who == who) {
            still.tasks.push(task.clone());
            return false;
        }
        self.at_turn = Some((who, run));
        true
    }

    /// Whose task is polled, and the run that it performs.
    pub(crate) fn at_turn(&self) -> Option<(Who, Option<Run>)> {
        self.at_turn
    }

    /// The test itself is polled.
    pub(crate) fn begin_turn_of_test(&mut self) {
        self.at_turn = Some((Who::OUTSIDE, None));
    }

    pub(crate) fn end_turn(&mut self) {
        self.at_turn = None;
    }
}
