//! The tables: making them, and checking that they fit this version.
//!
//! `job_schema` is the ledger of what was installed. The application's own, the
//! table `_sqlx_migrations`, is neither read nor written: a row of ours in it
//! would be one that its migrator does not know.

use std::collections::BTreeSet;

use sqlx::migrate::Migrator;
use sqlx::{Executor, Row, SqliteConnection};
use thiserror::Error;

use crate::row::json;
use crate::sql;
use crate::store::SqliteStore;

/// The version of the tables that this code works with: as many migrations are
/// in `migrations/sqlite`, and each makes one version out of the one before it.
pub const SCHEMA_VERSION: i64 = 1;

/// The tables and indexes of [`SCHEMA_VERSION`].
const PARTS: [&str; 8] = [
    "job_checkpoints",
    "job_live",
    "job_live_pending",
    "job_live_running",
    LEDGER,
    "job_runs",
    "job_specs",
    "job_specs_unique_type",
];
const LEDGER: &str = "job_schema";

static MIGRATOR: Migrator = sqlx::migrate!("../../migrations/sqlite");

/// The tables do not fit this version, or could not be made to.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// There are no tables.
    #[error(
        "the tables do not exist; let the service create them (exec_migrations(true)), or run \
         the files in migrations/sqlite/ yourself"
    )]
    Missing,
    /// Some of the tables are there, and others not.
    #[error(
        "the tables are incomplete: there is no {missing} beside {present}; bring back what is \
         missing from a backup, or, if no job in them matters, drop the others and let the \
         service create all of them (exec_migrations(true))"
    )]
    Incomplete {
        /// The tables and indexes that are missing.
        missing: String,
        /// Those that exist.
        present: String,
    },
    /// The tables are of an older version.
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
    /// A migration failed. None of them has changed anything.
    #[error("the tables could not be brought to version {version}, nothing was changed: {source}")]
    Migration {
        /// The version that it makes.
        version: i64,
        /// Why.
        source: sqlx::Error,
    },
    /// The database failed.
    #[error("the tables could not be checked: {0}")]
    Database(#[from] sqlx::Error),
}

/// The migrations of this store, for applications that run them among their own.
/// [`SqliteStore::migrate`] then finds nothing to do; if it was there first, they
/// find nothing to do.
pub fn migrator() -> &'static Migrator {
    &MIGRATOR
}

impl SqliteStore {
    /// Makes or upgrades the tables, all or nothing, if they do not fit. If they
    /// do, it takes no lock and writes nothing. Migrations of the application in
    /// the same file are none of its business, nor is it of theirs.
    ///
    /// Of several processes or tasks that call it at once, one makes them.
    ///
    /// # Errors
    ///
    /// When a migration fails, or when the tables are such that none can make
    /// them fit; the [`SchemaError`] says what to do.
    pub async fn migrate(&self) -> Result<(), SchemaError> {
        match self.check_schema().await {
            Err(SchemaError::Missing | SchemaError::Older { .. }) => {}
            checked => return checked,
        }
        // What is not committed is rolled back when it is dropped.
        let mut transaction = self.writer().begin().await?;
        let begin = sqlx::query(sql::MIGRATION_BEGIN);
        let begun = begin.execute(&mut *transaction).await;
        begun.map_err(|source| SchemaError::Migration {
            version: SCHEMA_VERSION,
            source,
        })?;
        // Again: another may have been here while this one waited.
        let found = match check(&mut transaction).await {
            Err(SchemaError::Missing) => 0,
            Err(SchemaError::Older { found }) => found,
            checked => return checked,
        };
        for (version, migration) in (1..).zip(MIGRATOR.iter()) {
            if version > found {
                let migrated = transaction.execute(&*migration.sql).await;
                migrated.map_err(|source| SchemaError::Migration { version, source })?;
            }
        }
        let end = sqlx::query(sql::MIGRATION_END);
        end.execute(&mut *transaction).await?;
        let committed = transaction.commit().await;
        committed.map_err(|source| SchemaError::Migration {
            version: SCHEMA_VERSION,
            source,
        })
    }

    /// Checks that the tables fit this version. Takes no lock that another waits
    /// for, and writes nothing.
    ///
    /// # Errors
    ///
    /// A [`SchemaError`] that says what to do.
    pub async fn check_schema(&self) -> Result<(), SchemaError> {
        // Not on the pool of the application, which may be used up.
        let mut connection = self.writer().acquire().await?;
        check(&mut connection).await
    }
}

async fn check(connection: &mut SqliteConnection) -> Result<(), SchemaError> {
    let names = sqlx::query_scalar(sql::SCHEMA_PARTS).bind(json(&PARTS));
    let present: BTreeSet<String> = names
        .fetch_all(&mut *connection)
        .await?
        .into_iter()
        .collect();
    if present.is_empty() {
        return Err(SchemaError::Missing);
    }
    let incomplete = |missing: Vec<&str>| SchemaError::Incomplete {
        missing: missing.join(", no "),
        present: Vec::from_iter(present.iter().map(String::as_str)).join(", "),
    };
    if !present.contains(LEDGER) {
        return Err(incomplete(vec![LEDGER]));
    }
    let newest = sqlx::query(sql::SCHEMA_VERSION);
    let Some(row) = newest.fetch_optional(connection).await? else {
        return Err(incomplete(vec!["row in job_schema"]));
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
    let missing = PARTS.into_iter().filter(|part| !present.contains(*part));
    let missing: Vec<&str> = missing.collect();
    // A newer version may have parts of other names.
    if found == SCHEMA_VERSION && !missing.is_empty() {
        return Err(incomplete(missing));
    }
    Ok(())
}
