//! What broke when the service was used, tried as an application would.

use std::collections::BTreeSet;

use tokio::sync::Semaphore;

use super::*;

/// Attempts went 1, 2, 1, 2, .. for ever, and no wait was longer than 1.2 s.
pub(super) async fn a_job_that_takes_its_time_to_fail_is_given_up<B: TestBackend>() {
    let place = B::place().await;
    let (clock, controller) = ClockHandle::manual();
    let mut jobs = service_on::<B>(&place, clock).await;
    let settings = RetrySettings {
        n_attempts: Some(4),
        backoff_jitter_pct: 0,
        ..RetrySettings::default()
    };
    let fails = TestInitializer::new("slow", |job: CurrentJob<B>, _| async move {
        job.clock().sleep(Duration::from_secs(300)).await;
        Err("no answer".to_owned())
    });
    let spawner = B::add(&mut jobs, fails.retry(settings));
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    let job = eventually("the job ends", async || {
        controller.advance(Duration::from_secs(60)).await;
        let job = jobs.find(id).await.ok()?;
        job.completed().then_some(job)
    })
    .await;
    assert_eq!(job.state(), JobState::Errored);
    let attempts = job.events().iter().filter_map(|event| match event.kind {
        JobEventKind::Started { attempt, .. } => Some(attempt),
        _ => None,
    });
    assert_eq!(attempts.collect::<Vec<_>>(), [1, 2, 3, 4]);
    let waits = job.events().iter().filter_map(|event| match event.kind {
        JobEventKind::Failed { retry_at, .. } => Some((retry_at - event.at).num_seconds()),
        _ => None,
    });
    assert_eq!(waits.collect::<Vec<_>>(), [1, 2, 4]);
    jobs.shutdown().await.unwrap();
}

/// While 30 long runs were at work, of 50 allowed, nothing else began.
pub(super) async fn due_jobs_start_while_there_are_free_places<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let poller = JobPollerConfig::default();
    let (least, most) = (poller.min_jobs_per_process, poller.max_jobs_per_process);
    let (begun, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (tell, wait) = (Arc::clone(&begun), Arc::clone(&go_on));
    let slow = B::add(
        &mut jobs,
        TestInitializer::new("slow", move |_, _| {
            tell.add_permits(1);
            let wait = Arc::clone(&wait);
            async move {
                wait.acquire().await.expect("it is never closed").forget();
                Ok(JobCompletion::Complete)
            }
        }),
    );
    let quick = B::add(&mut jobs, TestInitializer::completing("quick"));
    jobs.start_poll().await.unwrap();
    let all_begin = async |count: usize| {
        let begun = begun.acquire_many(count as u32);
        let begun = tokio::time::timeout(crate::support::PATIENCE, begun).await;
        begun.expect("they begin").unwrap().forget();
    };
    for _ in 0..least {
        slow.spawn(JobId::new(), Value::Null).await.unwrap();
    }
    all_begin(least).await;
    let id = JobId::new();
    quick.spawn(id, Value::Null).await.unwrap();
    ended(&jobs, id).await;
    for _ in least..most {
        slow.spawn(JobId::new(), Value::Null).await.unwrap();
    }
    all_begin(most - least).await;
    go_on.add_permits(most);
    jobs.shutdown().await.unwrap();
}

/// It was Ok at every start, and nothing ran.
pub(super) async fn a_unique_job_that_died_is_told_of<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let fails = TestInitializer::new("only", |_, _| async { Err("broken".to_owned()) });
    let spawner = B::add(&mut jobs, fails.retry(at_once(1)));
    jobs.start_poll().await.unwrap();
    let first = JobId::new();
    let unique = spawner.clone().spawn_unique_or_find(first, json!(1)).await;
    assert_eq!(unique.unwrap().id, first);
    ended(&jobs, first).await;
    let unique = spawner.clone().spawn_unique_or_find(JobId::new(), json!(2));
    let unique = unique.await.unwrap();
    assert_eq!((unique.id, unique.state()), (first, JobState::Errored));
    assert_eq!(unique.last_error(), Some("broken"));
    spawner.spawn_unique(JobId::new(), json!(3)).await.unwrap();
    jobs.shutdown().await.unwrap();
}

/// Jobs with a variant of the new version; old and new workers share them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_deploy_ends_no_job() {
    #[derive(serde::Serialize, serde::Deserialize)]
    enum Old {
        Letter { to: String },
    }
    #[derive(serde::Serialize, serde::Deserialize)]
    enum New {
        Letter { to: String },
        Parcel { to: String, weight: u32 },
    }
    let place = job::Postgres::place().await;
    let mut old = service::<job::Postgres>(&place).await;
    let mut new = service::<job::Postgres>(&place).await;
    old.add_initializer(versions::Version::<Old>::new());
    let spawner = new.add_initializer(versions::Version::<New>::new());
    old.start_poll().await.unwrap();
    let mut ids = BTreeSet::new();
    for n in 0..20 {
        let to = "Ada".to_owned();
        let config = match n % 10 {
            0 => New::Letter { to },
            weight => New::Parcel { to, weight },
        };
        let id = JobId::new();
        spawner.spawn(id, config).await.unwrap();
        ids.insert(id);
    }
    let put_back = eventually("an old worker has met a new config", async || {
        for id in &ids {
            let job = old.find(*id).await.unwrap();
            if history(&job).contains(&"undecodable") {
                return Some(job);
            }
        }
        None
    });
    let put_back = put_back.await;
    assert_eq!(put_back.state(), JobState::Pending);
    let why = put_back.last_error().unwrap();
    assert!(why.contains("unknown variant `Parcel`"), "{why}");
    new.start_poll().await.unwrap();
    for id in ids {
        let job = ended(&new, id).await;
        assert_eq!((job.state(), job.attempt()), (JobState::Completed, 1));
    }
    old.shutdown().await.unwrap();
    new.shutdown().await.unwrap();
}

mod versions {
    //! The program of one version: it decodes its config, and is tried once.

    use std::error::Error;
    use std::marker::PhantomData;

    use job::{Job, JobInitializer, JobRunner, JobSpawner, JobType};
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::*;

    pub struct Version<C>(PhantomData<fn() -> C>);

    impl<C> Version<C> {
        pub fn new() -> Self {
            Self(PhantomData)
        }
    }

    impl<B, C> JobInitializer<B> for Version<C>
    where
        B: TestBackend,
        C: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        type Config = C;

        fn job_type(&self) -> JobType {
            JobType::new("send")
        }

        fn retry_on_error_settings(&self) -> RetrySettings {
            at_once(1)
        }

        fn init(
            &self,
            job: &Job,
            _: JobSpawner<C, B>,
        ) -> Result<Box<dyn JobRunner<B>>, Box<dyn Error>> {
            job.config::<C>()?;
            Ok(Box::new(Done))
        }
    }

    struct Done;

    #[async_trait::async_trait]
    impl<B: TestBackend> JobRunner<B> for Done {
        async fn run(&self, _: CurrentJob<B>) -> Result<JobCompletion<B>, Box<dyn Error>> {
            Ok(JobCompletion::Complete)
        }
    }
}
