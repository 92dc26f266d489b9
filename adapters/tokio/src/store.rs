//! The store port on tokio: what a database adapter implements.

use std::collections::BTreeSet;
use std::future::Future;

use job_engine::store::Spawned;
use job_engine::{Command, JobType, Reply, StoreError, Timestamp};
use tokio::sync::mpsc;

/// A database that carries out the commands of the engine.
///
/// What each command does is said by [`job_engine::ModelStore`]; the suite in
/// `conformance` (feature of the same name) tells whether a store does it.
pub trait Store: Clone + Send + Sync + 'static {
    /// Carries out one command as one transaction.
    ///
    /// `now` is the store's time for this command. With `None` the store asks
    /// its own clock, which is the rule in production: the clocks of workers do
    /// not matter. With an artificial clock, that clock is the store's too.
    ///
    /// The future may be dropped at any await point; the outcome is then
    /// unknown. It need not limit its own time: the driver does.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unknown`] unless it is certain that nothing changed.
    fn execute(
        &self,
        now: Option<Timestamp>,
        command: &Command,
    ) -> impl Future<Output = Result<Reply, StoreError>> + Send;

    /// Carries out a [`Command::Spawn`] of jobs that have nothing to do with each
    /// other: they share a commit. An error is no harm: each of them is then sent
    /// alone. So this may give up soon where [`Store::execute`] would wait for
    /// somebody, and it may use connections of its own.
    ///
    /// The default is [`Store::execute`].
    ///
    /// # Errors
    ///
    /// As [`Store::execute`].
    fn spawn_together(
        &self,
        now: Option<Timestamp>,
        spawn: &Command,
    ) -> impl Future<Output = Result<Reply, StoreError>> + Send {
        self.execute(now, spawn)
    }

    /// Carries out some [`Command::Spawn`], all in one transaction, in their order.
    /// Unless every job is created, none is; the replies say which were refused.
    /// Repeated with the same commands after an unknown outcome, it finds what it
    /// created before.
    ///
    /// The default is for stores that tests wrap around others: it carries them out
    /// one by one, each in a transaction of its own.
    ///
    /// # Errors
    ///
    /// As [`Store::execute`].
    fn spawn_all(
        &self,
        now: Option<Timestamp>,
        spawns: &[Command],
    ) -> impl Future<Output = Result<Vec<Reply>, StoreError>> + Send {
        async move {
            let mut replies = Vec::with_capacity(spawns.len());
            for spawn in spawns {
                let reply = self.execute(now, spawn).await?;
                let created = all_created(&reply);
                replies.push(reply);
                if !created {
                    break;
                }
            }
            Ok(replies)
        }
    }

    /// Tells the workers of other processes that jobs of these types became
    /// due. A hint: when it is lost, they find the jobs at their next poll.
    ///
    /// The default does nothing, which is right for a store of one process.
    fn announce(
        &self,
        types: &BTreeSet<JobType>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        let _ = types;
        async { Ok(()) }
    }

    /// Passes on the announcements of other processes. Runs until it is
    /// dropped; reconnects by itself.
    ///
    /// The default is right for a store of one process: there are no others to
    /// listen to, so nothing is ever missed.
    fn listen(&self, wakes: mpsc::Sender<Wake>) -> impl Future<Output = ()> + Send {
        async move {
            // An error means that the driver is gone, and so is this future.
            let _ = wakes.send(Wake::Restored).await;
            std::future::pending().await
        }
    }
}

/// Whether the reply to a [`Command::Spawn`] says that it created every job.
pub fn all_created(reply: &Reply) -> bool {
    match reply {
        Reply::Spawned(spawned) => spawned.iter().all(|one| *one == Spawned::Created),
        _ => false,
    }
}

/// What [`Store::listen`] passes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Jobs of this type may be due.
    JobType(JobType),
    /// Announcements may get lost from now on.
    Lost,
    /// Announcements arrive from now on; some may have been lost before. Until
    /// this comes, the driver polls often.
    Restored,
}
