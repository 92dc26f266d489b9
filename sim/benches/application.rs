//! What simulations of an application cost: seeds a second.

use std::error::Error;
use std::hint::black_box;
use std::time::Duration;

use async_trait::async_trait;
use criterion::{Criterion, Throughput};
use job::{
    Backend, CurrentJob, Job, JobCompletion, JobId, JobInitializer, JobRunner, JobSpawner, JobType,
    RetrySettings,
};
use job_sim::{Sim, Simulation};

/// So many seeds are one measurement. The first is simulated twice, to compare.
const SEEDS: u64 = 20;

/// Works for a second, and fails at every other attempt.
struct Work;

impl<B: Backend> JobInitializer<B> for Work {
    type Config = u32;

    fn job_type(&self) -> JobType {
        JobType::new("work")
    }

    fn retry_on_error_settings(&self) -> RetrySettings {
        RetrySettings {
            n_attempts: None,
            min_backoff: Duration::from_secs(1),
            ..RetrySettings::default()
        }
    }

    fn init(
        &self,
        _: &Job,
        _: JobSpawner<u32, B>,
    ) -> Result<Box<dyn JobRunner<B>>, Box<dyn Error>> {
        Ok(Box::new(Work))
    }
}

#[async_trait]
impl<B: Backend> JobRunner<B> for Work {
    async fn run(&self, job: CurrentJob<B>) -> Result<JobCompletion<B>, Box<dyn Error>> {
        job.clock().sleep(Duration::from_secs(1)).await;
        match job.attempt() % 2 {
            1 => Err("at the first attempt".into()),
            _ => Ok(JobCompletion::Complete),
        }
    }
}

/// Three workers, and a job every half minute for ten minutes.
async fn ten_minutes(sim: Sim) {
    let work = sim.start(|jobs| jobs.add_initializer(Work)).await;
    for number in sim.inputs(20) {
        work.spawn(JobId::new(), number).await.expect("it arrives");
        sim.advance(Duration::from_secs(30)).await;
    }
    sim.settle().await;
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("application");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(SEEDS));
    let mut first = 0;
    group.bench_function("ten minutes, three workers", |bencher| {
        bencher.iter(|| {
            let simulation = Simulation::new().seeds(first..first + SEEDS);
            first += SEEDS;
            black_box(simulation.check(ten_minutes)).expect("nothing is asserted");
        });
    });
    let mut first = 0;
    group.throughput(Throughput::Elements(1));
    group.bench_function("a week, three workers", |bencher| {
        bencher.iter(|| {
            let week = Duration::from_secs(7 * 24 * 3_600);
            let simulation = Simulation::new().lasting(week).seeds(first..first + 1);
            first += 1;
            black_box(simulation.check(ten_minutes)).expect("nothing is asserted");
        });
    });
    group.finish();
    criterion.final_summary();
}
