//! What the server says that it did.

use sqlx::PgConnection;

use crate::Result;
use crate::database::{Database, Server};

/// Asks the server, from a database of its own: so that its statements count for
/// no subject.
#[derive(Debug)]
pub struct Meter {
    // Closed before its database is dropped.
    connection: PgConnection,
    counts_statements: bool,
    _database: Database,
}

impl Meter {
    /// Counts statements, too, if the server has pg_stat_statements loaded.
    ///
    /// # Errors
    ///
    /// When the server gives no database.
    pub async fn new(server: &Server) -> Result<Self> {
        let database = server.create_database().await?;
        let mut connection = database.connect().await?;
        let extension = "CREATE EXTENSION pg_stat_statements";
        let created = sqlx::query(extension).execute(&mut connection).await;
        let mut meter = Self {
            connection,
            counts_statements: created.is_ok(),
            _database: database,
        };
        if meter.counts_statements {
            // The extension can be there although the server has not loaded it.
            let counted = sqlx::query("SELECT FROM pg_stat_statements LIMIT 1");
            meter.counts_statements = counted.execute(&mut meter.connection).await.is_ok();
        }
        Ok(meter)
    }

    /// How many statements were executed on a database so far, `BEGIN`, `COMMIT` and
    /// the like included; `None` if the server does not count.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn statements(&mut self, database: &Database) -> Result<Option<f64>> {
        if !self.counts_statements {
            return Ok(None);
        }
        let sum = sqlx::query_scalar(
            "SELECT coalesce(sum(calls), 0)::float8
             FROM pg_stat_statements JOIN pg_database ON oid = dbid
             WHERE datname = $1",
        );
        let sum = sum.bind(database.name()).fetch_one(&mut self.connection);
        Ok(Some(sum.await?))
    }

    /// How many bytes of WAL the server has written so far, for all databases.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn wal_bytes(&mut self) -> Result<f64> {
        let sum = sqlx::query_scalar("SELECT (pg_current_wal_insert_lsn() - '0/0')::float8");
        Ok(sum.fetch_one(&mut self.connection).await?)
    }

    /// How many deadlocks the server had to break in a database so far.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn deadlocks(&mut self, database: &Database) -> Result<f64> {
        let deadlocks =
            sqlx::query_scalar("SELECT deadlocks::float8 FROM pg_stat_database WHERE datname = $1");
        let deadlocks = deadlocks.bind(database.name());
        Ok(deadlocks.fetch_one(&mut self.connection).await?)
    }
}
