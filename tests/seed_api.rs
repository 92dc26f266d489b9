//! The examples of the seed's documentation, as its users wrote them. They must
//! compile as they stand; those that need nothing but a database are run.

mod example {
    use async_trait::async_trait;
    use job::{
        CurrentJob, Job, JobCompletion, JobId, JobInitializer, JobRunner, JobSpawner, JobSvcConfig,
        JobType, Jobs,
    };
    use serde::{Deserialize, Serialize};

    // 1. Define your config (serialized to the database)
    #[derive(Debug, Serialize, Deserialize)]
    struct MyConfig {
        value: i32,
    }

    // 2. Define your initializer
    struct MyInitializer;

    impl JobInitializer for MyInitializer {
        type Config = MyConfig;

        fn job_type(&self) -> JobType {
            JobType::new("my-job")
        }

        fn init(
            &self,
            job: &Job,
            _: JobSpawner<Self::Config>,
        ) -> Result<Box<dyn JobRunner>, Box<dyn std::error::Error>> {
            let config: MyConfig = job.config()?;
            Ok(Box::new(MyRunner {
                value: config.value,
            }))
        }
    }

    // 3. Define your runner
    struct MyRunner {
        value: i32,
    }

    #[async_trait]
    impl JobRunner for MyRunner {
        async fn run(
            &self,
            _current_job: CurrentJob,
        ) -> Result<JobCompletion, Box<dyn std::error::Error>> {
            println!("Processing value: {}", self.value);
            Ok(JobCompletion::Complete)
        }
    }

    // 4. Wire it up
    pub async fn main(url: &str) -> Result<(), Box<dyn std::error::Error>> {
        let config = JobSvcConfig::builder().pg_con(url).build()?;

        let mut jobs = Jobs::init(config).await?;

        // Registration returns a type-safe spawner
        let spawner: JobSpawner<MyConfig> = jobs.add_initializer(MyInitializer);

        jobs.start_poll().await?;

        // Use the spawner to create jobs
        spawner.spawn(JobId::new(), MyConfig { value: 42 }).await?;

        Ok(())
    }
}

mod start_poll {
    use async_trait::async_trait;
    use job::error::JobError;
    use job::{
        CurrentJob, Job, JobCompletion, JobId, JobInitializer, JobRunner, JobSpawner, JobSvcConfig,
        JobType, Jobs,
    };
    use serde::{Deserialize, Serialize};
    use sqlx::postgres::PgPoolOptions;
    use std::error::Error;

    #[derive(Debug, Serialize, Deserialize)]
    struct MyConfig {
        value: i32,
    }

    struct MyInitializer;

    impl JobInitializer for MyInitializer {
        type Config = MyConfig;

        fn job_type(&self) -> JobType {
            JobType::new("example")
        }

        fn init(
            &self,
            _job: &Job,
            _: JobSpawner<Self::Config>,
        ) -> Result<Box<dyn JobRunner>, Box<dyn Error>> {
            Ok(Box::new(MyRunner))
        }
    }

    struct MyRunner;

    #[async_trait]
    impl JobRunner for MyRunner {
        async fn run(&self, _current_job: CurrentJob) -> Result<JobCompletion, Box<dyn Error>> {
            Ok(JobCompletion::Complete)
        }
    }

    pub async fn example(url: &str) -> Result<(), JobError> {
        let pool = PgPoolOptions::new().connect_lazy(url)?;
        let config = JobSvcConfig::builder()
            .pool(pool)
            .exec_migrations(true)
            .build()
            .unwrap();
        let mut jobs = Jobs::init(config).await?;

        // Registration returns a type-safe spawner
        let spawner: JobSpawner<MyConfig> = jobs.add_initializer(MyInitializer);

        jobs.start_poll().await?;

        // Use the spawner to create jobs
        spawner.spawn(JobId::new(), MyConfig { value: 42 }).await?;
        Ok(())
    }

    pub async fn start_twice(url: &str) -> Result<(), JobError> {
        let pool = PgPoolOptions::new().connect_lazy(url)?;
        let config = JobSvcConfig::builder()
            .pool(pool)
            .exec_migrations(true)
            .build()
            .unwrap();
        let mut jobs = Jobs::init(config).await?;

        let _spawner = jobs.add_initializer(MyInitializer);

        jobs.start_poll().await?;

        // Panics with "Registry has been consumed by executor".
        jobs.start_poll().await.unwrap();
        Ok(())
    }

