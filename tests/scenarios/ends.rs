//! How runners end their runs.

use super::*;

/// A type whose runner spawns a child in a transaction, and then ends as
/// `end` says.
async fn parent_and_child<B: TestBackend>(
    jobs: &mut Jobs<B>,
    retry: RetrySettings,
    end: impl Fn(B::Transaction) -> Result<JobCompletion<B>, String> + Clone + Send + Sync + 'static,
) -> (JobId, JobId) {
    let (parent, child) = (JobId::new(), JobId::new());
    let children = B::add(jobs, TestInitializer::completing("child"));
    let initializer = TestInitializer::new("parent", move |job: job::CurrentJob<B>, _| {
        let (children, end) = (children.clone(), end.clone());
        async move {
            let mut transaction = B::begin(job.pool()).await;
            let spawned = children
                .spawn_in_op(&mut transaction, child, Value::Null)
                .await;
            spawned.map_err(|error| error.to_string())?;
            end(transaction)
        }
    });
    let parents = B::add(jobs, initializer.retry(retry));
    jobs.start_poll().await.unwrap();
    parents.spawn(parent, Value::Null).await.unwrap();
    (parent, child)
}

pub(super) async fn a_completing_transaction_commits_with_the_completion<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let retry = RetrySettings::default();
    let (parent, child) = parent_and_child(&mut jobs, retry, |transaction| {
        Ok(JobCompletion::CompleteWithTx(transaction))
    })
    .await;
    let parent = ended(&jobs, parent).await;
    assert_eq!(history(&parent), ["spawned", "started", "completed"]);
    ended(&jobs, child).await;
}

pub(super) async fn a_transaction_of_a_failed_run_leaves_nothing<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let (parent, child) = parent_and_child(&mut jobs, at_once(1), |transaction| {
        drop(transaction);
        Err("changed my mind".to_owned())
    })
    .await;
    let parent = ended(&jobs, parent).await;
    assert_eq!(parent.last_error(), Some("changed my mind"));
    assert!(matches!(jobs.find(child).await, Err(JobError::NotFound(_))));
}

pub(super) async fn a_long_history_is_read_page_by_page<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let runs = Arc::new(AtomicU32::new(0));
    let initializer = TestInitializer::new("resident", move |_: job::CurrentJob<B>, _| {
        let run = runs.fetch_add(1, Ordering::SeqCst);
        async move {
            Ok(match run {
                0..60 => JobCompletion::RescheduleNow,
                _ => JobCompletion::Complete,
            })
        }
    });
    let spawner = B::add(&mut jobs, initializer);
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    let job = ended(&jobs, id).await;
    let told = history(&job);
    assert_eq!(told.len(), 1 + 2 * 50);
    assert_eq!((told[0], told[100]), ("spawned", "completed"));
    let earlier = job.earlier().expect("there were more runs than that");
    let page = jobs.history(id, earlier).await.unwrap();
    assert_eq!((page.events.len(), page.earlier), (2 * 11, None));
    let mut events = page.events;
    events.extend(job.events()[1..].iter().cloned());
    assert!(events.is_sorted_by_key(|event| event.at));
    let nothing = jobs.history(JobId::new(), earlier).await.unwrap();
    assert_eq!((nothing.events.len(), nothing.earlier), (0, None));
}

pub(super) async fn a_snoozed_run_was_no_attempt<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&attempts);
    let initializer = TestInitializer::new("patient", move |mut job: job::CurrentJob<B>, _| {
        keep.lock().unwrap().push(job.attempt());
        let runs = keep.lock().unwrap().len();
        async move {
            match runs {
                1 => Err("first".to_owned()),
                2 => {
                    job.update_execution_state(2).await.unwrap();
                    Ok(JobCompletion::snooze_in(Duration::from_millis(1)))
                }
                3 => {
                    let transaction = B::begin(job.pool()).await;
                    let past = job.clock().now() - TimeDelta::hours(1);
                    Ok(JobCompletion::snooze_at(past).in_tx(transaction))
                }
                _ => {
                    assert_eq!(job.execution_state::<u32>().unwrap(), Some(2));
                    Ok(JobCompletion::complete())
                }
            }
        }
    });
    let spawner = B::add(&mut jobs, initializer.retry(at_once(2)));
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    let job = ended(&jobs, id).await;
    assert_eq!(job.state(), JobState::Completed, "{:?}", job.last_error());
    assert_eq!(*attempts.lock().unwrap(), [1, 2, 2, 2]);
    let told = history(&job).into_iter().filter(|what| *what == "snoozed");
    assert_eq!(told.count(), 2);
}

pub(super) async fn a_runner_that_gives_its_job_up_ends_it<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let initializer = TestInitializer::new("declined", |_: job::CurrentJob<B>, _| async {
        Ok(JobCompletion::fail("the card has expired"))
    });
    let spawner = B::add(&mut jobs, initializer);
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    let job = ended(&jobs, id).await;
    assert_eq!((job.state(), job.attempt()), (JobState::Errored, 1));
    assert_eq!(job.last_error(), Some("the card has expired"));
    assert_eq!(history(&job), ["spawned", "started", "errored"]);
}

pub(super) async fn a_job_is_given_up_together_with_a_transaction<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let (parent, child) = parent_and_child(&mut jobs, at_once(3), |transaction| {
        Ok(JobCompletion::fail("tell the customer").in_tx(transaction))
    })
    .await;
    let parent = ended(&jobs, parent).await;
    assert_eq!(history(&parent), ["spawned", "started", "errored"]);
    assert_eq!(parent.last_error(), Some("tell the customer"));
    ended(&jobs, child).await;
}

pub(super) async fn a_reschedule_starts_the_attempts_again<B: TestBackend>() {
    let place = B::place().await;
    let (clock, controller) = ClockHandle::artificial(ArtificialClockConfig::manual());
    let mut jobs = service_on::<B>(&place, clock.clone()).await;
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&attempts);
    let at = clock.now() + TimeDelta::hours(2);
    let initializer = TestInitializer::new("periodic", move |job: job::CurrentJob<B>, _| {
        keep.lock().unwrap().push(job.attempt());
        let runs = keep.lock().unwrap().len();
        async move {
            match runs {
                1 => Err("first".to_owned()),
                2 => Ok(JobCompletion::RescheduleIn(Duration::from_secs(3600))),
                3 => Ok(JobCompletion::RescheduleAt(at)),
                _ => Ok(JobCompletion::Complete),
            }
        }
    });
    let spawner = B::add(&mut jobs, initializer.retry(at_once(5)));
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    let runs = |n: usize| {
        let attempts = Arc::clone(&attempts);
        async move {
            eventually("the job runs", async || {
                (attempts.lock().unwrap().len() == n).then_some(())
            })
            .await;
        }
    };
    runs(2).await;
    eventually("the reschedule is recorded", async || {
        let job = jobs.find(id).await.unwrap();
        (history(&job).last() == Some(&"rescheduled")).then_some(())
    })
    .await;
    controller.advance(Duration::from_secs(3600)).await;
    runs(3).await;
    eventually("the second reschedule is recorded", async || {
        let job = jobs.find(id).await.unwrap();
        (job.due_at()? == at).then_some(())
    })
    .await;
    controller.advance(Duration::from_secs(3600)).await;
    ended(&jobs, id).await;
    assert_eq!(*attempts.lock().unwrap(), [1, 2, 1, 1]);
}
