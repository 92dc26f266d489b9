//! One artificial clock for a file.
//!
//! The times that a store writes and judges by are those of its clock. With two
//! artificial clocks on one file, each would find the leases of the other run out, or
//! never, whatever it shows. One process uses a file, so the process knows all clocks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use job_tokio::clock::ClockId;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::store::SqliteStore;

/// How long a store may outlast its service, whose tasks have to end.
const LINGER_MAX: Duration = Duration::from_secs(5);

/// The files that are in use with artificial clocks.
static CLOCKS: Mutex<BTreeMap<PathBuf, Clock>> = Mutex::new(BTreeMap::new());
/// Tells that there is one file less.
static FREED: Notify = Notify::const_new();

struct Clock {
    id: ClockId,
    /// How many share it; at least one.
    stores: usize,
}

/// Why a store cannot be used with an artificial clock.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClockError {
    /// The file is used with another one.
    #[error(
        "another artificial clock is in use on the same job tables, by a service of this \
         process that has not ended, in the file {file:?}; share one ClockHandle between the \
         services (its clones are one clock), give each test a file of its own, or shut the \
         first service down before, or drop it with its spawners"
    )]
    InUse {
        /// The file, without links.
        file: PathBuf,
    },
    /// The database could not be asked for its file.
    #[error("whether another artificial clock is in use could not be found out: {0}")]
    Database(#[from] sqlx::Error),
}

impl SqliteStore {
    /// Makes this the store of a service with an artificial clock: until it is closed, or
    /// its last clone dropped, none with another such clock is let onto the same file in
    /// this process. One that was dropped just now is waited for, 5 s at most.
    ///
    /// Stores that tell no clock are not kept from anything, nor are those on a database
    /// in memory.
    ///
    /// # Errors
    ///
    /// [`ClockError::InUse`] if there is another clock, or when the database fails.
    pub async fn with_clock(self, clock: ClockId) -> Result<Self, ClockError> {
        let Some(file) = self.file().await? else {
            return Ok(self);
        };
        let in_use = InUse::note(file, clock).await?;
        Ok(self.noting(in_use))
    }
}

/// That a store uses a file with an artificial clock.
#[derive(Debug)]
pub(crate) struct InUse {
    file: PathBuf,
}

impl InUse {
    async fn note(file: PathBuf, clock: ClockId) -> Result<Self, ClockError> {
        let give_up_at = Instant::now() + LINGER_MAX;
        loop {
            let mut freed = pin!(FREED.notified());
            // From here on, so that nothing is missed between the look and the wait.
            freed.as_mut().enable();
            if share(&file, clock) {
                return Ok(Self { file });
            }
            if timeout_at(give_up_at, freed).await.is_err() {
                return Err(ClockError::InUse { file });
            }
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut clocks = clocks();
        let clock = clocks.get_mut(&self.file).expect("it is noted until here");
        clock.stores -= 1;
        if clock.stores == 0 {
            clocks.remove(&self.file);
            drop(clocks);
            FREED.notify_waiters();
        }
    }
}

/// Counts one more store in, if the file has no other clock.
fn share(file: &Path, id: ClockId) -> bool {
    let mut clocks = clocks();
    let clock = clocks
        .entry(file.to_path_buf())
        .or_insert(Clock { id, stores: 0 });
    let same = clock.id == id;
    clock.stores += usize::from(same);
    same
}

fn clocks() -> MutexGuard<'static, BTreeMap<PathBuf, Clock>> {
    CLOCKS.lock().unwrap_or_else(PoisonError::into_inner)
}
