//! How fast jobs that wait are run and recorded.

use std::sync::Arc;
use std::time::Instant;

use job::Jobs;
use sqlx::{Connection, PgConnection};

use crate::child::{self, ran_together};
use crate::database::Database;
use crate::floor::{self, Claims, Floor};
use crate::ours::{self, Tally, rate};
use crate::round::OURS;
use crate::{Result, Round};

/// Without a backlog beyond what is drained.
pub const FIRST_OF_AS_MANY: &str = "drain, first 20,000 of 20,000";

/// The same work as a task, in place of an initializer and a runner.
pub const TASK: &str = "job, a task";

/// Who drains.
#[derive(Clone, Copy)]
enum Who {
    Ours,
    /// The same work as a task.
    Task,
    /// With so many connections.
    Floor(usize, Claims),
}

impl Who {
    const fn name(self) -> &'static str {
        match self {
            Who::Ours => OURS,
            Who::Task => TASK,
            Who::Floor(1, _) => "floor, 1 connection",
            Who::Floor(_, Claims::Committed) => "floor, 4 connections",
            Who::Floor(_, Claims::Held) => "floor, 4 connections, one transaction",
        }
    }
}

/// What a drain was like.
struct Drained {
    /// In jobs a second.
    rate: f64,
    statements: Option<f64>,
    /// While they ran, and with what their spawn wrote.
    wal_bytes: [f64; 2],
}

/// All jobs of a database.
pub async fn all(round: &mut Round) -> Result<()> {
    let jobs = round.sizes.drain;
    let subjects = [
        Who::Ours,
        Who::Task,
        Who::Floor(4, Claims::Committed),
        Who::Floor(1, Claims::Committed),
        Who::Floor(4, Claims::Held),
    ];
    for who in round.in_turn(subjects) {
        let drained = drain(round, who, jobs, jobs).await?;
        let subject = who.name();
        let each = 1.0 / jobs as f64;
        round.record("drain 20,000", subject, "jobs/s", drained.rate);
        if let Some(statements) = drained.statements {
            round.record("statements a job", subject, "statements", statements * each);
        }
        let [run, whole] = drained.wal_bytes;
        round.record("WAL a job", subject, "bytes", run * each);
        round.record("WAL a job, with its spawn", subject, "bytes", whole * each);
    }
    Ok(())
}

/// The first jobs of many.
///
/// Autovacuum and its statistics are left as they are: a backlog that has just come
/// about may not have been analyzed yet.
pub async fn first_of_a_backlog(round: &mut Round) -> Result<()> {
    let jobs = round.sizes.drain;
    let [some, many] = round.sizes.backlogs;
    let backlogs = [
        (jobs, FIRST_OF_AS_MANY),
        (some, "drain, first 20,000 of 200,000"),
        (many, "drain, first 20,000 of 1,000,000"),
    ];
    let subjects = [Who::Ours, Who::Floor(4, Claims::Committed)];
    for who in round.in_turn(subjects) {
        for (backlog, measure) in round.in_turn(backlogs) {
            let rate = drain(round, who, backlog, jobs).await?.rate;
            round.record(measure, who.name(), "jobs/s", rate);
        }
    }
    Ok(())
}

/// By four worker processes, and by one.
pub async fn by_processes(round: &mut Round) -> Result<()> {
    let jobs = round.sizes.drain;
    for processes in round.in_turn([4, 1]) {
        let database = round.database().await?;
        ours::filled(&database, jobs).await?;
        let mut connection = database.connect().await?;
        let mut workers = Vec::new();
        for _ in 0..processes {
            workers.push(child::Worker::start(&database.url()).await?);
        }
        let start = Instant::now();
        for worker in &mut workers {
            worker.go().await?;
        }
        ran_together(&mut workers, jobs).await?;
        ours::recorded(&mut connection, jobs).await?;
        let rate = rate(jobs, start);
        for worker in workers {
            worker.stop().await?;
        }
        connection.close().await?;
        let deadlocks = round.meter.deadlocks(&database).await?;
        let subject = match processes {
            1 => "job, 1 process",
            _ => "job, 4 processes",
        };
        round.record("drain, 4 processes", subject, "jobs/s", rate);
        round.record("deadlocks of 4 processes", subject, "deadlocks", deadlocks);
    }
    Ok(())
}

