//! One artificial clock for the tables of a schema.
//!
//! The times that a store writes and judges by are those of its clock. With two
//! artificial clocks on the same tables, each would find the leases of the other run
//! out, or never, whatever it shows. So a store with such a clock shows that by a lock
//! that lasts as long as a session of its own, and refuses to be the second.

use std::time::{Duration, Instant};

use job_tokio::clock::ClockId;
use sqlx::{ConnectOptions, Connection, PgConnection, Row};
use thiserror::Error;
use tokio::time::sleep;

use crate::schema::{NO_ANSWER, in_time};
use crate::session::{BEGIN, connect_options};
use crate::sql::quote;
use crate::store::PostgresStore;

/// How long the connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one look at the others may take. Longer than the timeouts within it.
const LOOK_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the lock of a store may outlast it: its tasks have to end, and the server
/// has to notice that the connection is closed.
const LINGER_MAX: Duration = Duration::from_secs(5);
/// How often to look again until then.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What holds for the transaction in which a store looks at the others. The last is
/// for one that stops in the middle: the others wait for longer than that.
const SETTINGS: &str = "SET LOCAL statement_timeout = '10s'; SET LOCAL lock_timeout = '8s'; \
                        SET LOCAL idle_in_transaction_session_timeout = '5s'";

/// Why a store cannot be used with an artificial clock.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClockError {
    /// The tables are used with another one.
    #[error(
        "another artificial clock is in use on the same job tables, by the session with the \
         pid {pid} and the application name {application_name:?}; share one ClockHandle \
         between the services (its clones are one clock), give each test a schema or a \
         database of its own (TestJobs::postgres, schema(..)), or shut the first service \
         down before, or drop it with its spawners"
    )]
    InUse {
        /// The process of the server that has the other session.
        pid: i32,
        /// What that session calls itself; empty if it ended just now.
        application_name: String,
    },
    /// The database could not be asked.
    #[error("whether another artificial clock is in use could not be found out: {0}")]
    Database(#[from] sqlx::Error),
}

impl PostgresStore {
    /// Makes this the store of a service with an artificial clock: until it is closed, or
    /// its last clone dropped, none with another such clock is let onto the same tables.
    /// One that was dropped just now is waited for, 5 s at most. The tables must exist.
    ///
    /// It takes one more connection. Stores that tell no clock are not kept from
    /// anything. The lock is gone if that connection breaks, and 2^32 clocks are told
    /// apart. Behind a transaction pooler ([`StoreOptions::poll_only`]) there are no
    /// sessions, and nothing is checked.
    ///
    /// [`StoreOptions::poll_only`]: crate::StoreOptions::poll_only
    ///
    /// # Errors
    ///
    /// [`ClockError::InUse`] if there is another clock, or when the database fails.
    pub async fn with_clock(self, clock: ClockId) -> Result<Self, ClockError> {
        if self.poll_only() {
            return Ok(self);
        }
        let session = hold(&self, clock).await?;
        Ok(self.holding(session))
    }
}

/// A session that holds the lock until it ends.
async fn hold(store: &PostgresStore, clock: ClockId) -> Result<PgConnection, ClockError> {
    let options = connect_options(store.pool(), store.poll_only());
    let mut session = in_time(CONNECT_TIMEOUT, NO_ANSWER, options.connect()).await?;
    let give_up_at = Instant::now() + LINGER_MAX;
    loop {
        let look = hold_or_find_other(store, &mut session, clock);
        match in_time(LOOK_TIMEOUT, NO_ANSWER, look).await? {
            None => return Ok(session),
            Some((pid, application_name)) if Instant::now() >= give_up_at => {
                return Err(ClockError::InUse {
                    pid,
                    application_name,
                });
            }
            Some(_) => sleep(LOOK_INTERVAL).await,
        }
    }
}

/// Takes the lock if no other clock has one; else says which session has.
async fn hold_or_find_other(
    store: &PostgresStore,
    session: &mut PgConnection,
    clock: ClockId,
) -> Result<Option<(i32, String)>, sqlx::Error> {
    let (sql, table, object) = (store.sql(), table(store.schema()), object(clock.as_u64()));
    let mut transaction = session.begin_with(format!("{BEGIN}; {SETTINGS}")).await?;
    let turn = store.query(&sql.clock_turn).bind(&table);
    turn.execute(&mut *transaction).await?;
    let other = store.query(&sql.clock_other).bind(&table).bind(object);
    if let Some(other) = other.fetch_optional(&mut *transaction).await? {
        transaction.rollback().await?;
        let application_name: Option<String> = other.try_get(1)?;
        return Ok(Some((
            other.try_get(0)?,
            application_name.unwrap_or_default(),
        )));
    }
    let hold = store.query(&sql.clock_hold).bind(&table).bind(object);
    hold.execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(None)
}

/// The table whose lock stands for the schema.
fn table(schema: Option<&str>) -> String {
    match schema {
        Some(schema) => format!("{}.job_live", quote(schema)),
        None => "job_live".to_owned(),
    }
}

/// The number of a clock in its lock: never 0, which is that of no clock.
fn object(clock: u64) -> i32 {
    let folded = (clock >> 32) as u32 ^ clock as u32;
    folded.max(1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clock_has_a_number_that_is_not_zero() {
        assert_eq!(object(0), 1);
        assert_eq!(object((7 << 32) | 7), 1);
        assert_eq!(object((7 << 32) | 5), 2);
        assert_eq!(object(0xffff_ffff), -1);
    }

    #[test]
    fn the_table_is_that_of_the_schema_whatever_its_name() {
        assert_eq!(table(None), "job_live");
        assert_eq!(table(Some("odd \"'name")), "\"odd \"\"'name\".job_live");
    }
}
