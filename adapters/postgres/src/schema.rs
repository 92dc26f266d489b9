//! The tables: finding them, and whether they fit this version.

use std::io;
use std::time::Duration;

use sqlx::{ConnectOptions, Connection, PgConnection};
use thiserror::Error;

use crate::error::advice;
use crate::look::Look;
use crate::migrate;
use crate::pools::Busy;
use crate::session::connect_options;
use crate::store::PostgresStore;

/// The version of the tables that this code makes and works with. Each change
/// of the tables is the next number, and one more file of `migrations/`.
pub const SCHEMA_VERSION: i32 = 1;

/// The oldest server that is supported, as it tells its version.
pub(crate) const SERVER_VERSION_MIN: i32 = 140_000;

/// How long each answer of the database may take at the start, if nothing else is said.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The code of "current transaction is aborted".
const IN_FAILED_TRANSACTION: &str = "25P02";

/// Why a service cannot work with the tables.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// There are no tables.
    #[error(
        "there are no job tables in {place} for the role {role:?}; have them made with \
         exec_migrations(true), include the migrations in those of the application, or say \
         where they are with .schema(..)"
    )]
    Missing {
        /// Who looked.
        role: String,
        /// Where.
        place: String,
    },
    /// Some of the tables are there, and others are not.
    #[error(
        "of the job tables, {missing} is missing in the schema {schema:?}, and {found} is there; \
         they cannot be made one by one: restore what is gone or drop the rest, or, if {found} \
         is a table of the application, give the jobs a schema of their own with .schema(\"jobs\")"
    )]
    Incomplete {
        /// The schema.
        schema: String,
        /// The tables that are there.
        found: String,
        /// Those that are not.
        missing: String,
    },
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
    /// The connections that the store opens do not see what the application's pool
    /// sees: its hooks change the role or the search path, and are not inherited.
    #[error(
        "the connections that the service opens for its worker find {own}; a connection of the \
         pool finds {pool}. What hooks of the pool do (after_connect: SET ROLE, SET \
         search_path) is not inherited: put it in the connect options of the pool, {options}, \
         or, if it is about the schema, set .schema({schema:?})"
    )]
    NotInherited {
        /// What is found without the hooks.
        own: String,
        /// What is found with them.
        pool: String,
        /// Connect options that do what the hooks do.
        options: String,
        /// The schema that the pool sees.
        schema: String,
    },
    /// The role may not use the tables.
    #[error(
        "the role {role:?} may not use the job tables in the schema {schema:?} as a service \
         does; let their owner run: {grants}"
    )]
    MayNotUse {
        /// The role.
        role: String,
        /// The schema.
        schema: String,
        /// What its owner can run.
        grants: String,
    },
    /// Row security shows no row of a table to the role.
    #[error(
        "row security is on for {table}, and there is no policy that lets the role {role:?} see \
         its rows; let the owner run ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"
    )]
    Hidden {
        /// The table.
        table: String,
        /// The role.
        role: String,
    },
    /// The tables have to be made, and the role may not.
    #[error(
        "the job tables have to be made, and the role {role:?} may not create anything in the \
         schema {schema:?}; let its owner run {grant}, or have the tables made by a role that \
         may, and set exec_migrations(false)"
    )]
    MayNotCreate {
        /// The role.
        role: String,
        /// The schema.
        schema: String,
        /// What its owner can run.
        grant: String,
    },
    /// The tables have to be made, and no schema of the search path exists.
    #[error(
        "the job tables have to be made, and of the search_path {search_path:?} no schema \
         exists that the role {role:?} may use; name one with .schema(..)"
    )]
    NoSchema {
        /// The role.
        role: String,
        /// Its search path.
        search_path: String,
    },
    /// Nothing can be written.
    #[error(
        "the database is read-only: {}",
        if *standby { "it is a standby; connect to the primary" }
        else { "default_transaction_read_only is on for this role or database; set it off" }
    )]
    ReadOnly {
        /// Whether it is a standby.
        standby: bool,
    },
    /// The server is too old.
    #[error("the server is PostgreSQL {found}, and 14 or later is needed; upgrade the server")]
    ServerTooOld {
        /// Its major version.
        found: i32,
    },
    /// Somebody else makes or changes the tables, and does not come to an end.
    #[error(
        "the job tables have to be migrated, and another session has held the lock for that for \
         {waited:?}: the pid {pid}, application name {application_name:?}; let it end, or end it \
         with SELECT pg_terminate_backend({pid})"
    )]
    Locked {
        /// How long it was waited for.
        waited: Duration,
        /// The process of the server that has the other session.
        pid: i32,
        /// What that session calls itself.
        application_name: String,
    },
    /// A migration failed; nothing of it was kept.
    #[error(
        "the migration of the job tables to version {version} failed: {source}{}",
        advice(source)
    )]
    Migration {
        /// The version to which it was to bring them.
        version: i32,
        /// Why.
        source: sqlx::Error,
    },
    /// The database could not be asked.
    #[error("the job tables could not be checked: {0}{advice}", advice = advice(.0))]
    Database(#[from] sqlx::Error),
}

