//! Which jobs a service was asked to spawn: tests of applications want to know.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use job_engine::{Command, JobId};

/// Records nothing until somebody wants it to.
#[derive(Default)]
pub(crate) struct Record {
    spawned: OnceLock<Mutex<Spawned>>,
}

#[derive(Default)]
struct Spawned {
    known: BTreeSet<JobId>,
    in_order: Vec<JobId>,
}

impl Record {
    /// Takes note of the jobs that a command spawns. Whether they come about is another
    /// matter.
    pub(crate) fn add(&self, command: &Command) {
        let Command::Spawn(jobs) = command else {
            return;
        };
        if let Some(mut spawned) = self.spawned() {
            for job in jobs {
                if spawned.known.insert(job.id) {
                    spawned.in_order.push(job.id);
                }
            }
        }
    }

    fn spawned(&self) -> Option<MutexGuard<'_, Spawned>> {
        let spawned = self.spawned.get()?;
        Some(spawned.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(feature = "testing")]
impl Record {
    /// Records from now on.
    pub(crate) fn begin(&self) {
        self.spawned.get_or_init(Mutex::default);
    }

    /// Forgets a job.
    pub(crate) fn forget(&self, id: JobId) {
        if let Some(mut spawned) = self.spawned() {
            spawned.in_order.retain(|spawned| *spawned != id);
        }
    }

    /// What was recorded, in the order of the spawns.
    pub(crate) fn ids(&self) -> Vec<JobId> {
        let spawned = self.spawned();
        spawned.map_or_else(Vec::new, |spawned| spawned.in_order.clone())
    }
}
