//! What could never be read again is refused when it is written.

use job::{
    CurrentJob, Job, JobCompletion, JobError, JobId, JobInitializer, JobRunner, JobSpawner,
    JobSpec, JobState, JobSvcConfig, JobType, Jobs, Memory,
};
use serde::{Deserialize, Serialize};
use std::error::Error;

use crate::support::{TestInitializer, ended};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Measurement {
    sensor: String,
    values: Vec<f64>,
    parts: serde_json::Value,
}

struct Measure;

impl JobInitializer<Memory> for Measure {
    type Config = Measurement;

    fn job_type(&self) -> JobType {
        JobType::new("measure")
    }

    fn init(
        &self,
        job: &Job,
        _: JobSpawner<Measurement, Memory>,
    ) -> Result<Box<dyn JobRunner<Memory>>, Box<dyn Error>> {
        Ok(Box::new(Measured(job.config()?)))
    }
}

struct Measured(Measurement);

#[async_trait::async_trait]
impl JobRunner<Memory> for Measured {
    async fn run(&self, _: CurrentJob<Memory>) -> Result<JobCompletion<Memory>, Box<dyn Error>> {
        assert_eq!(self.0.sensor, "roof");
        Ok(JobCompletion::Complete)
    }
}

fn bad() -> [(Measurement, &'static str); 2] {
    let nested = (0..200).fold(serde_json::Value::Null, |inner, _| {
        serde_json::Value::Array(vec![inner])
    });
    [
        (
            Measurement {
                values: vec![20.5, f64::NAN],
                ..Measurement::default()
            },
            "`values[1]` is infinite or NaN",
        ),
        (
            Measurement {
                parts: nested,
                ..Measurement::default()
            },
            "nested 201 deep",
        ),
    ]
}

async fn service() -> Jobs<Memory> {
    let config = JobSvcConfig::memory().build().unwrap();
    Jobs::init(config).await.unwrap()
}

#[tokio::test]
async fn a_config_that_could_never_be_read_is_refused_by_every_spawn() {
    let mut jobs = service().await;
    let spawner = jobs.add_initializer(Measure);
    jobs.start_poll().await.unwrap();
    for (config, why) in bad() {
        let id = JobId::new();
        let now = jobs.clock().now();
        let spec = || vec![JobSpec::new(id, config.clone())];
        let mut transaction = jobs.pool().begin().await;
        let in_op = &mut transaction;
        let refused = [
            spawner.spawn(id, config.clone()).await.err(),
            spawner.spawn_at(id, config.clone(), now).await.err(),
            spawner.spawn_in_op(in_op, id, config.clone()).await.err(),
            spawner
                .spawn_at_in_op(in_op, id, config.clone(), now)
                .await
                .err(),
            spawner.spawn_all(spec()).await.err(),
            spawner.spawn_all_in_op(in_op, spec()).await.err(),
            spawner.clone().spawn_unique(id, config.clone()).await.err(),
        ];
        transaction.commit();
        for error in refused {
            let error = error.expect("it is refused");
            assert!(matches!(error, JobError::SerializeConfig { .. }), "{error}");
            assert!(error.to_string().contains(why), "{error}");
        }
        let missing = jobs.find(id).await.unwrap_err();
        assert!(matches!(missing, JobError::NotFound(_)), "{missing}");
    }
    let (id, good) = (
        JobId::new(),
        Measurement {
            sensor: "roof".to_owned(),
            values: vec![f64::MAX, f64::MIN_POSITIVE],
            ..Measurement::default()
        },
    );
    spawner.spawn(id, good).await.unwrap();
    assert_eq!(ended(&jobs, id).await.state(), JobState::Completed);
    jobs.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_execution_state_that_could_never_be_read_is_refused_and_the_last_is_kept() {
    let mut jobs = service().await;
    let spawner = jobs.add_initializer(TestInitializer::<Memory>::new(
        "measure",
        |mut job, _| async move {
            job.update_execution_state(1).await.unwrap();
            for (state, why) in bad() {
                let mut transaction = job.pool().begin().await;
                let in_op = job
                    .update_execution_state_in_op(&mut transaction, &state)
                    .await;
                drop(transaction);
                for refused in [in_op, job.update_execution_state(&state).await] {
                    let error = refused.unwrap_err();
                    assert!(matches!(error, JobError::SerializeState { .. }), "{error}");
                    assert!(error.to_string().contains(why), "{error}");
                }
            }
            assert_eq!(job.execution_state::<u32>().unwrap(), Some(1));
            Ok(JobCompletion::Complete)
        },
    ));
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, serde_json::Value::Null).await.unwrap();
    assert_eq!(ended(&jobs, id).await.state(), JobState::Completed);
    jobs.shutdown().await.unwrap();
}
