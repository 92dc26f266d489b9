//! What this level makes of what its drivers do.

use std::rc::Rc;

use job_engine::WorkerId;
use job_engine::worker::Ended;
use job_tokio::observer::Seen;
use job_tokio::turn::set_turns;

use super::runner::PANIC;
use super::state::{State, World};
use super::turns::OfWorld;
use crate::check::Violation;
use crate::event::Who;
use crate::observed::{Observed, event_of};
use crate::panics;
use crate::scenario::job_key;

/// Begins to observe the drivers of this thread.
pub(crate) fn observe(world: &World) -> Observed {
    let (of_hook, of_observer) = (world.clone(), world.clone());
    set_turns(Some(Rc::new(OfWorld::new(world))));
    Observed::new(
        move |id, point| of_hook.state().dies_at(id, point),
        move |id, seen| saw(&mut of_observer.state(), id, seen),
    )
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
        Seen::Told(..) | Seen::Aborted(_) | Seen::Logged(_) => {}
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
