//! The smallest application by the traits alone: one job type, one job, and a worker that
//! runs until it is told to end.
//!
//! ```sh
//! DATABASE_URL=postgres://... cargo run --example quickstart
//! ```

use std::error::Error;

use async_trait::async_trait;
use job::{
    CurrentJob, Job, JobCompletion, JobId, JobInitializer, JobRunner, JobSpawner, JobSvcConfig,
    JobType, Jobs,
};
use serde::{Deserialize, Serialize};

// What a job of this type is given; stored as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct MyConfig {
    value: i32,
}

// Describes the job type and makes a runner for each run.
struct MyInitializer;

impl JobInitializer for MyInitializer {
    type Config = MyConfig;

    fn job_type(&self) -> JobType {
        JobType::new("my-job")
    }

    fn init(
        &self,
        job: &Job,
        _spawner: JobSpawner<Self::Config>,
    ) -> Result<Box<dyn JobRunner>, Box<dyn Error>> {
        let config: MyConfig = job.config()?;
        Ok(Box::new(MyRunner {
            value: config.value,
        }))
    }
}

// Does the work.
struct MyRunner {
    value: i32,
}

#[async_trait]
impl JobRunner for MyRunner {
    async fn run(&self, _current_job: CurrentJob) -> Result<JobCompletion, Box<dyn Error>> {
        println!("processing {}", self.value);
        Ok(JobCompletion::Complete)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = JobSvcConfig::builder()
        .pg_con(std::env::var("DATABASE_URL")?)
        .build()?;
    let mut jobs = Jobs::init(config).await?;
    let spawner: JobSpawner<MyConfig> = jobs.add_initializer(MyInitializer);
    jobs.start_poll().await?;

    spawner.spawn(JobId::new(), MyConfig { value: 42 }).await?;
    // Until SIGTERM or Ctrl-C; then what runs may end, and the rest is put back.
    jobs.run_until_signal().await?;
    Ok(())
}
