//! A database of the measured peer's own.

use anyhow::{Context, Result};
use sqlx::postgres::{PgPool, PgPoolOptions};
use url::Url;

/// A fresh database, and the harness's own connections to it: what a peer's
/// pool gives out is its own.
pub struct Scratch {
    name: String,
    url: Url,
    server: PgPool,
    pool: PgPool,
}

impl Scratch {
    /// Creates the database, right after a checkpoint: the next one, and the
    /// page images that follow it, then come after the measure and not in it.
    pub async fn create(server_url: &Url) -> Result<Self> {
        let name = format!("job_peers_{}", std::process::id());
        let server = connect(server_url).await?;
        sqlx::query("CHECKPOINT")
            .execute(&server)
            .await
            .context("checkpoint")?;
        sqlx::query(&format!("CREATE DATABASE {name}"))
            .execute(&server)
            .await
            .with_context(|| format!("create database {name}"))?;
        let mut url = server_url.clone();
        url.set_path(&name);
        let pool = connect(&url).await?;
        Ok(Self {
            name,
            url,
            server,
            pool,
        })
    }

    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The bytes of write-ahead log that the server has written so far, for
    /// all of its databases.
    pub async fn wal_bytes(&self) -> Result<f64> {
        sqlx::query_scalar("SELECT (pg_current_wal_insert_lsn() - '0/0')::float8")
            .fetch_one(&self.pool)
            .await
            .context("read the position of the write-ahead log")
    }

    /// Drops the database, with whatever connections are still open to it.
    pub async fn drop(self) -> Result<()> {
        self.pool.close().await;
        sqlx::query(&format!("DROP DATABASE {} WITH (FORCE)", self.name))
            .execute(&self.server)
            .await
            .with_context(|| format!("drop database {}", self.name))?;
        Ok(())
    }
}

async fn connect(url: &Url) -> Result<PgPool> {
    PgPoolOptions::new()
        .max_connections(2)
        .connect(url.as_str())
        .await
        .context("connect to the server")
}
