//! What real drivers do, as they do it, and where their processes die.

use std::marker::PhantomData;
use std::rc::Rc;

use job_engine::WorkerId;
use job_tokio::fault::set_hook;
use job_tokio::observer::{Seen, set_observer};
use job_tokio::turn::set_turns;

use crate::event::{Event, Who};

/// The drivers of this thread are observed for as long as it lives.
pub(crate) struct Observed {
    _of_this_thread: PhantomData<Rc<()>>,
}

impl Observed {
    /// Asks `dies_at` at each fault point whether the process dies there, and
    /// tells `saw` what a driver does with its runners.
    pub(crate) fn new(
        dies_at: impl Fn(WorkerId, &'static str) -> bool + 'static,
        saw: impl Fn(WorkerId, Seen<'_>) + 'static,
    ) -> Self {
        set_hook(Some(Rc::new(dies_at)));
        set_observer(Some(Rc::new(saw)));
        Self {
            _of_this_thread: PhantomData,
        }
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        set_hook(None);
        set_observer(None);
        set_turns(None);
    }
}

/// The event that this is.
pub(crate) fn event_of(who: Who, seen: Seen<'_>) -> Event<'_> {
    match seen {
        Seen::Started(job) => Event::Started { who, job },
        Seen::Told(run, reason) => Event::Told { who, run, reason },
        Seen::Aborted(run) => Event::Aborted { who, run },
        Seen::Ended(run, ended) => Event::Ended { who, run, ended },
        Seen::Logged(observation) => Event::Logged { who, observation },
    }
}
