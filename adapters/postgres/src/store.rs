//! The store: which connection carries out which command.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use job_engine::{Command, JobType, Rejection, Reply, StoreError, Timestamp};
use job_tokio::store::all_created;
use job_tokio::{Store, Wake};
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{Connection, PgConnection, PgPool, Postgres, Transaction};
use tokio::sync::mpsc;

use crate::error::{explain_conflict, read_error, store_error};
use crate::pools::Busy;
use crate::session::{BEGIN, OwnPools, begin_with_settings};
use crate::sql::{SchemaNameError, Sql, check_schema_name};
use crate::{claim, find, finish, lease, listen, reclaim, spawn};

/// How a store uses its database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// The schema of the tables, 1 to 63 bytes, any characters but NUL. Default: none;
    /// then it is the one in which the `search_path` finds them when the tables are
    /// checked ([`PostgresStore::check_schema`]). That has to come with the connect
    /// options of the pool, not with its hooks, because the worker makes connections of
    /// its own from those.
    pub schema: Option<String>,
    /// For transaction poolers such as PgBouncer: no LISTEN, no settings of a
    /// session, no prepared statements that outlive a transaction, no NOTIFY in
    /// transactions of the application. A worker then finds the jobs of other processes
    /// by polling only, but it announces its own to those that listen. Default `false`.
    pub poll_only: bool,
    /// Whether [`PostgresStore::announce_on`] announces. A transaction with a NOTIFY in it
    /// cannot be prepared (PREPARE TRANSACTION), its commit takes a lock that all such
    /// commits share, and fails if a session that listens stays in a transaction until the
    /// server's queue of notifications is full. Without it, other processes find jobs that
    /// are spawned in transactions at their next poll. Default `true`; never with
    /// `poll_only`.
    pub notify_in_transactions: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            schema: None,
            poll_only: false,
            notify_in_transactions: true,
        }
    }
}

impl StoreOptions {
    /// Checks the name of the schema.
    ///
    /// # Errors
    ///
    /// If it cannot be the name of one.
    pub fn check(&self) -> Result<(), SchemaNameError> {
        self.schema.as_deref().map_or(Ok(()), check_schema_name)
    }
}

/// The store on Postgres. Cheap to clone; clones share their connections, and do not
/// hear each other's announcements: what one of them does wakes the others directly.
///
/// What the application asks for (reads, checkpoints, unique jobs, many at once) goes
/// through its own pool. The rest goes through connections that this store opens with
/// the same options when they are needed: at most four for what the worker does
/// (claims, ends, heartbeats, recovery), two for spawns, one for announcements; one
/// more listens, and with an artificial clock one keeps others away
/// ([`PostgresStore::with_clock`]).
#[derive(Clone, Debug)]
pub struct PostgresStore {
    inner: Arc<Inner>,
    /// Closed with the worker, or with the last clone, and its lock is gone. That needs
    /// no runtime.
    holds_clock: Arc<Mutex<Option<PgConnection>>>,
}

/// Whose connection carries out a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// One with the settings of the worker.
    Worker,
    /// One of the application's pool, or of a transaction of its own.
    Application,
}

impl Owner {
    /// Who carries out a command that is no part of a transaction.
    fn of(command: &Command) -> Self {
        match command {
            Command::Spawn(_)
            | Command::Checkpoint(_)
            | Command::Hold(_)
            | Command::Find(_)
            | Command::History(_) => Owner::Application,
            Command::Claim(_)
            | Command::Finish(_)
            | Command::Heartbeat(_)
            | Command::Reclaim(_) => Owner::Worker,
        }
    }
}

#[derive(Debug)]
struct Inner {
    options: StoreOptions,
    /// On the schema of the options; without one, on what the `search_path` finds.
    sql: Sql,
    /// Where the tables were found, if the options do not say, and the statements on them.
    found: OnceLock<(String, Sql)>,
    pool: PgPool,
    own: OwnPools,
    /// Says which announcements are of this store.
    tag: String,
}