    pub async fn add_after_start(url: &str) -> Result<(), JobError> {
        let pool = PgPoolOptions::new().connect_lazy(url)?;
        let config = JobSvcConfig::builder()
            .pool(pool)
            .exec_migrations(true)
            .build()
            .unwrap();
        let mut jobs = Jobs::init(config).await?;

        let _spawner = jobs.add_initializer(MyInitializer);

        jobs.start_poll().await?;

        // Also panics because the registry moved into the poller.
        jobs.add_initializer(MyInitializer);
        Ok(())
    }
}

mod fragments {
    use std::time::Duration;

    use async_trait::async_trait;
    use job::{
        ArtificialClockConfig, ClockHandle, CurrentJob, Job, JobCompletion, JobId, JobInitializer,
        JobRunner, JobSpawner, JobSvcConfig, JobType, Jobs, RetrySettings,
    };
    use serde::{Deserialize, Serialize};

    #[derive(Default, Serialize, Deserialize)]
    pub struct CleanupConfig {}

    pub struct CleanupInitializer;

    impl JobInitializer for CleanupInitializer {
        type Config = CleanupConfig;

        fn job_type(&self) -> JobType {
            JobType::new("cleanup")
        }

        fn retry_on_error_settings(&self) -> RetrySettings {
            RetrySettings {
                n_attempts: Some(5),
                min_backoff: Duration::from_secs(10),
                max_backoff: Duration::from_secs(300),
                ..Default::default()
            }
        }

        fn init(
            &self,
            _: &Job,
            _: JobSpawner<Self::Config>,
        ) -> Result<Box<dyn JobRunner>, Box<dyn std::error::Error>> {
            Ok(Box::new(Nothing))
        }
    }

    struct Nothing;

    #[async_trait]
    impl JobRunner for Nothing {
        async fn run(&self, _: CurrentJob) -> Result<JobCompletion, Box<dyn std::error::Error>> {
            Ok(JobCompletion::Complete)
        }
    }

    #[derive(Serialize, Deserialize)]
    pub struct TenantJobConfig;

    pub struct TenantJobInitializer {
        pub job_type: JobType,
        pub tenant_id: String,
    }

    impl JobInitializer for TenantJobInitializer {
        type Config = TenantJobConfig;

        fn job_type(&self) -> JobType {
            self.job_type.clone() // From instance, not hardcoded
        }

        fn init(
            &self,
            _: &Job,
            _: JobSpawner<Self::Config>,
        ) -> Result<Box<dyn JobRunner>, Box<dyn std::error::Error>> {
            Err(format!("tenant {} has no runner", self.tenant_id).into())
        }
    }

    pub async fn unique(jobs: &mut Jobs) -> Result<(), Box<dyn std::error::Error>> {
        let cleanup_spawner = jobs.add_initializer(CleanupInitializer);

        // Consumes spawner - can't accidentally spawn twice
        cleanup_spawner
            .spawn_unique(JobId::new(), CleanupConfig::default())
            .await?;
        Ok(())
    }

    pub async fn simulated_time(pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
        let (clock, controller) = ClockHandle::artificial(ArtificialClockConfig::manual());
        let config = JobSvcConfig::builder().pool(pool).clock(clock).build()?;

        // Advance time deterministically
        controller.advance(Duration::from_secs(60)).await;
        drop(config);
        Ok(())
    }
}

use job::{JobSvcConfig, JobType, Jobs};

use crate::support::TestDatabase;

#[tokio::test]
async fn the_crate_example_runs() {
    let database = TestDatabase::create().await;
    example::main(&database.url()).await.unwrap();
}

#[tokio::test]
async fn the_start_poll_example_runs() {
    let database = TestDatabase::create().await;
    start_poll::example(&database.url()).await.unwrap();
}

#[tokio::test]
#[should_panic(expected = "Registry has been consumed by executor")]
async fn polling_twice_panics() {
    let database = TestDatabase::create().await;
    start_poll::start_twice(&database.url()).await.unwrap();
}

#[tokio::test]
#[should_panic(expected = "Registry has been consumed by executor")]
async fn an_initializer_after_polling_started_panics() {
    let database = TestDatabase::create().await;
    start_poll::add_after_start(&database.url()).await.unwrap();
}

#[tokio::test]
async fn the_fragments_of_the_documentation_run() {
    let database = TestDatabase::create().await;
    let config = JobSvcConfig::builder()
        .pg_con(database.url())
        .build()
        .unwrap();
    let mut jobs = Jobs::init(config).await.unwrap();
    fragments::unique(&mut jobs).await.unwrap();
    fragments::simulated_time(database.pool().await)
        .await
        .unwrap();
    let tenant = jobs.add_initializer(fragments::TenantJobInitializer {
        job_type: JobType::from(format!("inbox-{}", 7)),
        tenant_id: "7".to_owned(),
    });
    assert_eq!(tenant.job_type().as_str(), "inbox-7");
}
