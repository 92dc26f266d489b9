//! What a process knows of the store: a connection for its calls, made anew
//! when it is lost.
//!
//! The connection belongs to a local task of the host: when that crashes, local
//! tasks are dropped in their order, all others in one that depends on what else
//! the process has run, and each connection that closes says so on the network.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use job_engine::{Command, Reply, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use turmoil::net::TcpStream;
use turmoil::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::rpc::{Body, FrameError, FrameReader, Hello, Request, Response, write_frame};
use super::server::{HOST, PORT};
use super::world::World;
use crate::event::{Call, Event, RUNNER_OPS, SPAWN_OPS, Who};

/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a refusal travels.
const REFUSAL: Duration = Duration::from_millis(10);
/// When nobody waits any longer for an answer that has taken so long, the
/// connection counts as dead: TCP would never say so. Less than the shortest
/// [`job_tokio::store_timeout`].
const SUSPECT_AFTER: Duration = Duration::from_millis(900);
/// Announcements have numbers from here on.
const ANNOUNCE_OPS: u64 = 1 << 42;

type Outcome = Result<Option<Reply>, StoreError>;

/// See the module. Clones share it.
#[derive(Clone)]
pub(super) struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    world: World,
    who: Who,
    orders: mpsc::UnboundedSender<Order>,
    driver_ops: AtomicU64,
    runner_ops: AtomicU64,
    spawn_ops: AtomicU64,
    announce_ops: AtomicU64,
}

impl Client {
    /// The client of a process, and what has to run beside it.
    pub(super) fn new(world: &World, who: Who) -> (Self, Link) {
        let (orders, received) = mpsc::unbounded_channel();
        let link = Link {
            world: world.clone(),
            who,
            orders: received,
            connection: None,
        };
        let client = Self {
            inner: Arc::new(Inner {
                world: world.clone(),
                who,
                orders,
                driver_ops: AtomicU64::new(1),
                runner_ops: AtomicU64::new(RUNNER_OPS),
                spawn_ops: AtomicU64::new(SPAWN_OPS),
                announce_ops: AtomicU64::new(ANNOUNCE_OPS),
            }),
        };
        (client, link)
    }

    pub(super) fn world(&self) -> &World {
        &self.inner.world
    }

    pub(super) fn who(&self) -> Who {
        self.inner.who
    }

    /// A command of the driver.
    pub(super) async fn execute(&self, command: &Command) -> Result<Reply, StoreError> {
        let op = next(&self.inner.driver_ops);
        self.call(op, command, Body::Execute(command.clone())).await
    }

    /// A command of a runner.
    pub(super) async fn execute_in_run(&self, command: &Command) -> Result<Reply, StoreError> {
        let op = next(&self.inner.runner_ops);
        self.call(op, command, Body::Execute(command.clone())).await
    }

    /// A transaction of a runner, of which `command` is the end of its run.
    pub(super) async fn commit(&self, command: &Command, body: Body) -> Result<Reply, StoreError> {
        let op = next(&self.inner.runner_ops);
        self.call(op, command, body).await
    }

    /// A spawn.
    pub(super) async fn spawn(&self, command: &Command) -> Result<Reply, StoreError> {
        let op = next(&self.inner.spawn_ops);
        self.call(op, command, Body::Execute(command.clone())).await
    }

    /// Something for all listeners.
    pub(super) async fn announce(&self, body: Body) -> Result<(), StoreError> {
        let op = next(&self.inner.announce_ops);
        self.exchange(op, body).await.map(|_| ())
    }

    async fn call(&self, op: u64, command: &Command, body: Body) -> Result<Reply, StoreError> {
        let call = Call {
            who: self.who(),
            op,
        };
        let mut open = OpenCall::new(self.world(), call, command);
        let result = self.exchange(op, body).await;
        let result = result.and_then(|reply| {
            reply.ok_or_else(|| StoreError::Failed("an answer without a reply".to_owned()))
        });
        open.close(&result);
        result
    }

    async fn exchange(&self, op: u64, body: Body) -> Outcome {
        if !self.world().is_alive(self.who()) {
            std::future::pending::<()>().await;
        }
        let (answer, answered) = oneshot::channel();
        let request = Request { op, body };
        // An error means that the process ends.
        let _ = self.inner.orders.send(Order::Call { request, answer });
        let mut wait = Wait {
            client: self,
            op,
            since: Instant::now(),
            over: false,
        };
        let outcome = answered.await;
        wait.over = true;
        outcome.unwrap_or_else(|_| Err(StoreError::Unknown("the connection is lost".to_owned())))
    }
}

