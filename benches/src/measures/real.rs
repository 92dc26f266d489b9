//! Jobs whose runners take their time, against the best possible order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use job::JobPollerConfig;
use tokio::time::sleep;

use crate::ours::{self, Initializer, Tally, Task};
use crate::round::OURS;
use crate::{Result, Round};

/// From 5 to 50 ms, the same for a job in each round.
fn duration(task: Task) -> Duration {
    // Prime to the number of durations, so that neighbours differ.
    Duration::from_millis(5 + task.n.wrapping_mul(7_919) % 46)
}

/// The time from the first poll to the last record, as a multiple of the ideal.
///
/// A timer wakes up to a millisecond late, and that is no fault of the job engine: the
/// ideal is computed of the times that the runners really took.
pub async fn runners(round: &mut Round) -> Result<()> {
    let jobs = round.sizes.real_runners;
    let database = round.database().await?;
    ours::filled(&database, jobs).await?;
    let mut connection = database.connect().await?;
    let mut service = ours::service(&database.url()).await?;
    let tally = Tally::new(jobs);
    let took = Arc::new(Mutex::new(vec![Duration::ZERO; jobs]));
    service.add_initializer(Initializer::new({
        let (tally, took) = (Arc::clone(&tally), Arc::clone(&took));
        move |task: Task| {
            let (tally, took) = (Arc::clone(&tally), Arc::clone(&took));
            async move {
                let start = Instant::now();
                sleep(duration(task)).await;
                let mut took = took.lock().unwrap_or_else(PoisonError::into_inner);
                took[task.n as usize] = start.elapsed();
                tally.add();
            }
        }
    }));
    let start = Instant::now();
    service.start_poll().await?;
    tally.reached().await;
    ours::recorded(&mut connection, jobs).await?;
    let elapsed = start.elapsed();
    service.shutdown().await?;
    let took = took.lock().unwrap_or_else(PoisonError::into_inner);
    let concurrency = JobPollerConfig::default().max_jobs_per_process;
    let ideal = makespan(&took, concurrency);
    let ratio = elapsed.as_secs_f64() / ideal.as_secs_f64();
    round.record("real runners", OURS, "x the ideal time", ratio);
    Ok(())
}

/// How long jobs take if each starts, in order, as soon as one of the places is free.
fn makespan(took: &[Duration], places: usize) -> Duration {
    let mut free_at: BinaryHeap<_> = vec![Reverse(Duration::ZERO); places].into();
    let mut end = Duration::ZERO;
    for took in took {
        // There is at least one place, and each is put back.
        let Reverse(free) = free_at.pop().unwrap_or_default();
        free_at.push(Reverse(free + *took));
        end = end.max(free + *took);
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ideal_starts_each_job_at_the_first_free_place() {
        let took = [3, 1, 1, 4].map(Duration::from_millis);
        assert_eq!(makespan(&took, 2), Duration::from_millis(6));
        assert_eq!(makespan(&took, 1), Duration::from_millis(9));
        assert_eq!(makespan(&took, 9), Duration::from_millis(4));
    }

    #[test]
    fn durations_cover_the_range_evenly() {
        let mut durations: Vec<_> = (0..46).map(|n| duration(Task { n })).collect();
        durations.sort_unstable();
        let all: Vec<_> = (5..=50).map(Duration::from_millis).collect();
        assert_eq!(durations, all);
    }
}
