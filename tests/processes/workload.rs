//! The jobs of the chaos: their types, and what their runners do and write down.

use std::error::Error;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use job::{
    CurrentJob, Job, JobCompletion, JobError, JobId, JobInitializer, JobRunner, JobSpawner,
    JobType, RetrySettings,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::books::{Books, Clock, Entry, Line, Meant, Micros, State};

/// How often a runner that does not end when it should looks why.
const LOOK: Duration = Duration::from_millis(50);
/// The error of a run that fails as its order says.
pub const AS_ORDERED: &str = "failed as ordered";
/// How many unique jobs there are, each of a type of its own.
pub const UNIQUES: u32 = 16;

/// The kinds of jobs; a type each, except for the unique ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Writes into the ledger in the transaction that it completes with.
    InTx,
    /// The same, and ends after two crashes in a row.
    Fragile,
    /// The same, and takes longer than a lease.
    Slow,
    /// The same, and blocks its thread.
    Blocking,
    /// The same, after some failures.
    Retrying,
    /// The same; there is one of its type, ever.
    Unique,
    /// Writes into the ledger, then completes.
    Outside,
    /// Fails until it has no attempt left.
    Erroring,
    /// Reschedules itself, with an entry in the ledger and the count of its
    /// turns in the transaction of each reschedule.
    Turning,
    /// Keeps the count of its turns, then reschedules itself.
    Keeping,
    /// Spawns children in the transaction that it completes with.
    Parent,
}

impl Kind {
    /// All of them that have one type.
    pub const ORDINARY: [Self; 10] = [
        Self::InTx,
        Self::Fragile,
        Self::Slow,
        Self::Blocking,
        Self::Retrying,
        Self::Outside,
        Self::Erroring,
        Self::Turning,
        Self::Keeping,
        Self::Parent,
    ];

    pub fn of(job_type: &str) -> Option<Self> {
        let mut ordinary = Self::ORDINARY.into_iter();
        let ordinary = ordinary.find(|kind| kind.name() == job_type);
        ordinary.or(job_type.starts_with("unique_").then_some(Self::Unique))
    }

    fn name(self) -> &'static str {
        match self {
            Self::InTx => "in_tx",
            Self::Fragile => "fragile",
            Self::Slow => "slow",
            Self::Blocking => "blocking",
            Self::Retrying => "retrying",
            Self::Unique => "unique",
            Self::Outside => "outside",
            Self::Erroring => "erroring",
            Self::Turning => "turning",
            Self::Keeping => "keeping",
            Self::Parent => "parent",
        }
    }

    pub fn job_type(self) -> JobType {
        JobType::from(self.name().to_owned())
    }

    pub fn unique(n: u32) -> JobType {
        JobType::from(format!("unique_{n}"))
    }

    /// Attempts in all; `None` for as many as it takes.
    pub fn attempts_max(self) -> Option<u32> {
        (self == Self::Erroring).then_some(4)
    }

    /// Crashes in a row that are too many; `None` for jobs that the chaos must
    /// not end.
    pub fn crashes_max(self) -> Option<u32> {
        match self {
            Self::Fragile => Some(2),
            Self::Erroring => Some(3),
            Self::InTx
            | Self::Slow
            | Self::Blocking
            | Self::Retrying
            | Self::Unique
            | Self::Outside
            | Self::Turning
            | Self::Keeping
            | Self::Parent => None,
        }
    }

    pub fn retry(self) -> RetrySettings {
        RetrySettings {
            n_attempts: self.attempts_max(),
            n_warn_attempts: None,
            min_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_millis(400),
            backoff_jitter_pct: 20,
            // However long a run took: then the attempts can be counted.
            attempt_reset_after_backoff_multiples: 0,
        }
    }
}

/// The config of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// How long the first attempt takes. Each later one takes half as long, so
    /// that what is killed again and again gets done in the end.
    pub work_ms: u64,
    /// Works on when it should end.
    pub stubborn: bool,
    /// How many attempts of a [`Kind::Retrying`] fail.
    pub failures: u32,
    /// How often it reschedules itself.
    pub turns: u32,
    /// How many children it spawns.
    pub children: u32,
    /// Whose child it is.
    pub parent: Option<Uuid>,
}

/// What the runners of a process share.
pub struct Desk<B: Books> {
    /// For the diary: what is written there does not wait for transactions.
    pub pool: B::Pool,
    pub worker: Uuid,
    pub clock: Clock,
    pub places: AtomicU64,
    /// Where runs go that were dropped: a destructor cannot write.
    pub dropped: UnboundedSender<Line>,
}

/// The initializer of a type.
pub struct Work<B: Books> {
    pub kind: Kind,
    pub job_type: JobType,
    pub desk: Arc<Desk<B>>,
    /// Where parents get their children from.
    pub children: Option<JobSpawner<Order, B>>,
}

impl<B: Books> JobInitializer<B> for Work<B> {
    type Config = Order;

