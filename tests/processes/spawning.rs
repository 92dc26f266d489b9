//! Spawning in every way there is, all along, from every process.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use job::{JobError, JobId, JobSpawner, Jobs};
use sqlx::Error;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::books::{Books, Line, Micros};
use super::dice::Dice;
use super::workload::{Desk, Kind, Order, UNIQUES, Work};

/// How often each kind is spawned.
const WEIGHTS: [(u64, Kind); 10] = [
    (24, Kind::InTx),
    (16, Kind::Outside),
    (10, Kind::Retrying),
    (14, Kind::Turning),
    (12, Kind::Keeping),
    (8, Kind::Parent),
    (5, Kind::Erroring),
    (6, Kind::Fragile),
    (8, Kind::Slow),
    (1, Kind::Blocking),
];

/// How a job is spawned.
#[derive(Clone, Copy)]
enum Way {
    /// By a call that is waited for.
    Call,
    /// By a call that is given up on, perhaps in the middle.
    CutCall,
    /// In a transaction that is committed.
    Committed,
    /// In a transaction whose commit is given up on, perhaps in the middle.
    CutCommit,
    /// In a transaction that is rolled back.
    RolledBack,
    /// In a transaction that is dropped.
    Dropped,
    /// By a call, after a transaction that was given up on, perhaps in the middle
    /// of its begin.
    AfterCutBegin,
}

const WAYS: [(u64, Way); 7] = [
    (25, Way::Call),
    (10, Way::CutCall),
    (30, Way::Committed),
    (10, Way::CutCommit),
    (12, Way::RolledBack),
    (8, Way::Dropped),
    (5, Way::AfterCutBegin),
];

/// A call that is cut is so within this time.
const CUT_MS_MAX: u64 = 4;
/// A begin that is cut is so at one of its first awaits.
const POLLS_MAX: u64 = 4;

/// When spawners spawn, and how eagerly.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct Season {
    pub from: Micros,
    pub until: Micros,
    /// With so many jobs waiting or at work, nothing is added.
    pub backlog_max: u64,
    /// The longest pause between two spawns.
    pub pause_ms_max: u64,
}

/// Spawners of all types.
pub struct Spawners<B: Books> {
    ordinary: BTreeMap<Kind, JobSpawner<Order, B>>,
    unique: Vec<JobSpawner<Order, B>>,
}

impl<B: Books> Spawners<B> {
    /// Registers all types.
    pub fn register(jobs: &mut Jobs<B>, desk: &Arc<Desk<B>>) -> Self {
        let mut add = |kind, job_type, children: Option<&JobSpawner<Order, B>>| {
            jobs.add_initializer(Work {
                kind,
                job_type,
                desk: Arc::clone(desk),
                children: children.cloned(),
            })
        };
        let child = add(Kind::InTx, Kind::InTx.job_type(), None);
        let others = Kind::ORDINARY.into_iter().skip(1);
        let others = others.map(|kind| (kind, add(kind, kind.job_type(), Some(&child))));
        let mut ordinary: BTreeMap<_, _> = others.collect();
        let unique = (0..UNIQUES).map(|n| add(Kind::Unique, Kind::unique(n), None));
        let unique = unique.collect();
        ordinary.insert(Kind::InTx, child);
        Self { ordinary, unique }
    }
}

/// Spawns until the season is over, or until `enough` is set.
///
/// What is written down goes through `pool`; transactions are begun on the pool of
/// the service alone, since sqlx may take a connection back in the middle of one
/// that was given up on.
pub async fn spawn_for_a_season<B: Books>(
    pool: &B::Pool,
    service_pool: &B::Pool,
    spawners: &Spawners<B>,
    season: Season,
    mut dice: Dice,
    enough: &AtomicBool,
) -> Result<(), Error> {
    while !enough.load(Ordering::Relaxed) {
        let now = B::now(pool).await?;
        if now >= season.until {
            break;
        }
        if dice.pct(10) {
            // Everybody wants the same one at the same time.
            let share = (now - season.from).max(0) * i64::from(UNIQUES);
            let n = share / (season.until - season.from);
            spawn_unique::<B>(pool, spawners, n.unsigned_abs() as usize).await?;
        }
        if B::backlog(pool).await? < season.backlog_max {
            let (kind, order) = order(&mut dice);
            let spawn = Spawn {
                pool,
                service_pool,
                spawner: &spawners.ordinary[&kind],
                job: Uuid::now_v7(),
                order,
                due_at: due_at(now, &mut dice),
            };
            spawn.one(dice.weighted(&WAYS), &mut dice).await?;
        }
        sleep(dice.millis(1, season.pause_ms_max)).await;
    }
    Ok(())
}

