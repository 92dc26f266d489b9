//! Which processes use a file, and what is taken back from one that is gone.
//!
//! Beside the file of a database lies an empty one, `<file>-job-lock`. Each process
//! whose services use the database holds a lock of the operating system on it, from
//! its first store to its last; such locks end with their process, however that ends.
//! All of them share it, so who can have it alone for a moment knows that there is no
//! other, and that what runs by the tables runs no more.
//!
//! The database itself is never opened for this: to close it would end the locks that
//! SQLite has on it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use job_engine::{StoreError, Timestamp, WorkerId};
use thiserror::Error;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::error::{commit_failed, failed};
use crate::row::json;
use crate::sql;
use crate::store::{SqliteStore, begin_immediate, time};

const SUFFIX: &str = "-job-lock";
/// How long another process may have the lock alone: it may wait for one that
/// writes, for SQLite's busy timeout.
const ALONE_MAX: Duration = Duration::from_secs(30);
const ALONE_LOOK: Duration = Duration::from_millis(10);

/// The files that this process uses or has used.
static FILES: Mutex<BTreeMap<PathBuf, Use>> = Mutex::new(BTreeMap::new());

/// What is known of a file.
#[derive(Default)]
struct Use {
    /// How many use it now.
    stores: usize,
    /// The lock, once the first of them is done with what is done at a start; `None`
    /// in it where there are no such locks.
    lock: Arc<OnceCell<Option<File>>>,
    /// All that claimed in this process. They may be at work although their store is
    /// gone, so what they run is left to its leases.
    workers: BTreeSet<WorkerId>,
}

