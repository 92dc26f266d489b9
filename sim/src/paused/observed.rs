//! What this level makes of what its drivers do.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use job_engine::worker::Ended;
use job_engine::{Run, WorkerId};
use job_tokio::observer::Seen;
use job_tokio::turn::{Turns, Wait, set_turns};

use super::runner::PANIC;
use super::state::{State, World};
use crate::check::Violation;
use crate::event::Who;
use crate::observed::{Observed, event_of};
use crate::panics;
use crate::scenario::job_key;

/// Begins to observe the drivers of this thread.
pub(crate) fn observe(world: &World) -> Observed {
    let (of_hook, of_observer) = (world.clone(), world.clone());
    set_turns(Some(Rc::new(OfWorld {
        world: world.clone(),
        graveyard: RefCell::default(),
    })));
    Observed::new(
        move |id, point| of_hook.state().dies_at(id, point),
        move |id, seen| saw(&mut of_observer.state(), id, seen),
    )
}

/// The turns of the tasks of all processes.
struct OfWorld {
    world: World,
    /// What is left of processes that crashed: no destructor of theirs ever runs, or not
    /// before all is over.
    graveyard: RefCell<Vec<Box<dyn Any>>>,
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

fn saw(state: &mut State, id: WorkerId, seen: Seen<'_>) {
    let Some(who) = state.who(id).filter(|who| state.is_up(*who)) else {
        return;
    };
    match seen {
        Seen::Started(job) => state.has_started(who, job.run),
        Seen::Ended(run, ended) => {
            state.executing.remove(&(who, run));
            if let Some(violation) = unplanned(state, who, job_key(run.job), ended) {
                state.violated(violation);
            }
        }
        Seen::Told(..) | Seen::Aborted(_) => {}
    }
    state.observe(&event_of(who, seen));
}

/// A panic that no scenario asks for.
fn unplanned(state: &State, who: Who, job: u32, ended: &Ended) -> Option<Violation> {
    let Ended::Failed(text) = ended else {
        return None;
    };
    if state.of_application {
        let violation = panics::last().map(Violation::panicked);
        return violation.map(|violation| violation.of_job(job).of(who));
    }
    let panicked = text.as_str().contains("panicked") && !text.as_str().contains(PANIC);
    let violation = || Violation::new("paused.panic", text.as_str());
    panicked.then(|| violation().of_job(job).of(who))
}