/// What a connection such as the worker's found.
struct Found {
    own: Look,
    /// The version of the tables, and the oldest program that they work with; `None` if
    /// they do not say.
    versions: Option<(i32, i32)>,
}

impl PostgresStore {
    /// Makes the tables, or brings them to this version, and does what
    /// [`PostgresStore::check_schema`] does. Makes the schema too, if one is named.
    /// Tables that fit are left alone: nothing is locked or written, and no right is
    /// needed but those of a worker. May be called by many processes at once, and
    /// again. Neither reads nor writes `_sqlx_migrations`: the ledger is `job_schema`.
    ///
    /// # Errors
    ///
    /// A [`SchemaError`] that says what to do. A migration that failed left nothing
    /// behind.
    pub async fn migrate(&self) -> Result<(), SchemaError> {
        self.prepare(true, ANSWER_TIMEOUT).await
    }

    /// Finds the tables, and checks that they fit this version, and that the role may
    /// use them: through a connection such as the worker opens, and through the
    /// application's pool. All statements are then about the schema in which they were
    /// found, whatever becomes of the `search_path`. At most three statements, which
    /// write and lock nothing.
    ///
    /// # Errors
    ///
    /// A [`SchemaError`] that says what to do.
    pub async fn check_schema(&self) -> Result<(), SchemaError> {
        self.prepare(false, ANSWER_TIMEOUT).await
    }

    /// [`PostgresStore::check_schema`], after [`PostgresStore::migrate`] if `migrate` is
    /// set. Each connection and each answer may take as long as `timeout`, the lock of
    /// other migrations that long, or 30 s if that is longer.
    ///
    /// # Errors
    ///
    /// As those.
    pub async fn prepare(&self, migrate: bool, timeout: Duration) -> Result<(), SchemaError> {
        // A connection of its own: what the worker's pool says when it has none is not
        // what the server says.
        let options = connect_options(self.pool(), self.poll_only());
        let what = "no connection to the database";
        let mut connection = in_time(timeout, what, options.connect()).await?;
        let prepared = self.prepare_on(&mut connection, migrate, timeout).await;
        // A close that fails says nothing about the tables.
        let _ = tokio::time::timeout(timeout, connection.close()).await;
        self.use_schema(&prepared?);
        Ok(())
    }