/// What the task of a connection is asked to do.
enum Order {
    Call {
        request: Request,
        answer: oneshot::Sender<Outcome>,
    },
    /// Nobody waits for this call any longer.
    GiveUp { op: u64, suspect: bool },
}

/// The task that has the connection of a process for its calls.
pub(super) struct Link {
    world: World,
    who: Who,
    orders: mpsc::UnboundedReceiver<Order>,
    connection: Option<Connection>,
}

struct Connection {
    read: FrameReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    /// The calls that are not answered yet.
    pending: BTreeMap<u64, oneshot::Sender<Outcome>>,
}

impl Link {
    /// Runs until the process ends.
    pub(super) async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(Order::Call { request, answer }) => self.call(request, answer).await,
                    Some(Order::GiveUp { op, suspect }) => self.give_up(op, suspect),
                    None => return,
                },
                answered = next_answer(&mut self.connection) => match answered {
                    Some(response) => self.answer(response),
                    // All that wait learn that nothing is known.
                    None => self.connection = None,
                },
            }
        }
    }

    async fn call(&mut self, request: Request, answer: oneshot::Sender<Outcome>) {
        if answer.is_closed() {
            return;
        }
        if self.connection.is_none() {
            match connect(self.who, false).await {
                Ok((read, write)) => {
                    self.connection = Some(Connection {
                        read,
                        write,
                        pending: BTreeMap::new(),
                    });
                }
                Err(error) => {
                    // Here a refusal takes no time, which nobody could bear who
                    // tries again at once.
                    sleep(REFUSAL).await;
                    let text = format!("no connection to the store: {error}");
                    let _ = answer.send(Err(StoreError::Failed(text)));
                    return;
                }
            }
        }
        let connection = self.connection.as_mut().expect("it was made just now");
        connection.pending.insert(request.op, answer);
        let written = timeout(
            CONNECT_TIMEOUT,
            write_frame(&mut connection.write, &request),
        );
        if !matches!(written.await, Ok(Ok(()))) {
            self.connection = None;
        }
    }

    fn give_up(&mut self, op: u64, suspect: bool) {
        let connection = self.connection.as_mut();
        let waited = connection.is_some_and(|one| one.pending.remove(&op).is_some());
        if waited && suspect {
            self.connection = None;
        }
    }

    fn answer(&mut self, response: Response) {
        let op = response.op;
        let connection = self.connection.as_mut();
        let waits = connection.and_then(|one| one.pending.remove(&op));
        let heard = waits.is_some_and(|answer| answer.send(response.result).is_ok());
        if !heard && op < ANNOUNCE_OPS {
            let call = Call { who: self.who, op };
            self.world.record_by(self.who, &Event::Unheard { call });
        }
    }
}

/// The next answer, `None` if there will be none. Cancel safe.
async fn next_answer(connection: &mut Option<Connection>) -> Option<Response> {
    match connection {
        Some(connection) => connection.read.next().await.ok().flatten(),
        None => std::future::pending().await,
    }
}

/// A connection to the store that has said who it is from.
pub(super) async fn connect(
    who: Who,
    listens: bool,
) -> Result<(FrameReader<OwnedReadHalf>, OwnedWriteHalf), FrameError> {
    let connecting = async {
        let mut stream = TcpStream::connect((HOST, PORT)).await?;
        let hello = Hello {
            worker: who.worker,
            incarnation: who.incarnation,
            listens,
        };
        write_frame(&mut stream, &hello).await?;
        let (read, write) = stream.into_split();
        Ok((FrameReader::new(read), write))
    };
    match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(FrameError::Broken(std::io::ErrorKind::TimedOut.into())),
    }
}

/// Somebody waits for an answer.
struct Wait<'a> {
    client: &'a Client,
    op: u64,
    since: Instant,
    over: bool,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        // A process that is dead has no time, either.
        let client = self.client;
        if self.over || !client.world().is_alive(client.who()) {
            return;
        }
        let order = Order::GiveUp {
            op: self.op,
            suspect: self.since.elapsed() >= SUSPECT_AFTER,
        };
        let _ = client.inner.orders.send(order);
    }
}

/// Sees to it that whoever gives a call up is known to have done so.
struct OpenCall<'a> {
    world: &'a World,
    call: Call,
}

impl<'a> OpenCall<'a> {
    fn new(world: &'a World, call: Call, command: &Command) -> Self {
        world.open_call(call, command);
        Self { world, call }
    }

    fn close(&mut self, result: &Result<Reply, StoreError>) {
        self.world.close_call(self.call, result);
    }
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        let given_up = Err(StoreError::Unknown("given up".to_owned()));
        self.world.close_call(self.call, &given_up);
    }
}

fn next(ops: &AtomicU64) -> u64 {
    ops.fetch_add(1, Ordering::Relaxed)
}
