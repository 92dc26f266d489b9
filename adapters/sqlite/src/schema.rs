//! The tables: making them, and checking that they fit this version.

use sqlx::Row;
use sqlx::migrate::{MigrateError, Migrator};
use thiserror::Error;

use crate::sql;
use crate::store::SqliteStore;

/// The version of the tables that this code works with.
pub const SCHEMA_VERSION: i64 = 1;

static MIGRATOR: Migrator = sqlx::migrate!("../../migrations/sqlite");

/// The tables do not fit this version.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// There are no tables.
    #[error(
        "the tables do not exist; let the service create them (exec_migrations(true)), or run \
         the files in migrations/sqlite/ yourself"
    )]
    Missing,
    /// The tables are of an older version, or the migrations stopped midway.
    #[error(
        "the tables are of version {found} and this program needs {SCHEMA_VERSION}; run the \
         migrations (exec_migrations(true))"
    )]
    Older {
        /// Which version was found.
        found: i64,
    },
    /// The tables are of a newer version, with which this one cannot work.
    #[error(
        "the tables are of version {found}, which needs programs that know version \
         {compatible_since} or later, and this one knows {SCHEMA_VERSION}; upgrade the program"
    )]
    Newer {
        /// Which version was found.
        found: i64,
        /// The oldest that can work with it.
        compatible_since: i64,
    },
    /// The database failed.
    #[error("the tables could not be checked: {0}")]
    Database(#[from] sqlx::Error),
}

/// The migrations of this store, to be run among others.
pub fn migrator() -> &'static Migrator {
    &MIGRATOR
}

impl SqliteStore {
    /// Makes or upgrades the tables. Other migrations in the same file, of the
    /// application or of a newer version of this store, are left alone.
    ///
    /// # Errors
    ///
    /// When a migration fails, or one that was run has since been changed.
    pub async fn migrate(&self) -> Result<(), MigrateError> {
        let migrator = Migrator {
            migrations: MIGRATOR.migrations.clone(),
            ignore_missing: true,
            locking: true,
            no_tx: false,
        };
        // SQLite has no lock for this. Of two processes that begin at once, one
        // fails, undone, and finds at its second try what the other has made.
        match migrator.run(self.writer()).await {
            Ok(()) => Ok(()),
            Err(_) => migrator.run(self.writer()).await,
        }
    }

    /// Checks that the tables fit this version.
    ///
    /// # Errors
    ///
    /// A [`SchemaError`] that says what to do.
    pub async fn check_schema(&self) -> Result<(), SchemaError> {
        let row = match sqlx::query(sql::SCHEMA_VERSION)
            .fetch_optional(self.pool())
            .await
        {
            Ok(row) => row.ok_or(SchemaError::Missing)?,
            Err(sqlx::Error::Database(error)) if error.message().contains("no such table") => {
                return Err(SchemaError::Missing);
            }
            Err(error) => return Err(error.into()),
        };
        let (found, compatible_since) = (row.try_get(0)?, row.try_get(1)?);
        if found < SCHEMA_VERSION {
            return Err(SchemaError::Older { found });
        }
        if compatible_since > SCHEMA_VERSION {
            return Err(SchemaError::Newer {
                found,
                compatible_since,
            });
        }
        Ok(())
    }
}
