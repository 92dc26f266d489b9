//! How long it takes from a spawn until the runner has started.

use std::time::{Duration, Instant};

use job::{JobId, JobSpawner, Jobs};
use sqlx::postgres::PgListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::database::Database;
use crate::floor::{self, Floor};
use crate::latency::Latencies;
use crate::ours::{self, Initializer, Tally, Task};
use crate::round::{OURS, TURNS};
use crate::{Result, Round};

/// Jobs before a load begins.
const WARM_UP: usize = 20;
/// Between two jobs, so that the worker is idle again.
const REST: Duration = Duration::from_millis(5);
/// How long to wait for a job: as long as a worker may take that was told nothing.
const PICKUP_MAX: Duration = Duration::from_secs(30);

/// Who is waited for.
#[derive(Clone, Copy)]
enum Who {
    Ours,
    Floor,
}

/// The starts of runners.
type Starts = UnboundedReceiver<(u64, Instant)>;

/// In the process that spawned, which is idle. The floor is the commit alone.
pub async fn in_the_same_process(round: &mut Round) -> Result<()> {
    let pickups = round.sizes.pickups / TURNS;
    let (of_ours, of_floor) = (round.database().await?, round.database().await?);
    let (service, spawner, mut starts) = polling(&of_ours).await?;
    let mut floor = Floor::set_up(&of_floor).await?;
    let mut took = [Latencies::default(), Latencies::default()];
    for turn in 0..=TURNS {
        for who in round.in_turn([Who::Ours, Who::Floor]) {
            let part = match who {
                Who::Ours => one_by_one(&spawner, &mut starts, pickups).await?,
                Who::Floor => inserts(&mut floor, pickups).await?,
            };
            // The first turn is to open connections and to plan statements.
            if turn > 0 {
                took[who as usize].append(part);
            }
        }
    }
    service.shutdown().await?;
    for (subject, took) in [OURS, "floor, the insert alone"].into_iter().zip(took) {
        record(round, "same process", subject, &took);
    }
    Ok(())
}

/// In another service than the one that spawned: they share a process, for its
/// clock, and nothing else. The floor is an insert with a NOTIFY, until a LISTENer
/// has it.
pub async fn across_processes(round: &mut Round) -> Result<()> {
    let pickups = round.sizes.pickups / TURNS;
    let (of_ours, of_floor) = (round.database().await?, round.database().await?);
    let (service, _, mut starts) = polling(&of_ours).await?;
    let mut other = ours::service(&of_ours.url()).await?;
    let spawner = other.add_initializer(ours::counting(&Tally::new(0)));
    let mut floor = Floor::set_up(&of_floor).await?;
    let mut listener = floor::listen(&of_floor).await?;
    let mut took = [Latencies::default(), Latencies::default()];
    for turn in 0..=TURNS {
        for who in round.in_turn([Who::Ours, Who::Floor]) {
            let part = match who {
                Who::Ours => one_by_one(&spawner, &mut starts, pickups).await?,
                Who::Floor => notifies(&mut floor, &mut listener, pickups).await?,
            };
            if turn > 0 {
                took[who as usize].append(part);
            }
        }
    }
    service.shutdown().await?;
    for (subject, took) in [OURS, "floor, insert and NOTIFY"].into_iter().zip(took) {
        record(round, "across processes", subject, &took);
    }
    Ok(())
}

/// In the same process, while jobs are spawned at a rate, whatever becomes of them.
pub async fn under_load(round: &mut Round) -> Result<()> {
    let lasting = round.sizes.load;
    for &load in round.sizes.loads {
        for who in round.in_turn([Who::Ours, Who::Floor]) {
            let database = round.database().await?;
            let (subject, took) = match who {
                Who::Ours => (OURS, spawns_at(&database, load, lasting).await?),
                Who::Floor => (
                    "floor, the insert alone",
                    inserts_at(&database, load, lasting).await?,
                ),
            };
            record(round, &format!("{load} jobs/s"), subject, &took);
        }
    }
    Ok(())
}

fn record(round: &mut Round, measure: &str, subject: &str, took: &Latencies) {
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let measure = format!("pickup latency, {measure} {name}");
        round.record(&measure, subject, "ms", took.quantile_ms(share));
    }
}

/// A service that polls, its spawner, and when its runners start.
async fn polling(database: &Database) -> Result<(Jobs, JobSpawner<Task>, Starts)> {
    let mut service = ours::service(&database.url()).await?;
    let (sender, starts) = unbounded_channel();
    let spawner = service.add_initializer(Initializer::new(move |task: Task| {
        // An error means that nobody waits any longer.
        let _ = sender.send((task.n, Instant::now()));
        std::future::ready(())
    }));
    service.start_poll().await?;
    Ok((service, spawner, starts))
}

