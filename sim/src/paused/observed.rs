//! What the drivers do, as they do it, and where their processes die.

use std::rc::Rc;

use job_engine::WorkerId;
use job_engine::worker::Ended;
use job_tokio::fault::set_hook;
use job_tokio::observer::{Seen, set_observer};

use super::runner::PANIC;
use super::state::{State, World};
use crate::check::Violation;
use crate::event::{Event, Who};
use crate::scenario::job_key;

/// Observes the drivers of this thread for as long as it lives.
pub(super) struct Observed {}

/// Begins to observe the drivers of this thread.
pub(super) fn observe(world: &World) -> Observed {
    let of_hook = world.clone();
    set_hook(Some(Rc::new(move |id, point| {
        of_hook.state().dies_at(id, point)
    })));
    let of_observer = world.clone();
    set_observer(Some(Rc::new(move |id, seen| {
        saw(&mut of_observer.state(), id, seen);
    })));
    Observed {}
}

impl Drop for Observed {
    fn drop(&mut self) {
        set_hook(None);
        set_observer(None);
    }
}

fn saw(state: &mut State, id: WorkerId, seen: Seen<'_>) {
    let Some(who) = state.who(id).filter(|who| state.is_up(*who)) else {
        return;
    };
    match seen {
        Seen::Started(job) => {
            state.has_started(who, job.run.job, job.run.fence);
            state.observe(&Event::Started { who, job });
        }
        Seen::Told(run, reason) => state.observe(&Event::Told { who, run, reason }),
        Seen::Aborted(run) => state.observe(&Event::Aborted { who, run }),
        Seen::Ended(run, ended) => {
            if let Some(violation) = unplanned(who, job_key(run.job), ended) {
                state.violated(violation);
            }
            state.observe(&Event::Ended { who, run, ended });
        }
    }
}

/// A panic that no scenario asks for.
fn unplanned(who: Who, job: u32, ended: &Ended) -> Option<Violation> {
    let Ended::Failed(text) = ended else {
        return None;
    };
    let panicked = text.as_str().contains("panicked") && !text.as_str().contains(PANIC);
    let violation = || {
        Violation::new("paused.panic", text.as_str())
            .of_job(job)
            .of(who)
    };
    panicked.then(violation)
}
