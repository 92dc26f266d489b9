//! The store as the driver sees it: calls, and a connection of its own for
//! announcements.

use std::collections::BTreeSet;
use std::time::Duration;

use job_engine::{Command, JobType, Reply, StoreError, Timestamp};
use job_tokio::{Store, Wake};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::client::{Client, connect};
use super::rpc::{Body, FrameError, Notice};
use super::server::PING_INTERVAL;
use crate::event::Event;

/// A connection on which nothing arrives for so long is dead.
const SILENCE_MAX: Duration = PING_INTERVAL.saturating_mul(5).checked_div(2).unwrap();
/// The pauses before a lost connection is made anew: the first, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// The store as a driver knows it. Clones share it.
#[derive(Clone)]
pub(super) struct RemoteStore {
    client: Client,
    /// Where to send whoever wants to listen; none if nobody is to.
    ear: Option<mpsc::UnboundedSender<mpsc::Sender<Wake>>>,
}

/// The task that has the connection on which a process listens.
pub(super) struct Ear {
    client: Client,
    listeners: mpsc::UnboundedReceiver<mpsc::Sender<Wake>>,
}

impl RemoteStore {
    /// A store that never listens.
    pub(super) fn deaf(client: Client) -> Self {
        Self { client, ear: None }
    }

    /// A store that listens, and what has to run beside it.
    pub(super) fn listening(client: Client) -> (Self, Ear) {
        let (ear, listeners) = mpsc::unbounded_channel();
        let task = Ear {
            client: client.clone(),
            listeners,
        };
        let ear = Some(ear);
        (Self { client, ear }, task)
    }
}

impl Ear {
    /// Runs until the process ends.
    pub(super) async fn run(mut self) {
        while let Some(wakes) = self.listeners.recv().await {
            tokio::select! {
                biased;
                () = wakes.closed() => {}
                () = self.listen(&wakes) => {}
            }
        }
    }

    async fn listen(&self, wakes: &mpsc::Sender<Wake>) {
        let mut pause = BACKOFF.0;
        loop {
            let mut listening = false;
            // Whatever it was: the connection is made anew.
            let _ = self.listen_once(wakes, &mut listening).await;
            if listening {
                self.say(wakes, false).await;
                pause = BACKOFF.0;
            }
            sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// Listens until the connection is lost.
    async fn listen_once(
        &self,
        wakes: &mpsc::Sender<Wake>,
        listening: &mut bool,
    ) -> Result<(), FrameError> {
        let who = self.client.who();
        let (mut read, _write) = connect(who, true).await?;
        loop {
            let silent = || FrameError::Broken(std::io::ErrorKind::TimedOut.into());
            let notice = timeout(SILENCE_MAX, read.next::<Notice>()).await;
            match notice.map_err(|_| silent())?? {
                None => return Ok(()),
                Some(Notice::Ping) => {}
                Some(Notice::Listening) => {
                    *listening = true;
                    self.say(wakes, true).await;
                }
                Some(Notice::Due(job_type)) => {
                    let event = Event::Woken {
                        who,
                        job_type: &job_type,
                    };
                    self.client.world().record_by(who, &event);
                    // An error means that the driver is gone, and so is this.
                    let _ = wakes.send(Wake::JobType(job_type)).await;
                }
            }
        }
    }

    async fn say(&self, wakes: &mpsc::Sender<Wake>, listening: bool) {
        let who = self.client.who();
        let event = Event::Listening { who, listening };
        self.client.world().record_by(who, &event);
        let wake = if listening {
            Wake::Restored
        } else {
            Wake::Lost
        };
        let _ = wakes.send(wake).await;
    }
}

impl Store for RemoteStore {
    async fn execute(&self, _: Option<Timestamp>, command: &Command) -> Result<Reply, StoreError> {
        // The clock of the store rules here, as it does in production.
        self.client.execute(command).await
    }

    async fn announce(&self, types: &BTreeSet<JobType>) -> Result<(), StoreError> {
        self.client.announce(Body::Announce(types.clone())).await
    }

    async fn listen(&self, wakes: mpsc::Sender<Wake>) {
        if let Some(ear) = &self.ear {
            // An error means that the process ends.
            let _ = ear.send(wakes);
        }
        std::future::pending().await
    }
}