    fn job_type(&self) -> JobType {
        self.job_type.clone()
    }

    fn retry_on_error_settings(&self) -> RetrySettings {
        self.kind.retry()
    }

    fn crashes_max(&self) -> Option<u32> {
        self.kind.crashes_max()
    }

    fn init(
        &self,
        job: &Job,
        _: JobSpawner<Order, B>,
    ) -> Result<Box<dyn JobRunner<B>>, Box<dyn Error>> {
        Ok(Box::new(Runner {
            kind: self.kind,
            order: job.config()?,
            desk: Arc::clone(&self.desk),
            children: self.children.clone(),
            // Before anything is awaited: in the order of the claims.
            place: self.desk.places.fetch_add(1, Ordering::Relaxed),
        }))
    }
}

struct Runner<B: Books> {
    kind: Kind,
    order: Order,
    desk: Arc<Desk<B>>,
    children: Option<JobSpawner<Order, B>>,
    place: u64,
}

#[async_trait]
impl<B: Books> JobRunner<B> for Runner<B> {
    async fn run(&self, job: CurrentJob<B>) -> Result<JobCompletion<B>, Box<dyn Error>> {
        let found = job.execution_state::<State>()?;
        Ok(self.perform(job, found).await?)
    }
}

impl<B: Books> Runner<B> {
    async fn perform(
        &self,
        job: CurrentJob<B>,
        found: Option<State>,
    ) -> Result<JobCompletion<B>, String> {
        let mut run = Run::begin(&self.desk, job, self.place, found).await?;
        let turn = found.map_or(0, |found| found.turn) + 1;
        self.work(&mut run).await?;
        match self.kind {
            Kind::InTx | Kind::Fragile | Kind::Slow | Kind::Blocking | Kind::Unique => {
                self.complete(run, 0).await
            }
            Kind::Retrying if run.job.attempt() > self.order.failures => {
                self.complete(run, 0).await
            }
            Kind::Retrying | Kind::Erroring => {
                run.ending(Meant::Fail).await?;
                Err(AS_ORDERED.to_owned())
            }
            Kind::Outside => {
                // On the pool that applications are given.
                let entered = B::enter(run.job.pool(), run.entry(0)).await;
                entered.map_err(text)?;
                run.ending(Meant::Complete).await?;
                Ok(JobCompletion::Complete)
            }
            Kind::Turning if turn <= self.order.turns => self.turn(run, turn).await,
            Kind::Turning => self.complete(run, turn).await,
            Kind::Keeping if turn <= self.order.turns => keep(run, turn).await,
            Kind::Keeping => self.complete(run, 0).await,
            Kind::Parent => self.complete(run, 0).await,
        }
    }

    async fn work(&self, run: &mut Run<'_, B>) -> Result<(), String> {
        let halvings = run.job.attempt().saturating_sub(1).min(8);
        let takes = Duration::from_millis(self.order.work_ms >> halvings);
        if self.kind == Kind::Blocking {
            std::thread::sleep(takes);
            return Ok(());
        }
        let until = Instant::now() + takes;
        let asked = timeout(takes, run.job.shutdown_requested()).await.is_ok();
        run.note_loss().await?;
        if asked && self.order.stubborn {
            while Instant::now() < until {
                sleep(LOOK).await;
                run.note_loss().await?;
            }
        }
        Ok(())
    }

    /// Completes with an entry in the ledger, and with children.
    async fn complete(&self, mut run: Run<'_, B>, turn: u32) -> Result<JobCompletion<B>, String> {
        // First: on SQLite nobody else can write once the transaction has begun.
        run.ending(Meant::Complete).await?;
        let mut transaction = run.begin_transaction(turn).await?;
        for _ in 0..self.order.children {
            let spawner = self.children.as_ref().expect("parents have a spawner");
            let child = Order {
                work_ms: 20,
                parent: Some(run.job_id()),
                ..Order::default()
            };
            let spawned = spawner.spawn_in_op(&mut transaction, JobId::new(), child);
            spawned.await.map_err(text)?;
        }
        Ok(JobCompletion::CompleteWithTx(transaction))
    }

    /// Reschedules with an entry in the ledger and the new count of turns.
    async fn turn(&self, mut run: Run<'_, B>, turn: u32) -> Result<JobCompletion<B>, String> {
        let again = Again::at(turn);
        run.ending(again.meant()).await?;
        let mut transaction = run.begin_transaction(turn).await?;
        let state = State { turn, by: run.id };
        let kept = run
            .job
            .update_execution_state_in_op(&mut transaction, &state);
        let kept = kept.await;
        if kept.is_err() {
            B::roll_back(transaction).await.map_err(text)?;
            return Err(run.refused(kept).await?);
        }
        Ok(match again {
            Again::Now => JobCompletion::RescheduleNowWithTx(transaction),
            Again::In(delay) => JobCompletion::RescheduleInWithTx(transaction, delay),
            Again::At(at) => JobCompletion::RescheduleAtWithTx(transaction, time(at)),
            Again::Snoozed(delay) => JobCompletion::snooze_in(delay).in_tx(transaction),
        })
    }
}

