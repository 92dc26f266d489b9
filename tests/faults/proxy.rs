//! A TCP proxy before Postgres that knows its protocol: it cuts, stalls and delays
//! connections, also right before a statement takes effect and right after it has.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// They work.
    Fair,
    /// New ones are refused, old ones cut.
    Cut,
    /// Nothing comes through any more, in either direction, and nobody is told.
    /// Connections that this befell stay dead.
    Silent,
}

/// What befalls one statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is cut before the statement can take effect.
    CutBefore,
    /// The statement takes effect, and the connection is cut before the client
    /// hears of it.
    CutAfter,
    /// The statement does not arrive, and the connection is silent from then on.
    Stall,
    /// The statement takes effect, and nobody ever hears of it.
    StallAfter,
    /// The statement arrives late.
    Delay(Duration),
}

type Judge = dyn FnMut(&str) -> Option<Fault> + Send;

/// Forwards connections to a server until it is dropped.
pub struct Proxy {
    server: PgConnectOptions,
    port: u16,
    shared: Arc<Shared>,
    accepting: tokio::task::JoinHandle<()>,
}

struct Shared {
    weather: watch::Sender<Weather>,
    /// Decides by the text of a statement what befalls it.
    judge: Mutex<Box<Judge>>,
    /// Connections that have sent a statement with this text in it are silent from
    /// now on.
    silenced: watch::Sender<&'static str>,
}

impl Proxy {
    pub async fn start(server: PgConnectOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            weather: watch::Sender::new(Weather::Fair),
            judge: Mutex::new(Box::new(|_| None)),
            silenced: watch::Sender::new(""),
        });
        let host = (server.get_host().to_owned(), server.get_port());
        let accepting = tokio::spawn(accept(listener, host, Arc::clone(&shared)));
        Self {
            server,
            port,
            shared,
            accepting,
        }
    }

    /// The way through the proxy.
    pub fn url(&self) -> String {
        let user = self.server.get_username();
        let database = self.server.get_database().unwrap_or("postgres");
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    pub fn set_weather(&self, weather: Weather) {
        self.shared.weather.send_replace(weather);
    }

    /// From now on `judge` decides what befalls a statement, given its text.
    pub fn judge(&self, judge: impl FnMut(&str) -> Option<Fault> + Send + 'static) {
        *self.shared.judge.lock().unwrap() = Box::new(judge);
    }

    /// No fault befalls statements any more.
    pub fn relent(&self) {
        self.judge(|_| None);
    }

    /// Silences, for good, the connections that have sent a statement with this
    /// text in it.
    pub fn silence(&self, text: &'static str) {
        self.shared.silenced.send_replace(text);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set_weather(Weather::Cut);
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, host: (String, u16), shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        if *shared.weather.borrow() == Weather::Cut {
            continue; // Closed at once.
        }
        let (host, shared) = (host.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(host).await else {
                return; // As if the server had refused it.
            };
            let mut link = Link::new(client, server, &shared);
            let silent = *shared.weather.borrow() == Weather::Silent;
            if silent || matches!(link.forward(&shared).await, Ok(End::Silent)) {
                link.stay_silent().await;
            }
        });
    }
}

/// How a connection ends.
enum End {
    Closed,
    Silent,
}

/// One connection through the proxy.
struct Link {
    client: Frames<OwnedReadHalf>,
    to_client: OwnedWriteHalf,
    server: Frames<OwnedReadHalf>,
    to_server: OwnedWriteHalf,
    statements: Statements,
    weather: watch::Receiver<Weather>,
    silenced: watch::Receiver<&'static str>,
}

impl Link {
    fn new(client: TcpStream, server: TcpStream, shared: &Shared) -> Self {
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        Self {
            client: Frames::new(from_client),
            to_client,
            server: Frames::new(from_server),
            to_server,
            statements: Statements::default(),
            weather: shared.weather.subscribe(),
            silenced: shared.silenced.subscribe(),
        }
    }