/// Why a store could not begin to use a file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// Another process is starting on it, and does not get done.
    #[error(
        "another process has been starting on the same jobs for more than 30 s and holds the \
         lock on {lock:?}; end it, or wait until it is done, and start again"
    )]
    Starting {
        /// What is locked.
        lock: PathBuf,
    },
    /// The database could not be asked for its file.
    #[error("the file of the jobs could not be found out: {0}")]
    Database(#[from] sqlx::Error),
    /// What an earlier process left running could not be taken back.
    #[error("what an earlier process left running could not be taken back: {0}")]
    TakeBack(#[from] StoreError),
}

impl SqliteStore {
    /// Makes this the store of a service: until it is closed, or its last clone
    /// dropped, other processes know that this one uses the file.
    ///
    /// If no other does, what an earlier process left running when it was killed is
    /// made pending again, due `now`: it was interrupted, which costs no attempt and is
    /// no crash. Several services of a process share this; the first one does it. Not
    /// taken back is what a store of this process has claimed: it may still be at work.
    ///
    /// If another process does, `tracing` is told so, and what runs has leases as on
    /// any other store. A database in memory has only this process, and is let alone.
    ///
    /// `now` is the time of the store; `None` for that of the machine. The tables must
    /// exist. Stores that claim without this are not noticed by any.
    ///
    /// # Errors
    ///
    /// When another process does not get done with the same, or the database fails.
    pub async fn start(self, now: Option<Timestamp>) -> Result<Self, StartError> {
        let Some(file) = self.file().await? else {
            return Ok(self);
        };
        let presence = Presence::note(file);
        // Whoever comes second waits until this is done, before it claims anything.
        let lock = presence.lock();
        lock.get_or_try_init(|| self.take_lock(&presence, now))
            .await?;
        drop(lock);
        Ok(self.present(presence))
    }

    async fn take_lock(
        &self,
        presence: &Presence,
        now: Option<Timestamp>,
    ) -> Result<Option<File>, StartError> {
        let path = presence.lock_path();
        let file = &presence.file;
        let (lock, alone) = match open_and_lock(&path) {
            Ok(taken) => taken,
            Err(error) => {
                warn!(
                    ?file, ?path, %error,
                    "whether another process uses the file of the jobs cannot be found out; \
                     what a killed process leaves running waits until its leases run out"
                );
                return Ok(None);
            }
        };
        if alone {
            let jobs = self.take_back(presence, now).await?;
            if jobs > 0 {
                info!(
                    ?file,
                    jobs, "took back what an earlier process left running"
                );
            }
            // Others come in only from here on. One that is quicker finds nothing
            // that runs: this process has not claimed yet.
            if let Err(error) = lock.unlock() {
                warn!(?path, %error, "the lock could not be shared");
                return Ok(Some(lock));
            }
        } else {
            warn!(
                ?file,
                "another process uses the file of the jobs, and one at a time should; what it \
                 leaves running if it is killed waits until its leases run out"
            );
        }
        let give_up_at = Instant::now() + ALONE_MAX;
        loop {
            match lock.try_lock_shared() {
                Ok(()) => return Ok(Some(lock)),
                Err(TryLockError::Error(error)) => {
                    warn!(?path, %error, "the lock could not be shared");
                    return Ok(Some(lock));
                }
                Err(TryLockError::WouldBlock) if Instant::now() >= give_up_at => {
                    return Err(StartError::Starting { lock: path });
                }
                Err(TryLockError::WouldBlock) => sleep(ALONE_LOOK).await,
            }
        }
    }

    /// How many jobs that were.
    async fn take_back(
        &self,
        presence: &Presence,
        now: Option<Timestamp>,
    ) -> Result<u64, StoreError> {
        let ours = presence.workers();
        let running = sqlx::query_scalar(sql::RUNNING).bind(&ours);
        let any: bool = running.fetch_one(self.writer()).await.map_err(failed)?;
        if !any {
            return Ok(0);
        }
        let mut transaction = begin_immediate(self.writer()).await.map_err(failed)?;
        let now = time(&mut transaction, now).await?.as_micros();
        let recorded = sqlx::query(sql::INTERRUPT_RUNS).bind(&ours).bind(now);
        let recorded = recorded.execute(&mut *transaction).await.map_err(failed)?;
        let interrupt = sqlx::query(sql::INTERRUPT).bind(&ours).bind(now);
        interrupt.execute(&mut *transaction).await.map_err(failed)?;
        transaction.commit().await.map_err(commit_failed)?;
        Ok(recorded.rows_affected())
    }
}

/// Whether it is held alone. Nobody shares it then, nor will without being let.
fn open_and_lock(path: &Path) -> io::Result<(File, bool)> {
    let lock = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)?;
    match lock.try_lock() {
        Ok(()) => Ok((lock, true)),
        Err(TryLockError::WouldBlock) => Ok((lock, false)),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// That a store uses a file.
#[derive(Debug)]
pub(crate) struct Presence {
    file: PathBuf,
}

impl Presence {
    fn note(file: PathBuf) -> Self {
        files().entry(file.clone()).or_default().stores += 1;
        Self { file }
    }

    /// Notes who claims.
    pub(crate) fn note_worker(&self, worker: WorkerId) {
        self.with(|file| file.workers.insert(worker));
    }

    /// All that ever claimed in this process, as the statements read them.
    fn workers(&self) -> String {
        let hex = |worker: &WorkerId| worker.0.as_simple().to_string();
        self.with(|file| json(&Vec::from_iter(file.workers.iter().map(hex))))
    }

    fn lock(&self) -> Arc<OnceCell<Option<File>>> {
        self.with(|file| Arc::clone(&file.lock))
    }

    fn lock_path(&self) -> PathBuf {
        let mut path = OsString::from(&self.file);
        path.push(SUFFIX);
        path.into()
    }

    fn with<T>(&self, look: impl FnOnce(&mut Use) -> T) -> T {
        look(files().get_mut(&self.file).expect("it is noted until here"))
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.with(|file| {
            file.stores -= 1;
            if file.stores == 0 {
                let lock = mem::take(&mut file.lock);
                if let Some(Some(lock)) = lock.get() {
                    // Not only closed: a child that is being started has a copy of it
                    // for a moment. What fails is done by the end of the process.
                    let _ = lock.unlock();
                }
            }
        });
    }
}

fn files() -> MutexGuard<'static, BTreeMap<PathBuf, Use>> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}
