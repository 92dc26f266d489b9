//! What a worker process costs: with nothing to do, and with much.

use std::time::Duration;

use tokio::time::sleep;

use crate::child::{Worker, ran_together};
use crate::round::OURS;
use crate::{Result, Round, ours, process};

/// Until a worker that has started to poll has nothing more to do.
const SETTLES_WITHIN: Duration = Duration::from_secs(3);

/// The statements and the processor time of a worker that waits.
pub async fn idle(round: &mut Round) -> Result<()> {
    let watched = round.sizes.idle;
    let database = round.database().await?;
    let mut worker = Worker::start(&database.url()).await?;
    worker.go().await?;
    sleep(SETTLES_WITHIN).await;
    let statements_before = round.meter.statements(&database).await?;
    let cpu_before = process::cpu_time(worker.pid()?)?;
    sleep(watched).await;
    let cpu = process::cpu_time(worker.pid()?)? - cpu_before;
    let statements = round.meter.statements(&database).await?;
    worker.stop().await?;
    let share = cpu.as_secs_f64() / watched.as_secs_f64();
    round.record("idle worker, CPU", OURS, "% of a core", share * 100.0);
    if let Some((after, before)) = statements.zip(statements_before) {
        let each = (after - before) / watched.as_secs_f64();
        round.record("idle worker, statements", OURS, "statements/s", each);
    }
    Ok(())
}

/// The resident memory of a worker that drains a great backlog.
pub async fn memory(round: &mut Round) -> Result<()> {
    let jobs = round.sizes.memory;
    let database = round.database().await?;
    ours::filled(&database, jobs).await?;
    let mut workers = [Worker::start(&database.url()).await?];
    workers[0].go().await?;
    ran_together(&mut workers, jobs).await?;
    let [worker] = workers;
    let bytes = process::resident_max(worker.pid()?)?;
    worker.stop().await?;
    round.record("memory", OURS, "MB", bytes as f64 / 1e6);
    Ok(())
}