    async fn forward(&mut self, shared: &Shared) -> io::Result<End> {
        self.start_up().await?;
        // What the client sends takes effect together, so it is forwarded or lost
        // together.
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                biased;
                _ = self.weather.changed() => match *self.weather.borrow_and_update() {
                    Weather::Fair => {}
                    Weather::Cut => return Ok(End::Closed),
                    Weather::Silent => return Ok(End::Silent),
                },
                _ = self.silenced.changed() => {
                    if self.statements.include(*self.silenced.borrow_and_update()) {
                        return Ok(End::Silent);
                    }
                }
                frame = self.client.next() => {
                    let Some(frame) = frame? else { return Ok(End::Closed) };
                    let sent = self.statements.sent(&frame);
                    batch.extend(frame);
                    let fault = match sent {
                        Sent::More => continue,
                        Sent::Other => None,
                        Sent::Statement(text) => shared.judge.lock().unwrap()(&text),
                    };
                    match fault {
                        Some(Fault::CutBefore) => return Ok(End::Closed),
                        Some(Fault::Stall) => return Ok(End::Silent),
                        Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
                        Some(Fault::CutAfter | Fault::StallAfter) | None => {}
                    }
                    self.to_server.write_all(&batch).await?;
                    batch.clear();
                    let after = match fault {
                        Some(Fault::CutAfter) => End::Closed,
                        Some(Fault::StallAfter) => End::Silent,
                        _ => continue,
                    };
                    self.server_is_ready().await?;
                    return Ok(after);
                }
                frame = self.server.next() => {
                    let Some(frame) = frame? else { return Ok(End::Closed) };
                    self.to_client.write_all(&frame).await?;
                }
            }
        }
    }

    /// The messages before the first that has a tag.
    async fn start_up(&mut self) -> io::Result<()> {
        const SSL_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();
        loop {
            let Some(message) = self.client.untagged().await? else {
                return Ok(());
            };
            self.to_server.write_all(&message).await?;
            if message[4..8] != SSL_REQUEST {
                return Ok(());
            }
            let answer = self.server.byte().await?;
            assert_eq!(answer, b'N', "the proxy cannot read what is encrypted");
            self.to_client.write_all(&[answer]).await?;
        }
    }

    /// Waits until the server has carried out all that it was sent.
    async fn server_is_ready(&mut self) -> io::Result<()> {
        while let Some(frame) = self.server.next().await? {
            if frame[0] == b'Z' {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Nothing more is heard on either side, until each gives the connection up as
    /// TCP does: the server by its keepalives, the client much later.
    async fn stay_silent(mut self) {
        tokio::time::sleep(SERVER_PATIENCE).await;
        drop((self.server, self.to_server));
        let cut = self.weather.wait_for(|weather| *weather == Weather::Cut);
        let _ = tokio::time::timeout(CLIENT_PATIENCE, cut).await;
    }
}

/// After how long a server notices that a client is gone.
const SERVER_PATIENCE: Duration = Duration::from_secs(3);
/// How much longer the client waits. Longer than any command of a worker takes, so
/// that it has to give up by itself.
const CLIENT_PATIENCE: Duration = Duration::from_secs(7);

/// What a client has just sent.
enum Sent {
    /// A part of something.
    More,
    /// Something that takes no effect.
    Other,
    /// The last part of a statement with this text.
    Statement(String),
}

/// The statements of one connection.
#[derive(Default)]
struct Statements {
    prepared: BTreeMap<String, String>,
    current: Option<String>,
}

impl Statements {
    fn sent(&mut self, frame: &[u8]) -> Sent {
        let mut texts = frame[5..].split(|byte| *byte == 0);
        let mut text = || String::from_utf8_lossy(texts.next().unwrap_or_default()).into_owned();
        match frame[0] {
            b'P' => {
                let (name, query) = (text(), text());
                self.prepared.insert(name, query);
                Sent::More
            }
            b'B' => {
                let (_portal, name) = (text(), text());
                self.current = self.prepared.get(&name).cloned();
                Sent::More
            }
            b'D' | b'E' | b'C' => Sent::More,
            b'S' => match self.current.take() {
                Some(text) => Sent::Statement(text),
                None => Sent::Other,
            },
            b'Q' => {
                let query = text();
                self.prepared.insert(query.clone(), query.clone());
                Sent::Statement(query)
            }
            _ => Sent::Other,
        }
    }

    fn include(&self, text: &str) -> bool {
        self.prepared.values().any(|query| query.contains(text))
    }
}

/// The messages of one direction. Cancel safe.
struct Frames<R> {
    from: R,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    fn new(from: R) -> Self {
        Self {
            from,
            buffer: Vec::new(),
        }
    }

    /// A tag of one byte, a length that counts itself, and the rest.
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.take(1).await
    }

    /// A length that counts itself, and the rest.
    async fn untagged(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.take(0).await
    }

    async fn byte(&mut self) -> io::Result<u8> {
        while self.buffer.is_empty() {
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.remove(0))
    }

    async fn take(&mut self, tag_len: usize) -> io::Result<Option<Vec<u8>>> {
        loop {
            let length = self.buffer.get(tag_len..tag_len + 4);
            let length = length.map(|length| u32::from_be_bytes(length.try_into().unwrap()));
            if let Some(length) = length
                && self.buffer.len() >= tag_len + length as usize
            {
                let rest = self.buffer.split_off(tag_len + length as usize);
                return Ok(Some(std::mem::replace(&mut self.buffer, rest)));
            }
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}