    /// Returns the schema.
    async fn prepare_on(
        &self,
        connection: &mut PgConnection,
        migrate: bool,
        timeout: Duration,
    ) -> Result<String, SchemaError> {
        let found = self.find_tables(connection, migrate, timeout).await?;
        match found.fits() {
            Err(SchemaError::Missing { .. } | SchemaError::Older { .. }) if migrate => {}
            fits => return fits,
        }
        let migrated = migrate::migrate(self, connection, &found.own, timeout).await;
        match migrated {
            Err(error) if !migrate::is_duplicate(&error) => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // Whoever made them: what counts is what is there now.
        let fits = self.find_tables(connection, false, timeout).await?.fits();
        fits.map_err(|unfit| migrated.err().unwrap_or(unfit))
    }

    async fn find_tables(
        &self,
        connection: &mut PgConnection,
        migrate: bool,
        timeout: Duration,
    ) -> Result<Found, SchemaError> {
        let own = Look::take(connection, &self.sql().look, self.configured_schema(), None);
        let own = in_time(timeout, NO_ANSWER, own).await?;
        own.check_server()?;
        // Where hooks change the search path, but not to other tables, what matters is
        // whether the pool may use these.
        let fallback = own.schema.as_deref().filter(|_| own.any_found());
        let pool = self.look_through_pool(fallback, timeout).await?;
        pool.check_server()?;
        own.check_inherits(&pool, migrate)?;
        own.check_rights()?;
        pool.check_rights()?;
        let versions = match own.schema.as_deref() {
            Some(schema) if own.found("job_schema") => {
                let versions = migrate::read_versions(connection, schema);
                in_time(timeout, NO_ANSWER, versions).await?
            }
            _ => None,
        };
        Ok(Found { own, versions })
    }

    /// What a runner finds that uses the application's pool.
    async fn look_through_pool(
        &self,
        fallback: Option<&str>,
        timeout: Duration,
    ) -> Result<Look, SchemaError> {
        let any = Busy::acquire(self.pool());
        match self.look_through(any, fallback, timeout).await {
            Err(error) if is_in_failed_transaction(&error) => {
                let idle = Busy::acquire_idle(self.pool());
                Ok(self.look_through(idle, fallback, timeout).await?)
            }
            found => Ok(found?),
        }
    }

    async fn look_through(
        &self,
        acquired: impl Future<Output = Result<Busy, sqlx::Error>>,
        fallback: Option<&str>,
        timeout: Duration,
    ) -> Result<Look, sqlx::Error> {
        let mut busy = in_time(timeout, "no connection of the pool is to be had", acquired).await?;
        let (look, configured) = (&self.sql().look, self.configured_schema());
        let found = Look::take(busy.connection(), look, configured, fallback);
        let found = in_time(timeout, NO_ANSWER, found).await?;
        busy.give_back();
        Ok(found)
    }
}

fn is_in_failed_transaction(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.as_deref() == Some(IN_FAILED_TRANSACTION)
}

impl Found {
    /// The schema of the tables, if they fit.
    fn fits(&self) -> Result<String, SchemaError> {
        let own = &self.own;
        let Some(schema) = own.schema.clone().filter(|_| own.any_found()) else {
            return Err(own.missing());
        };
        if let Some((found, _)) = self.versions
            && found < SCHEMA_VERSION
        {
            return Err(SchemaError::Older { found });
        }
        let missing = own.names(false);
        if !missing.is_empty() {
            return Err(SchemaError::Incomplete {
                schema,
                found: own.names(true).join(", "),
                missing: missing.join(", "),
            });
        }
        match self.versions {
            None => Err(SchemaError::Older { found: 0 }),
            Some((found, compatible_since)) if compatible_since > SCHEMA_VERSION => {
                Err(SchemaError::Newer {
                    found,
                    compatible_since,
                })
            }
            Some(_) => Ok(schema),
        }
    }
}

pub(crate) const NO_ANSWER: &str = "the database did not answer";

/// The result of `work`, or an error that says what did not come.
pub(crate) async fn in_time<T, E: From<sqlx::Error>>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let done = tokio::time::timeout(limit, work).await;
    done.unwrap_or_else(|_| {
        let text = format!("{what} within {limit:?}");
        let error = io::Error::new(io::ErrorKind::TimedOut, text);
        Err(sqlx::Error::Io(error).into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::Table;

    fn found(names: &[(&str, bool)], versions: Option<(i32, i32)>) -> Found {
        let tables = names.iter().map(|(name, found)| Table {
            name: (*name).to_owned(),
            found: *found,
            ..Table::default()
        });
        Found {
            own: Look {
                schema: Some("public".to_owned()),
                tables: tables.collect(),
                ..Look::default()
            },
            versions,
        }
    }

    #[test]
    fn newer_tables_fit_for_as_long_as_they_say_so() {
        let fits = |version, compatible_since| {
            found(&[("job_schema", true)], Some((version, compatible_since))).fits()
        };
        fits(SCHEMA_VERSION, 1).unwrap();
        fits(SCHEMA_VERSION + 1, SCHEMA_VERSION).unwrap();
        let newer = fits(SCHEMA_VERSION + 2, SCHEMA_VERSION + 1).unwrap_err();
        assert!(newer.to_string().contains("upgrade the program"), "{newer}");
        let older = fits(SCHEMA_VERSION - 1, 0).unwrap_err();
        assert!(older.to_string().contains("run the migrations"), "{older}");
    }

    #[test]
    fn tables_of_which_one_is_missing_name_it() {
        let some = found(&[("job_runs", false), ("job_live", true)], None);
        let text = some.fits().unwrap_err().to_string();
        assert!(text.contains("job_runs is missing"), "{text}");
        let none = found(&[("job_runs", false)], None).fits().unwrap_err();
        assert!(matches!(none, SchemaError::Missing { .. }), "{none}");
    }
}
