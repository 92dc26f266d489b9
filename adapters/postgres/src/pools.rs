//! Connections while they are used, and between two uses.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use job_engine::StoreError;
use sqlx::pool::PoolConnection;
use sqlx::{Connection, PgConnection, PgPool, Postgres};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::session::{PING_TIMEOUT, connect_options, is_left_behind};

/// A connection that was idle for so long is tried out before it is used. Doing that
/// each time would double the round trips; one that broke since shows at the command
/// itself, which is repeated then.
const IDLE_TRUSTED: Duration = Duration::from_secs(20);
/// A connection that nobody needed for so long is closed, as sqlx does it by default.
const IDLE_MAX: Duration = Duration::from_secs(10 * 60);
/// After so long a connection goes back to the pool of sqlx, which closes what is as
/// old as that by default.
const KEPT_MAX: Duration = Duration::from_secs(30 * 60);

/// Connections of our own. The one that was used last is used next.
///
/// Between two uses they stay here. If they went back to their pool, sqlx would ask
/// each whether it is well: a round trip, during which it is nobody's, and which never
/// ends if the peer is gone without a word.
#[derive(Debug)]
pub(crate) struct OwnPool {
    pool: PgPool,
    /// That of the application, whose options hold for ours, too.
    model: PgPool,
    poll_only: bool,
    home: Arc<Home>,
}

#[derive(Debug)]
struct Home {
    idle: Mutex<Idle>,
    /// As many as there may be connections. Who has one need not wait for another.
    places: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Idle {
    connections: Vec<(Instant, Owned)>,
    closed: bool,
}

/// A connection, and since when it has been out of its pool.
#[derive(Debug)]
struct Owned {
    connection: PoolConnection<Postgres>,
    since: Instant,
}

impl OwnPool {
    pub(crate) fn new(pool: PgPool, model: PgPool, poll_only: bool) -> Self {
        let places = pool.options().get_max_connections() as usize;
        let home = Arc::new(Home {
            idle: Mutex::default(),
            places: Arc::new(Semaphore::new(places)),
        });
        Self {
            pool,
            model,
            poll_only,
            home,
        }
    }

    pub(crate) async fn acquire(&self) -> Result<Busy, sqlx::Error> {
        let place = Arc::clone(&self.home.places).acquire_owned();
        let place = tokio::time::timeout(self.pool.options().get_acquire_timeout(), place).await;
        let place = place.map_err(|_| sqlx::Error::PoolTimedOut)?;
        let place = place.map_err(|_| sqlx::Error::PoolClosed)?;
        while let Some((idle_since, owned)) = self.home.take_last() {
            let mut busy = self.busy(owned);
            if idle_since.elapsed() < IDLE_TRUSTED || busy.is_well().await {
                busy.place = Some(place);
                return Ok(busy);
            }
        }
        // Those that the application has set by now: credentials rotate.
        let options = connect_options(&self.model, self.poll_only);
        self.pool.set_connect_options(options);
        let owned = Owned {
            connection: self.pool.acquire().await?,
            since: Instant::now(),
        };
        let mut busy = self.busy(owned);
        busy.place = Some(place);
        Ok(busy)
    }

    fn busy(&self, owned: Owned) -> Busy {
        Busy {
            connection: Some(owned.connection),
            home: Some((Arc::clone(&self.home), owned.since)),
            place: None,
        }
    }

    /// Closes the connections, once their commands have ended.
    pub(crate) async fn close(&self) {
        drop(self.home.close());
        self.pool.close().await;
        // A connection that was just being given back may have come too late to
        // be closed; now it is there.
        self.pool.close().await;
    }
}

impl Home {
    fn take_last(&self) -> Option<(Instant, Owned)> {
        self.idle().connections.pop()
    }

    /// Keeps nothing from now on. What it had goes back to its pool when it is dropped.
    fn close(&self) -> Vec<(Instant, Owned)> {
        let mut idle = self.idle();
        idle.closed = true;
        std::mem::take(&mut idle.connections)
    }

    fn keep(&self, owned: Owned) {
        let mut idle = self.idle();
        // The first has been idle longest.
        let tired = |(since, _): &(Instant, Owned)| since.elapsed() >= IDLE_MAX;
        let tired = idle
            .connections
            .iter()
            .take_while(|idle| tired(idle))
            .count();
        for (_, owned) in idle.connections.drain(..tired) {
            drop(owned.connection.detach());
        }
        if !idle.closed && owned.since.elapsed() < KEPT_MAX {
            idle.connections.push((Instant::now(), owned));
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nothing is to be given back any more, and sqlx does that in a task, for which there
/// may be no runtime left.
impl Drop for Home {
    fn drop(&mut self) {
        for (_, owned) in self.close() {
            drop(owned.connection.detach());
        }
    }
}

/// A pooled connection while a command runs on it.
///
/// A command that does not end well, because its future was dropped or the
/// connection broke, takes its connection out of the pool. Returned, it would first
/// be waited for, and a peer that is gone without a word answers never: a few of
/// those and the pool would be empty for good.
pub(crate) struct Busy {
    connection: Option<PoolConnection<Postgres>>,
    /// Where it goes afterwards, if not to its pool, and since when it has been out of
    /// that.
    home: Option<(Arc<Home>, Instant)>,
    /// Given up last, when the connection is where others find it.
    place: Option<OwnedSemaphorePermit>,
}

impl Busy {
    /// A connection of the application, as it is.
    pub(crate) async fn acquire(pool: &PgPool) -> Result<Self, sqlx::Error> {
        Ok(Self {
            connection: Some(pool.acquire().await?),
            home: None,
            place: None,
        })
    }

    async fn is_well(&mut self) -> bool {
        let ping = tokio::time::timeout(PING_TIMEOUT, self.connection().ping());
        matches!(ping.await, Ok(Ok(())))
    }

    /// A connection of the application, in no transaction.
    ///
    /// One that somebody left in a transaction ([`is_in_transaction`], sqlx issue
    /// 4393) is closed, and so is one that turns out to be dead. One round trip.
    /// Pinned by
    /// `a_begin_that_is_dropped_at_any_await_takes_no_later_spawn_with_it`.
    pub(crate) async fn acquire_idle(pool: &PgPool) -> Result<Self, sqlx::Error> {
        // After all that were in the pool it makes a new one.
        let mut tries = pool.options().get_max_connections();
        loop {
            let mut busy = Self::acquire(pool).await?;
            match is_left_behind(busy.connection()).await {
                Ok(false) => return Ok(busy),
                Ok(true) if tries == 0 => {
                    let text = "every connection of the pool is in a transaction that was begun \
                                past sqlx; begin none in the hooks of the pool";
                    return Err(sqlx::Error::Configuration(text.into()));
                }
                Err(error) if tries == 0 => return Err(error),
                Ok(true) | Err(_) => tries -= 1,
            }
        }
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        self.connection
            .as_mut()
            .expect("only give_back() takes the connection")
    }

    /// The command has ended with this result.
    pub(crate) fn done<T>(self, result: &Result<T, StoreError>) {
        match result {
            // A begin that failed half way leaves a transaction behind.
            Err(StoreError::Unknown(_) | StoreError::Failed(_)) => {}
            Ok(_) | Err(StoreError::Rejected(_)) => self.give_back(),
        }
    }

    /// Back to where it came from: nothing was left undone.
    pub(crate) fn give_back(mut self) {
        let connection = self.connection.take().expect("it is taken only here");
        let Some((home, since)) = self.home.take() else {
            return;
        };
        home.keep(Owned { connection, since });
        drop(self.place.take());
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}