/// While a transaction stays open that began before, so that nothing dead can be
/// removed, and without one.
pub async fn beside_a_long_transaction(round: &mut Round) -> Result<()> {
    let jobs = round.sizes.pinned;
    for pinned in round.in_turn([true, false]) {
        let database = round.database().await?;
        ours::filled(&database, jobs).await?;
        let mut connection = database.connect().await?;
        let mut other = database.connect().await?;
        if pinned {
            pin(&mut other).await?;
        }
        let worker = Worker::new(&database, jobs).await?;
        let (rate, _) = worker.drain(&mut connection).await?;
        other.close().await?;
        connection.close().await?;
        let subject = match pinned {
            true => OURS,
            false => "job, without it",
        };
        round.record("drain beside a long transaction", subject, "jobs/s", rate);
    }
    Ok(())
}

/// Begins a transaction with a snapshot, and leaves it open.
async fn pin(connection: &mut PgConnection) -> Result<()> {
    for statement in [
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "SELECT pg_current_xact_id()",
    ] {
        sqlx::query(statement).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Makes a database with a backlog and drains the first jobs of it.
async fn drain(round: &mut Round, who: Who, backlog: usize, jobs: usize) -> Result<Drained> {
    let database = round.database().await?;
    let wal_before_spawn = round.meter.wal_bytes().await?;
    let (statements_before, wal_before_run);
    let (rate, statements_of_the_harness) = match who {
        Who::Ours | Who::Task => {
            ours::filled(&database, backlog).await?;
            let mut connection = database.connect().await?;
            let worker = match who {
                Who::Task => Worker::of_tasks(&database, jobs).await?,
                _ => Worker::new(&database, jobs).await?,
            };
            statements_before = round.meter.statements(&database).await?;
            wal_before_run = round.meter.wal_bytes().await?;
            let drained = worker.drain(&mut connection).await?;
            connection.close().await?;
            drained
        }
        Who::Floor(connections, claims) => {
            Floor::set_up(&database).await?.insert_many(backlog).await?;
            let floors = Floor::connect_many(&database, connections).await?;
            statements_before = round.meter.statements(&database).await?;
            wal_before_run = round.meter.wal_bytes().await?;
            (floor::drain(floors, claims, jobs).await?, 0)
        }
    };
    let wal_after = round.meter.wal_bytes().await?;
    let statements = round.meter.statements(&database).await?;
    Ok(Drained {
        rate,
        statements: statements
            .zip(statements_before)
            .map(|(after, before)| after - before - f64::from(statements_of_the_harness)),
        wal_bytes: [wal_before_run, wal_before_spawn].map(|before| wal_after - before),
    })
}

/// A worker in this process that does not poll yet.
struct Worker {
    service: Jobs,
    tally: Arc<Tally>,
    jobs: usize,
}

impl Worker {
    async fn new(database: &Database, jobs: usize) -> Result<Self> {
        let mut this = Self::without_runners(database, jobs).await?;
        this.service.add_initializer(ours::counting(&this.tally));
        Ok(this)
    }

    async fn of_tasks(database: &Database, jobs: usize) -> Result<Self> {
        let mut this = Self::without_runners(database, jobs).await?;
        let tally = Arc::clone(&this.tally);
        this.service.add_task_with::<ours::Task>(tally);
        Ok(this)
    }

    async fn without_runners(database: &Database, jobs: usize) -> Result<Self> {
        Ok(Self {
            service: ours::service(&database.url()).await?,
            tally: Tally::new(jobs),
            jobs,
        })
    }

    /// Polls until all is recorded. In jobs a second; and how many statements it took
    /// to see the end.
    async fn drain(mut self, connection: &mut PgConnection) -> Result<(f64, u32)> {
        let start = Instant::now();
        self.service.start_poll().await?;
        self.tally.reached().await;
        let statements = ours::recorded(connection, self.jobs).await?;
        let rate = rate(self.jobs, start);
        self.service.shutdown().await?;
        Ok((rate, statements))
    }
}
