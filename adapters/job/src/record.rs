//! Which jobs a service was asked to spawn: tests of applications want to know.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use job_engine::{Command, JobId};

/// Records nothing until somebody wants it to.
#[derive(Default)]
pub(crate) struct Record {
    spawned: OnceLock<Mutex<Vec<JobId>>>,
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
                if !spawned.contains(&job.id) {
                    spawned.push(job.id);
                }
            }
        }
    }

    fn spawned(&self) -> Option<MutexGuard<'_, Vec<JobId>>> {
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
            spawned.retain(|spawned| *spawned != id);
        }
    }

    /// What was recorded, in the order of the spawns.
    pub(crate) fn ids(&self) -> Vec<JobId> {
        self.spawned()
            .map(|spawned| spawned.clone())
            .unwrap_or_default()
    }
}