fn order(dice: &mut Dice) -> (Kind, Order) {
    let kind = dice.weighted(&WEIGHTS);
    let stubborn = dice.pct(40);
    let work_ms = match kind {
        // So long that a run which nobody aborts is found out.
        Kind::Slow if stubborn => 30_000,
        Kind::Slow => dice.within(2_500, 5_000),
        Kind::Blocking => dice.within(200, 1_200),
        // So long that two crashes in a row happen.
        Kind::Fragile => dice.within(500, 3_000),
        // So long that it goes on while a run that lost it is stopped.
        Kind::Keeping if stubborn => dice.within(500, 1_500),
        _ if dice.pct(25) => dice.within(300, 2_000),
        _ => dice.within(5, 150),
    };
    let some = |of: Kind, dice: &mut Dice, most| {
        let some = dice.within(1, most) as u32;
        if kind == of { some } else { 0 }
    };
    let turns = some(Kind::Turning, dice, 4) + some(Kind::Keeping, dice, 6);
    let order = Order {
        work_ms,
        stubborn,
        failures: some(Kind::Retrying, dice, 3),
        turns,
        children: some(Kind::Parent, dice, 3),
        parent: None,
    };
    (kind, order)
}

fn due_at(now: Micros, dice: &mut Dice) -> Option<Micros> {
    match dice.within(0, 9) {
        0 => Some(now + dice.within(0, 3_000_000).cast_signed()),
        1 => Some(now - 1_000_000),
        _ => None,
    }
}

async fn spawn_unique<B: Books>(
    pool: &B::Pool,
    spawners: &Spawners<B>,
    n: usize,
) -> Result<(), Error> {
    let Some(spawner) = spawners.unique.get(n) else {
        return Ok(());
    };
    let job_type = spawner.job_type().as_str().to_owned();
    let order = Order {
        work_ms: 100,
        ..Order::default()
    };
    let spawned = spawner.clone().spawn_unique(JobId::new(), order).await;
    spawned.map_err(sqlx_error)?;
    B::write(pool, &Line::Unique { job_type }).await
}

struct Spawn<'a, B: Books> {
    pool: &'a B::Pool,
    service_pool: &'a B::Pool,
    spawner: &'a JobSpawner<Order, B>,
    job: Uuid,
    order: Order,
    due_at: Option<Micros>,
}

impl<B: Books> Spawn<'_, B> {
    async fn one(self, way: Way, dice: &mut Dice) -> Result<(), Error> {
        let cut = dice.millis(0, CUT_MS_MAX);
        let asked = Line::Asked {
            job: self.job,
            in_op: !matches!(way, Way::Call | Way::CutCall | Way::AfterCutBegin),
            due_at: self.due_at,
        };
        self.write(&asked).await?;
        let job = self.job;
        if let Way::AfterCutBegin = way {
            let begin = B::begin(self.service_pool);
            if was_cut(begin, dice.within(1, POLLS_MAX)).await {
                self.write(&Line::BeginCut).await?;
            }
        }
        match way {
            Way::Call | Way::AfterCutBegin => {
                self.call().await.map_err(sqlx_error)?;
                self.write(&Line::Confirmed { job }).await
            }
            Way::CutCall => match timeout(cut, self.call()).await {
                Ok(spawned) => {
                    spawned.map_err(sqlx_error)?;
                    self.write(&Line::Confirmed { job }).await
                }
                Err(_) => Ok(()),
            },
            Way::Committed => {
                B::commit(self.in_op().await?).await?;
                self.write(&Line::Confirmed { job }).await
            }
            Way::CutCommit => match timeout(cut, B::commit(self.in_op().await?)).await {
                Ok(committed) => {
                    committed?;
                    self.write(&Line::Confirmed { job }).await
                }
                Err(_) => Ok(()),
            },
            Way::RolledBack => {
                B::roll_back(self.in_op().await?).await?;
                self.write(&Line::RolledBack { job }).await
            }
            Way::Dropped => {
                drop(self.in_op().await?);
                self.write(&Line::RolledBack { job }).await
            }
        }
    }

    async fn write(&self, line: &Line) -> Result<(), Error> {
        B::write(self.pool, line).await
    }

    async fn call(&self) -> Result<(), JobError> {
        let order = self.order.clone();
        match self.due_at {
            None => self.spawner.spawn(self.job, order).await?,
            Some(at) => self.spawner.spawn_at(self.job, order, time(at)).await?,
        };
        Ok(())
    }

    /// A transaction with the spawn in it, and with a line that stands or falls
    /// with it.
    async fn in_op(&self) -> Result<B::Transaction, Error> {
        let mut transaction = B::begin(self.service_pool).await?;
        let op = &mut transaction;
        let (job, order) = (self.job, self.order.clone());
        let spawned = match self.due_at {
            None => self.spawner.spawn_in_op(op, job, order).await,
            Some(at) => {
                let spawner = self.spawner;
                spawner.spawn_at_in_op(op, job, order, time(at)).await
            }
        };
        spawned.map_err(sqlx_error)?;
        B::write_in(&mut transaction, &Line::Stands { job }).await?;
        Ok(transaction)
    }
}

/// Drops a future when it was polled so often. Whether it had not ended.
async fn was_cut(future: impl Future, mut polls: u64) -> bool {
    let mut future = pin!(future);
    poll_fn(|context| {
        if polls == 0 {
            return Poll::Ready(true);
        }
        polls -= 1;
        future.as_mut().poll(context).map(|_| false)
    })
    .await
}

fn time(at: Micros) -> chrono::DateTime<chrono::Utc> {
    chrono::DateTime::from_timestamp_micros(at).expect("it came from a time")
}

/// Nothing here may fail, so it only matters that it is told.
fn sqlx_error(error: JobError) -> Error {
    Error::Configuration(error.into())
}
