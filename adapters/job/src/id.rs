//! The identity of a job, as applications use it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Identifies a job. A UUID, chosen by whoever spawns the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(any(feature = "postgres", feature = "sqlite"), derive(sqlx::Type))]
#[cfg_attr(any(feature = "postgres", feature = "sqlite"), sqlx(transparent))]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct JobId(Uuid);

impl JobId {
    /// A new id: a UUID of version 7, so that ids sort by the time at which
    /// they were made.
    #[allow(clippy::new_without_default, reason = "two defaults would differ")]
    pub fn new() -> Self {
        #[cfg(feature = "sim")]
        if let Some(id) = simulated::next() {
            return Self(id);
        }
        Self(Uuid::now_v7())
    }
}

#[cfg(feature = "sim")]
pub(crate) mod simulated {
    use std::cell::RefCell;
    use std::rc::Rc;

    use uuid::Uuid;

    type Ids = Rc<dyn Fn() -> Uuid>;

    thread_local! {
        static IDS: RefCell<Option<Ids>> = const { RefCell::new(None) };
    }

    /// Where new ids come from on this thread; for simulations, in which nothing may
    /// depend on chance.
    pub fn set_ids(ids: Option<Ids>) {
        IDS.set(ids);
    }

    pub(super) fn next() -> Option<Uuid> {
        // Not borrowed during the call, so that it may replace itself.
        let ids = IDS.with_borrow(Option::clone)?;
        Some(ids())
    }
}

impl From<Uuid> for JobId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl From<JobId> for Uuid {
    fn from(id: JobId) -> Self {
        id.0
    }
}

impl From<&JobId> for Uuid {
    fn from(id: &JobId) -> Self {
        id.0
    }
}

impl From<&JobId> for JobId {
    fn from(id: &JobId) -> Self {
        *id
    }
}

impl From<job_engine::JobId> for JobId {
    fn from(id: job_engine::JobId) -> Self {
        Self(id.0)
    }
}

impl From<JobId> for job_engine::JobId {
    fn from(id: JobId) -> Self {
        Self(id.0)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}
