//! Announcements of other processes, through LISTEN and NOTIFY.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::time::Duration;

use job_tokio::Wake;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, sleep, timeout};

use crate::session::connect_options;
use crate::store::PostgresStore;

/// The channel of stores that know no schema, since they never looked at the tables, and
/// how those of the others begin.
const CHANNEL: &str = "job_wake";
/// Bytes in the name of a channel.
const CHANNEL_LEN_MAX: usize = 63;

/// The wait after the first loss; it doubles with each one that follows soon.
const RECONNECT_MIN: Duration = Duration::from_millis(100);
/// The longest wait before another try to connect.
const RECONNECT_MAX: Duration = Duration::from_secs(10);
/// How long one try may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a quiet connection is asked whether it is alive. One that died
/// without a word would be listened to for ever.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long it may take to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The channel on which the stores of a schema announce. Long names are cut:
/// then a few stores may share one, and are woken more often than they need.
pub(crate) fn channel(schema: Option<&str>) -> String {
    let mut channel = match schema {
        None => CHANNEL.to_owned(),
        Some(schema) => format!("{CHANNEL}_{schema}"),
    };
    let mut end = channel.len().min(CHANNEL_LEN_MAX);
    while !channel.is_char_boundary(end) {
        end -= 1;
    }
    channel.truncate(end);
    channel
}

/// What stands between the tag of the announcer and the type.
const TAG_END: char = '\n';

/// Tells the announcements of one store from those of others, so that nobody is woken
/// by his own: a spawn wakes the worker of its process by itself.
pub(crate) fn new_tag() -> String {
    // Seeded by the operating system; this names nothing that a seed has to replay.
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

/// What is sent: the tag of the announcer, none in a transaction of the application,
/// and the type.
pub(crate) fn payload_prefix(tag: Option<&str>) -> String {
    format!("{}{TAG_END}", tag.unwrap_or_default())
}

/// The type that is announced, unless the announcer has this tag.
fn announced<'a>(payload: &'a str, own: &str) -> Option<&'a str> {
    match payload.split_once(TAG_END) {
        Some((tag, _)) if tag == own => None,
        Some((_, job_type)) => Some(job_type),
        // Of somebody who announces by hand, or by an older version.
        None => Some(payload),
    }
}

/// Passes announcements on until the receiver is gone.
pub(crate) async fn listen(store: &PostgresStore, wakes: mpsc::Sender<Wake>) {
    tokio::select! {
        () = wakes.closed() => {}
        () = reconnect_forever(store, &wakes) => {}
    }
}

async fn reconnect_forever(store: &PostgresStore, wakes: &mpsc::Sender<Wake>) {
    let channel = channel(store.schema());
    let mut wait = RECONNECT_MIN;
    loop {
        match connect(store, &channel).await {
            Ok(mut listener) => {
                // These two may wait for room: without them the driver would
                // poll too often, or too rarely.
                if wakes.send(Wake::Restored).await.is_err() {
                    return;
                }
                let since = Instant::now();
                let error = pass_on(&mut listener, store.tag(), wakes).await;
                tracing::warn!(%error, "lost the connection that listens, reconnecting");
                if wakes.send(Wake::Lost).await.is_err() {
                    return;
                }
                if since.elapsed() >= PING_INTERVAL {
                    wait = RECONNECT_MIN;
                }
            }
            Err(error) => tracing::debug!(%error, ?wait, "cannot listen, trying again"),
        }
        sleep(jitter(wait)).await;
        wait = (wait * 2).min(RECONNECT_MAX);
    }
}

async fn connect(store: &PostgresStore, channel: &str) -> Result<PgListener, sqlx::Error> {
    // A pool for this one connection, as the listener wants one. A connection
    // that hangs when it is given back then hangs in nobody's way.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(CONNECT_TIMEOUT)
        .max_lifetime(None)
        .idle_timeout(None)
        .connect_lazy_with(connect_options(store.pool(), store.poll_only()));
    let connect = async {
        let mut listener = PgListener::connect_with(&pool).await?;
        // A lost connection is replaced here, once its loss has been told.
        listener.eager_reconnect(false);
        listener.listen(channel).await?;
        Ok(listener)
    };
    let connected = timeout(CONNECT_TIMEOUT, connect).await;
    connected.unwrap_or_else(|_| Err(broken("no connection in time")))
}

/// Passes announcements on until the connection breaks; returns why it did.
async fn pass_on(listener: &mut PgListener, own: &str, wakes: &mpsc::Sender<Wake>) -> sqlx::Error {
    loop {
        match timeout(PING_INTERVAL, listener.try_recv()).await {
            Ok(Ok(Some(notification))) => {
                let Some(job_type) = announced(notification.payload(), own) else {
                    continue;
                };
                match wakes.try_send(Wake::JobType(job_type.into())) {
                    // A driver that is so far behind looks for jobs anyway.
                    Ok(()) | Err(TrySendError::Full(_)) => {}
                    Err(TrySendError::Closed(_)) => return broken("nobody listens"),
                }
            }
            Ok(Ok(None)) => return broken("the connection was closed"),
            Ok(Err(error)) => return error,
            Err(_quiet) => {
                let ping = sqlx::query("SELECT 1").execute(&mut *listener);
                match timeout(PING_TIMEOUT, ping).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return error,
                    Err(_) => return broken("the connection does not answer"),
                }
            }
        }
    }
}

fn broken(text: &'static str) -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::BrokenPipe, text))
}

/// Between half of `wait` and all of it, so that the workers of a database that
/// was restarted do not come back at once.
fn jitter(wait: Duration) -> Duration {
    // Seeded by the operating system. This runs on a real database only, so no
    // seed has to replay it.
    let draw = RandomState::new().build_hasher().finish() % 1_024;
    wait / 2 + wait * u32::try_from(draw).expect("below 1,024") / 2_048
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_has_the_schema_in_it_and_fits() {
        assert_eq!(channel(None), "job_wake");
        assert_eq!(channel(Some("jobs")), "job_wake_jobs");
        let long = channel(Some(&"é".repeat(31)));
        assert!(long.len() <= CHANNEL_LEN_MAX && long.len() >= CHANNEL_LEN_MAX - 1);
    }

    #[test]
    fn an_announcement_of_others_is_heard_and_ones_own_is_not() {
        let (own, other) = (new_tag(), new_tag());
        assert_ne!(own, other);
        let payload = |tag| format!("{}a/b", payload_prefix(tag));
        assert_eq!(announced(&payload(Some(&other)), &own), Some("a/b"));
        assert_eq!(announced(&payload(Some(&own)), &own), None);
        assert_eq!(announced(&payload(None), &own), Some("a/b"));
        assert_eq!(announced("by/hand", &own), Some("by/hand"));
    }

    #[test]
    fn a_wait_is_jittered_downwards() {
        for _ in 0..100 {
            let wait = jitter(RECONNECT_MAX);
            assert!(wait >= RECONNECT_MAX / 2 && wait <= RECONNECT_MAX);
        }
    }
}