impl PostgresStore {
    /// A store on the database of `pool`. Opens nothing yet.
    ///
    /// [`PostgresStore::check_schema`] or [`PostgresStore::migrate`] comes next: until
    /// then the tables are those on the `search_path`, and announcements are heard by
    /// stores only that did not look for their tables either.
    ///
    /// # Errors
    ///
    /// If the name of the schema cannot be the name of one.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn new(pool: PgPool, options: StoreOptions) -> Result<Self, SchemaNameError> {
        options.check()?;
        let inner = Inner {
            sql: Sql::new(options.schema.as_deref()),
            found: OnceLock::new(),
            own: OwnPools::new(&pool, options.poll_only),
            tag: listen::new_tag(),
            options,
            pool,
        };
        Ok(Self {
            inner: Arc::new(inner),
            holds_clock: Arc::default(),
        })
    }

    /// Keeps this session until it is closed, or the last clone is dropped.
    pub(crate) fn holding(self, session: PgConnection) -> Self {
        *self.clock_session() = Some(session);
        self
    }

    fn clock_session(&self) -> MutexGuard<'_, Option<PgConnection>> {
        let session = self.holds_clock.lock();
        session.unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the worker's connections, once their commands have ended. The others stay
    /// open, since spawning goes on. After it, the commands of the worker fail, and other
    /// artificial clocks are let onto the tables.
    pub async fn close(&self) {
        self.inner.own.close().await;
        drop(self.clock_session().take());
    }

    /// Carries out a command in a transaction of the caller. It takes effect
    /// when, and only when, that commits. `now` as in [`Store::execute`].
    ///
    /// Ends and checkpoints that come back as [`Written::Stale`] have changed
    /// nothing: the caller is to roll back.
    ///
    /// [`Written::Stale`]: job_engine::store::Written::Stale
    ///
    /// # Errors
    ///
    /// As [`Store::execute`]; the transaction is of no further use then.
    /// [`Rejection::NotInTransaction`] for claims and reclaims. In a transaction that
    /// works on a snapshot (REPEATABLE READ, SERIALIZABLE), ends and checkpoints fail if
    /// the lease was renewed since it was taken.
    pub async fn execute_on(
        &self,
        connection: &mut PgConnection,
        now: Option<Timestamp>,
        command: &Command,
    ) -> Result<Reply, StoreError> {
        command.check()?;
        match command {
            Command::Claim(_) | Command::Reclaim(_) => Err(Rejection::NotInTransaction.into()),
            Command::Spawn(_)
            | Command::Finish(_)
            | Command::Heartbeat(_)
            | Command::Checkpoint(_)
            | Command::Hold(_)
            | Command::Find(_)
            | Command::History(_) => {
                let result = self.run(Owner::Application, connection, now, command).await;
                result.map_err(|error| explain_conflict(error, command))
            }
        }
    }

    /// Announces in a transaction of the caller that jobs of these types became
    /// due. Delivered when that commits. Does nothing without
    /// [`StoreOptions::notify_in_transactions`], or with [`StoreOptions::poll_only`].
    ///
    /// # Errors
    ///
    /// When the statement fails, and then so does the transaction.
    pub async fn announce_on(
        &self,
        connection: &mut PgConnection,
        types: &BTreeSet<JobType>,
    ) -> Result<(), StoreError> {
        let options = &self.inner.options;
        if options.poll_only || !options.notify_in_transactions {
            return Ok(());
        }
        self.announce_as(None, connection, types).await
    }

    async fn announce_as(
        &self,
        tag: Option<&str>,
        connection: &mut PgConnection,
        types: &BTreeSet<JobType>,
    ) -> Result<(), StoreError> {
        if types.is_empty() {
            return Ok(());
        }
        let types: Vec<&str> = types.iter().map(JobType::as_str).collect();
        let announce = self.query(&self.sql().announce);
        let announce = announce.bind(listen::channel(self.schema())).bind(types);
        let announce = announce.bind(listen::payload_prefix(tag));
        announce.execute(connection).await.map_err(store_error)?;
        Ok(())
    }

    /// The application's pool.
    pub fn pool(&self) -> &PgPool {
        &self.inner.pool
    }

    /// How it uses its database.
    pub fn options(&self) -> &StoreOptions {
        &self.inner.options
    }

    pub(crate) fn configured_schema(&self) -> Option<&str> {
        self.inner.options.schema.as_deref()
    }

    /// Where the tables are, if that was configured or found.
    pub fn schema(&self) -> Option<&str> {
        let found = self.inner.found.get().map(|(schema, _)| schema.as_str());
        self.configured_schema().or(found)
    }

    /// From now on, all statements are about the tables in this schema. If one is
    /// configured, it is that one; the first that was found stays.
    pub(crate) fn use_schema(&self, schema: &str) {
        if self.configured_schema().is_none() {
            let found = || (schema.to_owned(), Sql::new(Some(schema)));
            self.inner.found.get_or_init(found);
        }
    }

    pub(crate) fn tag(&self) -> &str {
        &self.inner.tag
    }

    pub(crate) fn poll_only(&self) -> bool {
        self.inner.options.poll_only
    }

    pub(crate) fn sql(&self) -> &Sql {
        let found = self.inner.found.get().map(|(_, sql)| sql);
        found.unwrap_or(&self.inner.sql)
    }

    /// A statement that is prepared once a connection; behind a transaction
    /// pooler each time, since the next may be on another one. For connections of
    /// the worker, and for what looks up nothing.
    pub(crate) fn query<'q>(&self, sql: &'q str) -> Query<'q, Postgres, PgArguments> {
        sqlx::query(sql).persistent(!self.poll_only())
    }

    /// A statement that looks something up, on a connection that may be one of the
    /// application. It has none of our settings, so it would keep a plan that was
    /// made while the tables were empty, and read them from end to end once they
    /// are full. What is prepared each time is planned each time. That costs a
    /// round trip. Pinned by
    /// `a_connection_of_the_application_keeps_no_plan_of_an_idle_queue`.
    pub(crate) fn query_on<'q>(
        &self,
        owner: Owner,
        sql: &'q str,
    ) -> Query<'q, Postgres, PgArguments> {
        match owner {
            Owner::Worker => self.query(sql),
            Owner::Application => sqlx::query(sql).persistent(false),
        }
    }

    async fn run(
        &self,
        owner: Owner,
        connection: &mut PgConnection,
        now: Option<Timestamp>,
        command: &Command,
    ) -> Result<Reply, StoreError> {
        match command {
            Command::Spawn(jobs) => spawn::spawn(self, connection, now, jobs).await,
            Command::Claim(claim) => claim::claim(self, connection, now, claim).await,
            Command::Finish(finishes) => {
                finish::finish(self, owner, connection, now, finishes).await
            }
            Command::Heartbeat(heartbeat) => {
                lease::heartbeat(self, owner, connection, now, heartbeat).await
            }
            Command::Checkpoint(checkpoint) => {
                lease::checkpoint(self, connection, checkpoint).await
            }
            Command::Hold(run) => lease::hold(self, connection, *run).await,
            Command::Reclaim(reclaim) => reclaim::reclaim(self, connection, now, reclaim).await,
            Command::Find(job) => find::find(self, connection, *job).await,
            Command::History(history) => find::history(self, connection, *history).await,
        }
    }

    /// Runs a command as it is, if it writes by one statement; what follows that
    /// only reads, and needs a snapshot of its own. Otherwise, and behind a
    /// transaction pooler, in a transaction.
    async fn run_alone(
        &self,
        owner: Owner,
        connection: &mut PgConnection,
        now: Option<Timestamp>,
        command: &Command,
    ) -> Result<Reply, StoreError> {
        if !self.poll_only() && !spawn::needs_transaction(command) {
            return self.run(owner, connection, now, command).await;
        }
        let mut transaction = self.begin(connection).await?;
        let reply = self.run(owner, &mut transaction, now, command).await?;
        transaction.commit().await.map_err(store_error)?;
        Ok(reply)
    }

    /// Begins a transaction, with the settings that a pooler would not keep.
    async fn begin<'c>(
        &self,
        connection: &'c mut PgConnection,
    ) -> Result<Transaction<'c, Postgres>, StoreError> {
        if self.poll_only() {
            begin_with_settings(connection).await
        } else {
            connection.begin_with(BEGIN).await.map_err(read_error)
        }
    }

    /// Carries out a spawn as a transaction of its own that fails when one of the
    /// jobs is there.
    async fn spawn_new_alone(
        &self,
        connection: &mut PgConnection,
        now: Option<Timestamp>,
        spawn: &Command,
    ) -> Result<Reply, StoreError> {
        let Command::Spawn(jobs) = spawn else {
            return self.run_alone(Owner::Worker, connection, now, spawn).await;
        };
        if !self.poll_only() && !spawn::needs_transaction(spawn) {
            return spawn::spawn_new(self, connection, now, jobs).await;
        }
        let mut transaction = self.begin(connection).await?;
        let reply = spawn::spawn_new(self, &mut transaction, now, jobs).await?;
        transaction.commit().await.map_err(store_error)?;
        Ok(reply)
    }

    /// Carries out spawns in one transaction, and takes all jobs to be new at first.
    async fn spawn_all_alone(
        &self,
        connection: &mut PgConnection,
        now: Option<Timestamp>,
        spawns: &[Command],
    ) -> Result<Vec<Reply>, StoreError> {
        let all_new = self.spawn_in_turn(connection, now, spawns, true).await;
        match all_new {
            // Most likely one of them is there.
            Err(StoreError::Rejected(_) | StoreError::Failed(_)) => {
                self.spawn_in_turn(connection, now, spawns, false).await
            }
            result => result,
        }
    }

    async fn spawn_in_turn(
        &self,
        connection: &mut PgConnection,
        now: Option<Timestamp>,
        spawns: &[Command],
        all_new: bool,
    ) -> Result<Vec<Reply>, StoreError> {
        let mut transaction = self.begin(connection).await?;
        let mut replies = Vec::with_capacity(spawns.len());
        for spawn in spawns {
            let result = match spawn {
                Command::Spawn(jobs) if all_new => {
                    spawn::spawn_new(self, &mut transaction, now, jobs).await
                }
                _ => {
                    let owner = Owner::Application;
                    self.run(owner, &mut transaction, now, spawn).await
                }
            };
            if !result.as_ref().is_ok_and(all_created) {
                transaction.rollback().await.map_err(read_error)?;
                replies.push(result?);
                return Ok(replies);
            }
            replies.push(result?);
        }
        transaction.commit().await.map_err(store_error)?;
        Ok(replies)
    }

    async fn announce_alone(
        &self,
        connection: &mut PgConnection,
        types: &BTreeSet<JobType>,
    ) -> Result<(), StoreError> {
        if !self.poll_only() {
            return self.announce_as(Some(self.tag()), connection, types).await;
        }
        let mut transaction = begin_with_settings(connection).await?;
        let tag = Some(self.tag());
        self.announce_as(tag, &mut transaction, types).await?;
        transaction.commit().await.map_err(store_error)
    }
}

