//! Making the tables, and bringing them to this version.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use sqlx::migrate::{Migration, Migrator};
use sqlx::{Connection, Executor, PgConnection, Row};
use tokio::time::sleep;

use crate::convert::get;
use crate::look::Look;
use crate::schema::{NO_ANSWER, SchemaError, in_time};
use crate::session::BEGIN;
use crate::sql::{Sql, quote};
use crate::store::PostgresStore;

/// The files, of which the n-th brings the tables to version n.
static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");

/// The lock of those who make or change the tables, of any version, in any schema.
const MIGRATION_LOCK: i64 = 7_593_020_161_124;

/// How long that is waited for at least.
const LOCK_WAIT_MIN: Duration = Duration::from_secs(30);
/// How often it is tried until then.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

/// Unique violation, duplicate schema, duplicate table.
const DUPLICATE: [&str; 3] = ["23505", "42P06", "42P07"];

/// The migrations of this store, for applications that run them with their own.
/// Their versions are points in time, so they fit between other such ones. Where the
/// tables are there already, whoever made them, they do nothing.
pub fn migrator() -> &'static Migrator {
    static GUARDED: LazyLock<Migrator> = LazyLock::new(|| Migrator {
        migrations: (1..).zip(MIGRATOR.iter()).map(guarded).collect(),
        ..Migrator::DEFAULT
    });
    &GUARDED
}

/// With the checksum of the file, so that both are one to the ledger of an application.
fn guarded((version, migration): (i32, &Migration)) -> Migration {
    let sql = format!(
        "DO $job_migration$ DECLARE job_tables_fit boolean := false; BEGIN
PERFORM set_config('lock_timeout', '30s', true);
PERFORM pg_advisory_xact_lock({MIGRATION_LOCK});
IF to_regclass('job_schema') IS NOT NULL THEN
    job_tables_fit := EXISTS (SELECT FROM job_schema WHERE job_schema.version >= {version});
END IF;
IF job_tables_fit THEN RETURN; END IF;
{}
END $job_migration$",
        migration.sql
    );
    Migration {
        sql: sql.into(),
        ..migration.clone()
    }
}

/// Brings the tables to this version, on the connection that found that they are not.
///
/// Everything is one transaction, which begins once the lock is free: who waits holds
/// nothing meanwhile that others could wait for.
pub(crate) async fn migrate(
    store: &PostgresStore,
    connection: &mut PgConnection,
    own: &Look,
    timeout: Duration,
) -> Result<(), SchemaError> {
    if !own.any_found() {
        own.check_may_create()?;
    }
    let schema = own.schema.as_deref().unwrap_or_default();
    let limit = timeout.max(LOCK_WAIT_MIN);
    let since = Instant::now();
    loop {
        let tried = try_migrate(store.sql(), connection, schema, limit);
        match in_time(limit, NO_ANSWER, tried).await? {
            Tried::Fits => return Ok(()),
            Tried::Locked(Some((pid, application_name))) if since.elapsed() >= limit => {
                return Err(SchemaError::Locked {
                    waited: limit,
                    pid,
                    application_name,
                });
            }
            Tried::Locked(_) => sleep(LOCK_INTERVAL).await,
        }
    }
}

/// Whether somebody else made the same at the same time, in spite of the lock.
pub(crate) fn is_duplicate(error: &SchemaError) -> bool {
    let (SchemaError::Migration { source, .. } | SchemaError::Database(source)) = error else {
        return false;
    };
    let code = source.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| DUPLICATE.contains(&&*code))
}

enum Tried {
    Fits,
    /// By whom, if that is still so.
    Locked(Option<(i32, String)>),
}

async fn try_migrate(
    sql: &Sql,
    connection: &mut PgConnection,
    schema: &str,
    limit: Duration,
) -> Result<Tried, SchemaError> {
    let limit_ms = limit.as_millis();
    let begin =
        format!("{BEGIN}; SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = {limit_ms}");
    let mut transaction = connection.begin_with(begin).await?;
    let locked: bool = transaction
        .fetch_one(&*sql.migration_lock)
        .await?
        .try_get(0)?;
    if !locked {
        let holder = transaction.fetch_optional(&*sql.migration_holder).await?;
        transaction.rollback().await?;
        let holder = holder.map(|row| {
            let application_name: Option<String> = row.try_get(1)?;
            Ok::<_, sqlx::Error>((row.try_get(0)?, application_name.unwrap_or_default()))
        });
        return Ok(Tried::Locked(holder.transpose()?));
    }
    // Once more: they may have been made before the lock was free.
    let look = Look::take(&mut transaction, &sql.look, Some(schema), None).await?;
    let mut from = 0;
    if look.found("job_schema") {
        let versions = read_versions(&mut transaction, schema).await?;
        from = versions.map_or(0, |(version, _)| version);
    }
    if !look.schema_exists {
        let create = format!("CREATE SCHEMA {}", quote(schema));
        transaction.execute(&*create).await?;
    }
    let see = format!("SET LOCAL search_path TO {}", quote(schema));
    transaction.execute(&*see).await?;
    for (version, migration) in (1..).zip(MIGRATOR.iter()).filter(|(n, _)| *n > from) {
        let migrated = transaction.execute(&*migration.sql).await;
        migrated.map_err(|source| SchemaError::Migration { version, source })?;
    }
    transaction.commit().await?;
    Ok(Tried::Fits)
}

/// The version of the tables in a schema, and the oldest program that they work with.
pub(crate) async fn read_versions(
    connection: &mut PgConnection,
    schema: &str,
) -> Result<Option<(i32, i32)>, sqlx::Error> {
    let sql = Sql::new(Some(schema)).schema_version;
    let row = connection.fetch_optional(&*sql).await?;
    row.map(|row| Ok((get(&row, "version")?, get(&row, "compatible_since")?)))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::SCHEMA_VERSION;

    #[test]
    fn the_migrations_are_those_of_postgres_only_and_do_not_collide() {
        assert_eq!(MIGRATOR.iter().count() as i32, SCHEMA_VERSION);
        for (file, guarded) in MIGRATOR.iter().zip(migrator().iter()) {
            let version = file.version;
            assert!(version > 20_000_000_000_000, "{version}");
            assert!(!file.sql.contains("PRAGMA"), "{version}");
            assert!(!file.sql.contains("$job_migration$"), "{version}");
            assert_eq!(
                (guarded.version, &guarded.checksum),
                (version, &file.checksum)
            );
        }
    }

    #[test]
    fn the_number_of_the_lock_is_the_same_everywhere() {
        let sql = Sql::new(None);
        for sql in [&sql.migration_lock, &sql.migration_holder] {
            assert!(sql.contains(&MIGRATION_LOCK.to_string()), "{sql}");
        }
    }
}