/// Keeps the new count of turns, then reschedules.
async fn keep<B: Books>(mut run: Run<'_, B>, turn: u32) -> Result<JobCompletion<B>, String> {
    let state = State { turn, by: run.id };
    let kept = run.job.update_execution_state(state).await;
    if kept.is_err() {
        return Err(run.refused(kept).await?);
    }
    run.write(&Line::Kept { run: run.id, turn }).await?;
    let again = Again::at(turn);
    run.ending(again.meant()).await?;
    Ok(match again {
        Again::Now => JobCompletion::RescheduleNow,
        Again::In(delay) => JobCompletion::RescheduleIn(delay),
        Again::At(at) => JobCompletion::RescheduleAt(time(at)),
        Again::Snoozed(delay) => JobCompletion::snooze_in(delay),
    })
}

/// When a job takes its next turn.
#[derive(Clone, Copy)]
enum Again {
    Now,
    In(Duration),
    At(Micros),
    Snoozed(Duration),
}

impl Again {
    /// The turns take turns.
    fn at(turn: u32) -> Self {
        match turn % 5 {
            0 => Self::Now,
            1 => Self::In(Duration::from_millis(120)),
            2 => Self::Snoozed(Duration::from_millis(60)),
            3 => Self::At(micros(Duration::from_millis(80))),
            // In the past.
            _ => Self::At(0),
        }
    }

    fn meant(self) -> Meant {
        match self {
            Self::Now => Meant::RescheduleNow,
            Self::In(delay) => Meant::RescheduleIn {
                micros: delay.as_micros() as u64,
            },
            Self::At(at) => Meant::RescheduleAt { at },
            Self::Snoozed(delay) => Meant::SnoozeIn {
                micros: delay.as_micros() as u64,
            },
        }
    }
}

fn micros(from_now: Duration) -> Micros {
    (chrono::Utc::now() + from_now).timestamp_micros()
}

fn time(at: Micros) -> chrono::DateTime<chrono::Utc> {
    chrono::DateTime::from_timestamp_micros(at).expect("it came from a time")
}

/// A run at work.
struct Run<'a, B: Books> {
    desk: &'a Desk<B>,
    job: CurrentJob<B>,
    id: Uuid,
    told: bool,
    ending: bool,
}

impl<'a, B: Books> Run<'a, B> {
    async fn begin(
        desk: &'a Desk<B>,
        job: CurrentJob<B>,
        place: u64,
        found: Option<State>,
    ) -> Result<Self, String> {
        let run = Self {
            desk,
            job,
            id: Uuid::now_v7(),
            told: false,
            ending: false,
        };
        let started = Line::Started {
            run: run.id,
            job: run.job_id(),
            attempt: run.job.attempt(),
            worker: desk.worker,
            place,
            found,
        };
        run.write(&started).await?;
        Ok(run)
    }

    fn job_id(&self) -> Uuid {
        (*self.job.id()).into()
    }

    fn entry(&self, turn: u32) -> Entry {
        Entry {
            job: self.job_id(),
            run: self.id,
            turn,
        }
    }

    async fn write(&self, line: &Line) -> Result<(), String> {
        B::write(&self.desk.pool, line).await.map_err(text)
    }

    /// Writes down that the lease is lost, once, if it is.
    async fn note_loss(&mut self) -> Result<(), String> {
        if self.job.is_lease_lost() && !self.told {
            self.told = true;
            self.write(&Line::Told { run: self.id }).await?;
        }
        Ok(())
    }

    async fn ending(&mut self, how: Meant) -> Result<(), String> {
        self.note_loss().await?;
        self.write(&Line::Ending { run: self.id, how }).await?;
        self.ending = true;
        Ok(())
    }

    async fn begin_transaction(&self, turn: u32) -> Result<B::Transaction, String> {
        let mut transaction = B::begin(self.job.pool()).await.map_err(text)?;
        let entered = B::enter_in(&mut transaction, self.entry(turn)).await;
        entered.map_err(text)?;
        Ok(transaction)
    }

    /// Writes down why an execution state was not kept. The text is the error
    /// that the run ends with, which the history must not have: it is over.
    async fn refused(&mut self, kept: Result<(), JobError>) -> Result<String, String> {
        if let Err(JobError::LeaseLost(_)) = kept {
            self.told = true;
            self.write(&Line::Told { run: self.id }).await?;
        }
        Ok(kept.map_or_else(text, |()| "nothing was refused".to_owned()))
    }
}

impl<B: Books> Drop for Run<'_, B> {
    fn drop(&mut self) {
        if !self.ending {
            // Without a receiver the process is about to end.
            let (run, at) = (self.id, self.desk.clock.now());
            let _ = self.desk.dropped.send(Line::Dropped { run, at });
        }
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}
