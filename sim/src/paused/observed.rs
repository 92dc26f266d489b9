//! What this level makes of what its drivers do.

use job_engine::WorkerId;
use job_engine::worker::Ended;
use job_tokio::observer::Seen;

use super::runner::PANIC;
use super::state::{State, World};
use crate::check::Violation;
use crate::event::Who;
use crate::observed::{Observed, event_of};
use crate::scenario::job_key;

/// Begins to observe the drivers of this thread.
pub(super) fn observe(world: &World) -> Observed {
    let (of_hook, of_observer) = (world.clone(), world.clone());
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
        Seen::Started(job) => state.has_started(who, job.run.job, job.run.fence),
        Seen::Ended(run, ended) => {
            if let Some(violation) = unplanned(who, job_key(run.job), ended) {
                state.violated(violation);
            }
        }
        Seen::Told(..) | Seen::Aborted(_) => {}
    }
    state.observe(&event_of(who, seen));
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