impl Store for PostgresStore {
    async fn execute(
        &self,
        now: Option<Timestamp>,
        command: &Command,
    ) -> Result<Reply, StoreError> {
        command.check()?;
        let owner = Owner::of(command);
        let busy = match owner {
            Owner::Worker => self.inner.own.worker.acquire().await,
            Owner::Application => Busy::acquire_idle(self.pool()).await,
        };
        let mut busy = busy.map_err(read_error)?;
        let result = self.run_alone(owner, busy.connection(), now, command).await;
        busy.done(&result);
        result
    }

    async fn spawn_together(
        &self,
        now: Option<Timestamp>,
        spawn: &Command,
    ) -> Result<Reply, StoreError> {
        spawn.check()?;
        let busy = self.inner.own.spawner.acquire().await;
        let mut busy = busy.map_err(read_error)?;
        let mut result = self.spawn_new_alone(busy.connection(), now, spawn).await;
        if let Err(StoreError::Rejected(_)) = result {
            // One of them is there: that is no reason for the others to go alone.
            let told = self.run_alone(Owner::Worker, busy.connection(), now, spawn);
            result = told.await;
        }
        busy.done(&result);
        result
    }

    async fn spawn_all(
        &self,
        now: Option<Timestamp>,
        spawns: &[Command],
    ) -> Result<Vec<Reply>, StoreError> {
        spawns.iter().try_for_each(Command::check)?;
        let mut busy = Busy::acquire_idle(self.pool()).await.map_err(read_error)?;
        let result = self.spawn_all_alone(busy.connection(), now, spawns).await;
        busy.done(&result);
        result
    }

    async fn announce(&self, types: &BTreeSet<JobType>) -> Result<(), StoreError> {
        if types.is_empty() {
            return Ok(());
        }
        let busy = self.inner.own.announcer.acquire().await;
        let mut busy = busy.map_err(read_error)?;
        let result = self.announce_alone(busy.connection(), types).await;
        busy.done(&result);
        result
    }

    async fn listen(&self, wakes: mpsc::Sender<Wake>) {
        if self.poll_only() {
            // Never says that announcements arrive, so the driver polls often.
            wakes.closed().await;
        } else {
            listen::listen(self, wakes).await;
        }
    }
}
