//! The host of the store: the model behind TCP.
//!
//! Its tasks are local: when the host crashes, those are dropped in their order,
//! all others in one that depends on what else the process has run.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use job_engine::{JobType, Rejection, Reply, StoreError};
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use turmoil::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use turmoil::net::{TcpListener, TcpStream};

use super::rpc::{Body, FrameError, FrameReader, Hello, Notice, Request, Response, write_frame};
use super::world::World;
use crate::event::{Call, Who};
use crate::network::Fate;
use crate::scenario::type_place;

/// The name of the host.
pub(super) const HOST: &str = "store";
/// Where it listens.
pub(super) const PORT: u16 = 5432;

/// How often a listener is told that its connection is alive.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(1);
/// A connection that takes nothing for so long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Announcements that may wait to be sent to one listener; more are dropped.
const NOTICES_MAX: usize = 1_024;

/// Serves until the host crashes.
pub(super) async fn serve(world: World) -> turmoil::Result {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    let server = Server {
        world,
        listeners: Arc::default(),
    };
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        let server = server.clone();
        connections.spawn_local(async move {
            // An error means that the connection is of no use any more, which
            // closes it; the client finds out.
            let _ = server.serve_connection(stream).await;
        });
        while let Some(joined) = connections.try_join_next() {
            joined?;
        }
    }
}

#[derive(Clone)]
struct Server {
    world: World,
    /// Where to send what is announced, by worker.
    listeners: Arc<Mutex<BTreeMap<u32, Listener>>>,
}

struct Listener {
    who: Who,
    notices: mpsc::Sender<JobType>,
}

type Writer = Arc<AsyncMutex<OwnedWriteHalf>>;

impl Server {
    async fn serve_connection(&self, stream: TcpStream) -> Result<(), FrameError> {
        let (read, write) = stream.into_split();
        let mut read = FrameReader::new(read);
        let Some(hello) = read.next::<Hello>().await? else {
            return Ok(());
        };
        let who = Who {
            worker: hello.worker,
            incarnation: hello.incarnation,
        };
        if hello.listens {
            self.serve_listener(who, read, write).await
        } else {
            self.serve_calls(who, read, write).await
        }
    }

    async fn serve_calls(
        &self,
        who: Who,
        mut read: FrameReader<OwnedReadHalf>,
        write: OwnedWriteHalf,
    ) -> Result<(), FrameError> {
        let writer: Writer = Arc::new(AsyncMutex::new(write));
        let mut slow = JoinSet::new();
        while let Some(request) = read.next::<Request>().await? {
            let slow_ms = self.world.slow_ms();
            if slow_ms == 0 {
                self.answer(who, request, &writer).await?;
                continue;
            }
            let (server, writer) = (self.clone(), Arc::clone(&writer));
            slow.spawn_local(async move {
                sleep(Duration::from_millis(slow_ms)).await;
                // Reading finds out about a broken connection, too.
                let _ = server.answer(who, request, &writer).await;
            });
            while slow.try_join_next().is_some() {}
        }
        Ok(())
    }

    async fn answer(&self, who: Who, request: Request, writer: &Writer) -> Result<(), FrameError> {
        let Request { op, body } = request;
        let call = Call { who, op };
        let Some(result) = self.carry_out(call, body) else {
            return Ok(());
        };
        self.world.answers(call);
        let mut writer = writer.lock().await;
        send(&mut writer, &Response { op, result }).await
    }

    /// What to answer, if anything.
    fn carry_out(&self, call: Call, body: Body) -> Option<Result<Option<Reply>, StoreError>> {
        let fate = self.world.fate(call);
        match fate {
            Fate::Served | Fate::UnknownDone => {}
            Fate::Failed => return Some(Err(StoreError::Failed("trouble".to_owned()))),
            Fate::UnknownUndone => return Some(Err(StoreError::Unknown("trouble".to_owned()))),
            Fate::Refused => return Some(Err(Rejection::Data("as planned".to_owned()).into())),
            Fate::Ignored => return None,
        }
        let result = match body {
            Body::Execute(command) => self.world.apply(call, &command).map(Some),
            Body::Commit { finish, children } => {
                self.world.commit(call, finish, children).map(Some)
            }
            Body::Announce(types) => {
                types.iter().for_each(|job_type| self.announce(job_type));
                Ok(None)
            }
        };
        if fate == Fate::UnknownDone {
            return Some(Err(StoreError::Unknown("trouble after it".to_owned())));
        }
        Some(result)
    }

    fn announce(&self, job_type: &JobType) {
        for listener in self.listeners().values() {
            for _ in 0..self.world.copies(listener.who, type_place(job_type)) {
                // A listener that is gone or too slow misses it: it is a hint.
                let _ = listener.notices.try_send(job_type.clone());
            }
        }
    }

    async fn serve_listener(
        &self,
        who: Who,
        mut read: FrameReader<OwnedReadHalf>,
        mut write: OwnedWriteHalf,
    ) -> Result<(), FrameError> {
        if self.world.is_deaf(who.worker) {
            return Ok(());
        }
        let (notices, mut received) = mpsc::channel(NOTICES_MAX);
        // A connection that it had before is dead, whatever this side knows.
        self.listeners()
            .insert(who.worker, Listener { who, notices });
        send(&mut write, &Notice::Listening).await?;
        loop {
            let notice = tokio::select! {
                biased;
                // A listener says nothing more; this is its end.
                _ = read.next::<Hello>() => return Ok(()),
                notice = received.recv() => match notice {
                    Some(job_type) => Notice::Due(job_type),
                    None => return Ok(()),
                },
                () = sleep(PING_INTERVAL) => Notice::Ping,
            };
            if self.world.is_deaf(who.worker) {
                return Ok(());
            }
            send(&mut write, &notice).await?;
        }
    }

    fn listeners(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Listener>> {
        let listeners = self.listeners.lock();
        listeners.unwrap_or_else(PoisonError::into_inner)
    }
}

async fn send<T: serde::Serialize>(to: &mut OwnedWriteHalf, message: &T) -> Result<(), FrameError> {
    match timeout(WRITE_TIMEOUT, write_frame(to, message)).await {
        Ok(result) => result,
        Err(_) => Err(FrameError::Broken(std::io::ErrorKind::TimedOut.into())),
    }
}