async fn one_by_one(
    spawner: &JobSpawner<Task>,
    starts: &mut Starts,
    pickups: usize,
) -> Result<Latencies> {
    let mut took = Latencies::default();
    for n in 0..pickups as u64 {
        let begun = Instant::now();
        spawner.spawn(JobId::new(), Task { n }).await?;
        let (_, started) = next(starts).await?;
        took.push(started - begun);
        sleep(REST).await;
    }
    Ok(took)
}

async fn next(starts: &mut Starts) -> Result<(u64, Instant)> {
    let start = timeout(PICKUP_MAX, starts.recv()).await;
    let start = start.map_err(|_| format!("no runner started within {PICKUP_MAX:?}"))?;
    start.ok_or_else(|| "the worker has stopped".into())
}

async fn inserts(floor: &mut Floor, pickups: usize) -> Result<Latencies> {
    let mut took = Latencies::default();
    for n in 0..pickups as u64 {
        let begun = Instant::now();
        floor.insert(Task { n }).await?;
        took.push(begun.elapsed());
        sleep(REST).await;
    }
    Ok(took)
}

async fn notifies(
    floor: &mut Floor,
    listener: &mut PgListener,
    pickups: usize,
) -> Result<Latencies> {
    let mut took = Latencies::default();
    for n in 0..pickups as u64 {
        let begun = Instant::now();
        // It may arrive before the commit is answered.
        let (inserted, received) = tokio::join!(floor.insert_and_notify(Task { n }), async {
            let received = listener.recv().await;
            received.map(|_| Instant::now())
        });
        inserted?;
        took.push(received? - begun);
        sleep(REST).await;
    }
    Ok(took)
}

/// Spawns at a rate, each in a task of its own, so that a slow one does not hold up
/// the others.
async fn spawns_at(database: &Database, load: u32, lasting: Duration) -> Result<Latencies> {
    let (service, spawner, mut starts) = polling(database).await?;
    one_by_one(&spawner, &mut starts, WARM_UP).await?;
    let mut spawns = JoinSet::new();
    at_a_rate(load, lasting, |n| {
        let spawner = spawner.clone();
        spawns.spawn(async move {
            let begun = Instant::now();
            let spawned = spawner.spawn(JobId::new(), Task { n }).await;
            spawned.map(|_| (n, begun))
        });
    })
    .await;
    let mut begun = vec![None; spawns.len()];
    while let Some(spawned) = spawns.join_next().await {
        let (n, at) = spawned??;
        begun[n as usize] = Some(at);
    }
    let mut took = Latencies::default();
    while took.len() < begun.len() {
        let (n, started) = next(&mut starts).await?;
        let begun = begun[n as usize].ok_or("a job ran that was not spawned")?;
        took.push(started - begun);
    }
    service.shutdown().await?;
    Ok(took)
}

/// Inserts at a rate, through as many connections as the pool of a service has.
async fn inserts_at(database: &Database, load: u32, lasting: Duration) -> Result<Latencies> {
    const CONNECTIONS: usize = 10;
    Floor::set_up(database).await?;
    let (give, take) = tokio::sync::mpsc::channel(CONNECTIONS);
    for mut floor in Floor::connect_many(database, CONNECTIONS).await? {
        floor.insert(Task { n: 0 }).await?;
        give.send(floor).await?;
    }
    let take = std::sync::Arc::new(tokio::sync::Mutex::new(take));
    let mut inserts = JoinSet::new();
    at_a_rate(load, lasting, |n| {
        let (give, take) = (give.clone(), take.clone());
        inserts.spawn(async move {
            let begun = Instant::now();
            let mut floor: Floor = take.lock().await.recv().await.ok_or("no connection")?;
            floor.insert(Task { n }).await?;
            let took = begun.elapsed();
            give.send(floor).await?;
            Ok::<_, crate::Error>(took)
        });
    })
    .await;
    let mut took = Latencies::default();
    while let Some(insert) = inserts.join_next().await {
        took.push(insert??);
    }
    Ok(took)
}

/// Calls something at a rate. Sleeping is exact to a millisecond, so a high rate
/// comes in bursts of a few.
async fn at_a_rate(load: u32, lasting: Duration, mut call: impl FnMut(u64)) {
    let total = (f64::from(load) * lasting.as_secs_f64()) as u64;
    let mut ticks = interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let start = Instant::now();
    let mut called = 0;
    while called < total {
        ticks.tick().await;
        let due = (start.elapsed().as_secs_f64() * f64::from(load)) as u64 + 1;
        while called < due.min(total) {
            call(called);
            called += 1;
        }
    }
}
