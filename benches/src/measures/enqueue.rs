//! How fast jobs are enqueued: by one task, by 16, in bulk.

use std::time::{Duration, Instant};

use job::{JobId, JobSpawner, Jobs};
use tokio::process::Command;

use crate::database::Database;
use crate::floor::Floor;
use crate::latency::Latencies;
use crate::ours::{self, Tally, Task};
use crate::round::{OURS, TURNS};
use crate::{Result, Round};

/// Tasks that enqueue at once.
const TASKS: usize = 16;

/// Who enqueues.
#[derive(Clone, Copy)]
enum Who {
    Ours,
    Floor,
}

/// Jobs enqueued one after the other.
pub async fn by_one_task(round: &mut Round) -> Result<()> {
    let jobs = round.sizes.enqueue_one / TURNS;
    let (of_ours, of_floor) = (round.database().await?, round.database().await?);
    let (_service, spawner) = spawner(&of_ours).await?;
    let mut floor = Floor::set_up(&of_floor).await?;
    let mut took = [Latencies::default(), Latencies::default()];
    for turn in 0..=TURNS {
        for who in round.in_turn([Who::Ours, Who::Floor]) {
            for n in 0..jobs {
                let start = Instant::now();
                match who {
                    Who::Ours => drop(spawner.spawn(JobId::new(), task(n)).await?),
                    Who::Floor => floor.insert(task(n)).await?,
                }
                // The first turn is to open connections and to plan statements.
                if turn > 0 {
                    took[who as usize].push(start.elapsed());
                }
            }
        }
    }
    for (subject, took) in [OURS, "floor, one row a commit"].into_iter().zip(took) {
        round.record("enqueue, 1 task", subject, "jobs/s", took.rate());
        round.record("enqueue, 1 task p50", subject, "ms", took.quantile_ms(0.5));
    }
    Ok(())
}

/// Jobs enqueued by 16 tasks, one after the other by each.
pub async fn by_many_tasks(round: &mut Round) -> Result<()> {
    let jobs = round.sizes.enqueue_many / TURNS;
    let (of_ours, of_floor) = (round.database().await?, round.database().await?);
    let (_service, spawner) = spawner(&of_ours).await?;
    Floor::set_up(&of_floor).await?;
    let mut name_of_floor = "floor, 16 pgbench clients";
    let mut took = [Latencies::default(), Latencies::default()];
    for turn in 0..=TURNS {
        for who in round.in_turn([Who::Ours, Who::Floor]) {
            let each = match who {
                Who::Ours => {
                    let start = Instant::now();
                    spawn_by_many(&spawner, jobs).await?;
                    start.elapsed() / u32::try_from(jobs)?
                }
                Who::Floor => match pgbench(&of_floor, jobs).await? {
                    Some(each) => each,
                    None => {
                        name_of_floor = "floor, 16 connections";
                        insert_by_many(&of_floor, jobs).await?
                    }
                },
            };
            if turn > 0 {
                took[who as usize].push(each);
            }
        }
    }
    for (subject, took) in [OURS, name_of_floor].into_iter().zip(took) {
        round.record("enqueue, 16 tasks", subject, "jobs/s", took.rate());
    }
    Ok(())
}

/// Jobs enqueued many at a time.
pub async fn in_bulk(round: &mut Round) -> Result<()> {
    let jobs = round.sizes.bulk / TURNS;
    let (of_ours, of_floor) = (round.database().await?, round.database().await?);
    let (_service, spawner) = spawner(&of_ours).await?;
    let mut floor = Floor::set_up(&of_floor).await?;
    let mut took = [Latencies::default(), Latencies::default()];
    for turn in 0..=TURNS {
        for who in round.in_turn([Who::Ours, Who::Floor]) {
            let start = Instant::now();
            match who {
                Who::Ours => ours::spawn_all(&spawner, jobs).await?,
                Who::Floor => floor.insert_many(jobs).await?,
            }
            if turn > 0 {
                took[who as usize].push(start.elapsed() / u32::try_from(jobs)?);
            }
        }
    }
    for (subject, took) in [OURS, "floor, unnest of 1,000"].into_iter().zip(took) {
        round.record("bulk enqueue", subject, "jobs/s", took.rate());
    }
    Ok(())
}

/// A service that does not poll, and its spawner.
async fn spawner(database: &Database) -> Result<(Jobs, JobSpawner<Task>)> {
    let mut service = ours::service(&database.url()).await?;
    let spawner = service.add_initializer(ours::counting(&Tally::new(0)));
    Ok((service, spawner))
}

fn task(n: usize) -> Task {
    Task { n: n as u64 }
}

async fn spawn_by_many(spawner: &JobSpawner<Task>, jobs: usize) -> Result<()> {
    let tasks: Vec<_> = (0..TASKS)
        .map(|first| {
            let spawner = spawner.clone();
            tokio::spawn(async move {
                for n in (first..jobs).step_by(TASKS) {
                    spawner.spawn(JobId::new(), task(n)).await?;
                }
                Ok::<_, crate::Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// How long each insert takes as many clients of pgbench together; `None` if it is not
/// there.
async fn pgbench(database: &Database, jobs: usize) -> Result<Option<Duration>> {
    let script = tempfile::NamedTempFile::new()?;
    std::fs::write(
        &script,
        include_str!("../../queries/floor_insert_pgbench.sql"),
    )?;
    let ran = Command::new("pgbench")
        .args(["--no-vacuum", "--protocol=prepared", "--jobs=2"])
        .arg(format!("--client={TASKS}"))
        .arg(format!("--transactions={}", jobs.div_ceil(TASKS)))
        .arg("--file")
        .arg(script.path())
        .arg(database.url())
        .output()
        .await;
    let output = match ran {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        ran => ran?,
    };
    let text = String::from_utf8_lossy(&output.stdout);
    match tps(&text) {
        Some(rate) if output.status.success() => Ok(Some(Duration::from_secs_f64(1.0 / rate))),
        _ => Err(format!("pgbench: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// What pgbench prints, without the time that its connections took.
fn tps(output: &str) -> Option<f64> {
    let line = output.lines().find(|line| line.starts_with("tps = "))?;
    line["tps = ".len()..].split(' ').next()?.parse().ok()
}

/// The same on connections of this process.
async fn insert_by_many(database: &Database, jobs: usize) -> Result<Duration> {
    let floors = Floor::connect_many(database, TASKS).await?;
    let start = Instant::now();
    let tasks: Vec<_> = floors
        .into_iter()
        .enumerate()
        .map(|(first, mut floor)| {
            tokio::spawn(async move {
                for n in (first..jobs).step_by(TASKS) {
                    floor.insert(task(n)).await?;
                }
                Ok::<_, crate::Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(start.elapsed() / u32::try_from(jobs)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_rate_is_read_from_what_pgbench_prints() {
        let output = "latency average = 1.8 ms\n\
            tps = 8581.250311 (without initial connection time)\n";
        assert_eq!(super::tps(output), Some(8581.250311));
        assert_eq!(super::tps("pgbench: error"), None);
    }
}
