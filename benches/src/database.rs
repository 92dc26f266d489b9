//! Databases that are made for one subject and dropped after it.

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::Result;

static DATABASES: AtomicU32 = AtomicU32::new(0);

/// The server that is measured on.
#[derive(Clone, Debug)]
pub struct Server {
    url: String,
}

impl Server {
    /// The one that `DATABASE_URL` names.
    ///
    /// # Errors
    ///
    /// When it names none.
    pub fn from_env() -> Result<Self> {
        let url = std::env::var("DATABASE_URL")
            .map_err(|_| "DATABASE_URL names no server; benches/run starts one")?;
        Ok(Self { url })
    }

    /// Makes a database, empty.
    ///
    /// # Errors
    ///
    /// When the server does not.
    pub async fn create_database(&self) -> Result<Database> {
        let n = DATABASES.fetch_add(1, Ordering::Relaxed);
        let name = format!("job_bench_{}_{n}", std::process::id());
        execute(&self.url, &format!("CREATE DATABASE {name}")).await?;
        Ok(Database {
            server: self.url.clone(),
            name,
        })
    }
}

/// A database, dropped with this.
///
/// Dropping one makes the server write a checkpoint: each subject starts right after
/// one.
#[derive(Debug)]
pub struct Database {
    server: String,
    name: String,
}

impl Database {
    /// What it is called on the server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The connection string.
    pub fn url(&self) -> String {
        on_server(&self.server, &self.name)
    }

    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// When none comes about.
    pub async fn connect(&self) -> Result<PgConnection> {
        let options: PgConnectOptions = self.url().parse()?;
        Ok(options.connect().await?)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let server = self.server.clone();
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // A thread of its own, since this runs within a runtime.
        let dropped = std::thread::spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(execute(&server, &drop))
        });
        if !dropped.join().is_ok_and(|dropped| dropped.is_ok()) {
            eprintln!("the database {} is left behind", self.name);
        }
    }
}

/// The URL of another database on the same server.
fn on_server(server: &str, database: &str) -> String {
    let (server, parameters) = match server.split_once('?') {
        Some((server, parameters)) => (server, format!("?{parameters}")),
        None => (server, String::new()),
    };
    let host_at = server.find("://").map_or(0, |at| at + "://".len());
    let base = match server[host_at..].find('/') {
        Some(at) => &server[..host_at + at],
        None => server,
    };
    format!("{base}/{database}{parameters}")
}

async fn execute(server: &str, statement: &str) -> Result<()> {
    let mut connection = PgConnection::connect(server).await?;
    sqlx::query(statement).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_keeps_the_rest_of_the_url() {
        for (server, expected) in [
            ("postgres://u:p@host:1/a", "postgres://u:p@host:1/b"),
            ("postgres://host", "postgres://host/b"),
            ("postgres:///a?host=/tmp", "postgres:///b?host=/tmp"),
        ] {
            assert_eq!(on_server(server, "b"), expected);
        }
    }
}
