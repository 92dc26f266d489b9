//! The first connection, whose failure should say why.

use std::io;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgPool};

use crate::session::is_left_behind;

/// Opens one connection within `timeout`, so that an error is that of the
/// server (refused, no such database, wrong password) and not a pool's timeout,
/// and then makes a pool of at most `max_connections`. Default: that of sqlx,
/// 10. The pool keeps no connection that is given back in the middle of a
/// transaction ([`is_in_transaction`](crate::is_in_transaction)), or does not answer
/// then.
///
/// # Errors
///
/// When `url` cannot be read, or no connection comes about in time. No error
/// has the password in it.
pub async fn connect(
    url: &str,
    max_connections: Option<u32>,
    timeout: Duration,
) -> Result<PgPool, sqlx::Error> {
    let options = PgConnectOptions::from_str(url)?;
    let connected = tokio::time::timeout(timeout, options.connect()).await;
    let connection = connected.map_err(|_| {
        let (host, port) = (options.get_host(), options.get_port());
        let text = format!("no connection to {host}:{port} within {timeout:?}");
        sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, text))
    })??;
    // A close that fails says nothing about the connections to come.
    let _ = connection.close().await;
    let mut pool = PgPoolOptions::new().after_release(|connection, _| {
        Box::pin(async move { Ok(!is_left_behind(connection).await?) })
    });
    if let Some(max_connections) = max_connections {
        pool = pool.max_connections(max_connections);
    }
    Ok(pool.connect_lazy_with(options))
}
