//! The tables: making them, and checking that they fit this version.

use std::borrow::Cow;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection};
use thiserror::Error;

use crate::convert::get;
use crate::pools::Busy;
use crate::session::{BEGIN, connect_options};
use crate::sql::quote;
use crate::store::PostgresStore;

/// The version of the tables that this code makes and works with. Each change
/// of the tables is the next number.
pub const SCHEMA_VERSION: i32 = 1;

static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");

/// Undefined table, undefined schema.
const MISSING: [&str; 2] = ["42P01", "3F000"];

/// Why the tables do not fit this version.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// There are no tables.
    #[error(
        "there are no job tables; have them made with exec_migrations(true), or include the \
         migrations in those of the application"
    )]
    Missing,
    /// The tables are older than this version, or were migrated halfway.
    #[error(
        "the job tables are of version {found}, and this program needs version \
         {SCHEMA_VERSION}; run the migrations"
    )]
    Older {
        /// The version of the tables; 0 if they do not say.
        found: i32,
    },
    /// The tables are newer than this version can work with.
    #[error(
        "the job tables are of version {found}, for programs of version {compatible_since} or \
         later, and this program is of version {SCHEMA_VERSION}; upgrade the program"
    )]
    Newer {
        /// The version of the tables.
        found: i32,
        /// The oldest version of the program that can work with them.
        compatible_since: i32,
    },
    /// The database could not be asked.
    #[error("the job tables could not be checked: {0}")]
    Database(#[from] sqlx::Error),
}

/// The migrations of this store, for applications that run them with their own.
/// Their versions are points in time, so they fit between other such ones.
pub fn migrator() -> &'static Migrator {
    &MIGRATOR
}

impl PostgresStore {
    /// Makes the tables, or brings them to this version; makes the schema too if
    /// one is named. May be called by many processes at once, and again. Other
    /// migrations in the same `_sqlx_migrations` table, of the application or of
    /// a newer version, are left alone.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached, a migration fails, or one that ran
    /// was changed since.
    pub async fn migrate(&self) -> Result<(), MigrateError> {
        // A connection of its own: a failed migration keeps its lock, and the
        // search path is set on it.
        let options = connect_options(self.pool());
        let mut connection = connect(options, self.poll_only()).await?;
        let result = if self.poll_only() {
            migrate_in_transaction(&mut connection, self.schema()).await
        } else {
            migrate_in_session(&mut connection, self.schema()).await
        };
        // A close that fails says nothing about the migrations.
        let _ = connection.close().await;
        result
    }

    /// Checks that the tables fit this version.
    ///
    /// # Errors
    ///
    /// A [`SchemaError`] that says what to do.
    pub async fn check_schema(&self) -> Result<(), SchemaError> {
        let mut busy = Busy::acquire_idle(self.pool()).await?;
        let row = self.read_versions(busy.connection()).await;
        if row.is_ok() {
            busy.give_back();
        }
        let row = row.map_err(missing)?;
        let row = row.ok_or(SchemaError::Older { found: 0 })?;
        fits(get(&row, "version")?, get(&row, "compatible_since")?)
    }

    async fn read_versions(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Option<PgRow>, sqlx::Error> {
        // Keeps the statement on one connection, behind a pooler.
        let mut transaction = connection.begin_with(BEGIN).await?;
        let versions = self.query(&self.sql().schema_version);
        let row = versions.fetch_optional(&mut *transaction).await?;
        transaction.rollback().await?;
        Ok(row)
    }
}

async fn connect(options: PgConnectOptions, poll_only: bool) -> Result<PgConnection, sqlx::Error> {
    match poll_only {
        // The next statement may be on a connection that does not know the last.
        true => options.statement_cache_capacity(0).connect().await,
        false => options.connect().await,
    }
}

async fn migrate_in_session(
    connection: &mut PgConnection,
    schema: Option<&str>,
) -> Result<(), MigrateError> {
    if let Some(schema) = schema {
        create_schema(connection, schema).await?;
        let see = format!("SET search_path TO {}", quote(schema));
        connection.execute(&*see).await?;
    }
    migrator_with(true).run_direct(connection).await
}

/// Poolers keep neither the lock nor the search path of a session.
async fn migrate_in_transaction(
    connection: &mut PgConnection,
    schema: Option<&str>,
) -> Result<(), MigrateError> {
    if let Some(schema) = schema {
        create_schema(connection, schema).await?;
    }
    let mut transaction = connection.begin_with(BEGIN).await?;
    // Any number will do, if all versions use the same.
    transaction
        .execute("SELECT pg_advisory_xact_lock(7593020161124)")
        .await?;
    if let Some(schema) = schema {
        let see = format!("SET LOCAL search_path TO {}", quote(schema));
        transaction.execute(&*see).await?;
    }
    migrator_with(false).run_direct(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}

async fn create_schema(connection: &mut PgConnection, schema: &str) -> Result<(), sqlx::Error> {
    let create = format!("CREATE SCHEMA IF NOT EXISTS {}", quote(schema));
    match connection.execute(&*create).await {
        // Two that create it at once: one of them fails, though it exists then.
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(()),
        result => result.map(|_| ()),
    }
}

fn migrator_with(locking: bool) -> Migrator {
    Migrator {
        migrations: Cow::Borrowed(&MIGRATOR.migrations),
        ignore_missing: true,
        locking,
        no_tx: false,
    }
}

fn missing(error: sqlx::Error) -> SchemaError {
    let code = error.as_database_error().and_then(|error| error.code());
    match code {
        Some(code) if MISSING.contains(&&*code) => SchemaError::Missing,
        _ => error.into(),
    }
}

fn fits(found: i32, compatible_since: i32) -> Result<(), SchemaError> {
    if found < SCHEMA_VERSION {
        Err(SchemaError::Older { found })
    } else if compatible_since > SCHEMA_VERSION {
        Err(SchemaError::Newer {
            found,
            compatible_since,
        })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_tables_fit_for_as_long_as_they_say_so() {
        assert!(fits(SCHEMA_VERSION, 1).is_ok());
        assert!(fits(SCHEMA_VERSION + 1, SCHEMA_VERSION).is_ok());
        let newer = fits(SCHEMA_VERSION + 2, SCHEMA_VERSION + 1).unwrap_err();
        assert!(newer.to_string().contains("upgrade the program"), "{newer}");
        let older = fits(SCHEMA_VERSION - 1, 0).unwrap_err();
        assert!(older.to_string().contains("run the migrations"), "{older}");
    }

    #[test]
    fn the_migrations_are_those_of_postgres_only_and_do_not_collide() {
        assert!(!migrator().migrations.is_empty());
        for migration in migrator().iter() {
            assert!(
                migration.version > 20_000_000_000_000,
                "{}",
                migration.version
            );
            assert!(!migration.sql.contains("PRAGMA"), "{}", migration.version);
        }
    }
}
