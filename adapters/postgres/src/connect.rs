//! The first connection, whose failure should say why.

use std::io;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgPool};
use thiserror::Error;

use crate::schema::in_time;
use crate::session::{for_poolers, is_left_behind};

/// How a pool is made for a connection string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectConfig {
    /// The most connections of the pool, from 1. Each is opened when it is needed. Default
    /// 10.
    pub max_connections: u32,
    /// How long the first connection may take. Default 10 s.
    pub timeout: Duration,
    /// For transaction poolers such as PgBouncer: nothing is sent that they refuse by
    /// default, and no statements are kept prepared. Default `false`.
    pub poll_only: bool,
}

impl Default for ConnectConfig {
    fn default() -> Self {
        Self {
            max_connections: 10,
            timeout: Duration::from_secs(10),
            poll_only: false,
        }
    }
}

/// Opens one connection, so that an error is that of the server (refused, no such
/// database, wrong password) and not a pool's timeout, and then makes a pool. The pool
/// keeps no connection that is given back in the middle of a transaction
/// ([`is_in_transaction`](crate::is_in_transaction)), or does not answer then.
///
/// # Errors
///
/// When `url` cannot be read or [`check_url`] refuses it, or no connection comes about in
/// time. No error has the password in it.
pub async fn connect(url: &str, config: &ConnectConfig) -> Result<PgPool, sqlx::Error> {
    check_url(url).map_err(|error| sqlx::Error::Configuration(error.into()))?;
    let mut options = PgConnectOptions::from_str(url)?;
    if config.poll_only {
        options = for_poolers(options).statement_cache_capacity(0);
    }
    let what = format!(
        "no connection to {}:{}",
        options.get_host(),
        options.get_port()
    );
    let connected = async {
        let connected = options.connect().await;
        connected.map_err(|error| to_where(&what, error))
    };
    let connection = in_time(config.timeout, &what, connected).await?;
    // A close that fails says nothing about the connections to come.
    let _ = tokio::time::timeout(config.timeout, connection.close()).await;
    let pool = PgPoolOptions::new()
        .max_connections(config.max_connections)
        .after_release(|connection, _| {
            Box::pin(async move { Ok(!is_left_behind(connection).await?) })
        });
    Ok(pool.connect_lazy_with(options))
}

/// An error of the way to the server, which does not say by itself where that leads.
fn to_where(what: &str, error: sqlx::Error) -> sqlx::Error {
    #[derive(Debug, Error)]
    #[error("{what}: {source}")]
    struct Tried {
        what: String,
        source: io::Error,
    }
    match error {
        sqlx::Error::Io(source) => {
            let (kind, what) = (source.kind(), what.to_owned());
            sqlx::Error::Io(io::Error::new(kind, Tried { what, source }))
        }
        error => error,
    }
}

/// What is in a connection string that would not be done, or not as it says.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UrlError {
    /// A parameter that would put the tables elsewhere, if anybody read it.
    #[error(
        "the connection string has the parameter {parameter:?}, which is read by nobody, so \
         that the tables would be looked for elsewhere; remove it, and set .schema(\"jobs\") on \
         the builder, or write options=-c%20search_path%3Djobs"
    )]
    Schema {
        /// Its name.
        parameter: String,
    },
    /// More than one host or port.
    #[error(
        "the connection string names several hosts or ports, and one is supported; name the \
         primary, or an address that leads to it"
    )]
    Hosts,
}

/// Refuses connection strings with parameters that would be ignored and put the tables
/// elsewhere (`schema`, `search_path`, `currentSchema`, however they are spelled), or with
/// several hosts.
///
/// # Errors
///
/// A [`UrlError`] that says what to do instead. It does not repeat the string.
pub fn check_url(url: &str) -> Result<(), UrlError> {
    let (_, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split('#').next().unwrap_or_default();
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = address.split('/').next().unwrap_or_default();
    let hosts = authority.rsplit('@').next().unwrap_or_default();
    if hosts.contains(',') {
        return Err(UrlError::Hosts);
    }
    for parameter in query.split('&') {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let key = key.replace("%5F", "_").replace("%5f", "_");
        let (key, value) = (key.replace("%2D", "-").replace("%2d", "-"), value);
        let plain = key.replace(['-', '_'], "").to_ascii_lowercase();
        match &*plain {
            "schema" | "searchpath" | "currentschema" => {
                return Err(UrlError::Schema { parameter: key });
            }
            "host" | "hostaddr" | "port"
                if value.contains(',') || value.to_ascii_uppercase().contains("%2C") =>
            {
                return Err(UrlError::Hosts);
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_nobody_reads_is_refused_by_name_however_it_is_spelled() {
        for parameter in [
            "schema",
            "Schema",
            "search_path",
            "search-path",
            "searchPath",
            "search%5Fpath",
            "currentSchema",
            "current_schema",
        ] {
            let url = format!("postgres://me:hunter2@host/db?sslmode=prefer&{parameter}=jobs");
            let text = check_url(&url).unwrap_err().to_string();
            assert!(text.contains(".schema(\"jobs\")"), "{text}");
            let name = parameter.replace("%5F", "_");
            assert!(text.contains(&format!("{name:?}")), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn several_hosts_are_told_as_such() {
        for url in [
            "postgres://me:hunter2@one:5432,two:5432/db",
            "postgres://one,two/db",
            "postgres:///db?host=one,two",
            "postgres:///db?host=one%2Ctwo",
            "postgres://one/db?port=5432,5433",
        ] {
            assert_eq!(check_url(url), Err(UrlError::Hosts), "{url}");
        }
    }

    #[test]
    fn what_is_read_is_allowed() {
        for url in [
            "postgres://me:a,b%2C@host/db",
            "postgres://host/db?options=-c%20search_path%3Djobs,public",
            "postgres://host/db?options[search_path]=jobs",
            "postgres://host/db?application_name=schema,search_path",
            "not a url",
        ] {
            check_url(url).unwrap();
        }
    }
}
