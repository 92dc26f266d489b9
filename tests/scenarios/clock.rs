//! Everything follows the clock of the service.

use super::*;

const LEASE: Duration = Duration::from_secs(60);
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3_600);

async fn on_a_manual_clock<B: TestBackend>(place: &B::Place) -> (Jobs<B>, ClockController) {
    let (clock, controller) = ClockHandle::manual();
    let config = B::on(place).clock(clock).poller_config(JobPollerConfig {
        job_lost_interval: LEASE,
        shutdown_timeout: SHUTDOWN_TIMEOUT,
        ..JobPollerConfig::default()
    });
    let jobs = Jobs::init(config.build().unwrap()).await.unwrap();
    (jobs, controller)
}

pub(super) async fn a_lease_is_kept_however_far_the_clock_is_advanced<B: TestBackend>() {
    let place = B::place().await;
    let (mut jobs, controller) = on_a_manual_clock::<B>(&place).await;
    let [started, ends] = [(); 2].map(|()| Arc::new(Notify::new()));
    let (tell, may_end) = (Arc::clone(&started), Arc::clone(&ends));
    let spawner = B::add(
        &mut jobs,
        TestInitializer::new("long", move |_, _| {
            tell.notify_one();
            let may_end = Arc::clone(&may_end);
            async move {
                may_end.notified().await;
                Ok(JobCompletion::Complete)
            }
        }),
    );
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    started.notified().await;
    // Heartbeats, and looks for lost jobs, come at their times.
    controller.advance(LEASE * 20).await;
    ends.notify_one();
    let job = ended(&jobs, id).await;
    assert_eq!(history(&job), ["spawned", "started", "completed"]);
    let took = job.events()[2].at - job.events()[1].at;
    assert!(took >= TimeDelta::from_std(LEASE * 20).unwrap(), "{took}");
}

pub(super) async fn a_shutdown_waits_by_the_clock<B: TestBackend>() {
    let place = B::place().await;
    let (mut jobs, controller) = on_a_manual_clock::<B>(&place).await;
    let told = Arc::new(Notify::new());
    let tell = Arc::clone(&told);
    let spawner = B::add(
        &mut jobs,
        TestInitializer::new("stubborn", move |mut job, _| {
            let tell = Arc::clone(&tell);
            async move {
                tell.notify_one();
                job.shutdown_requested().await;
                tell.notify_one();
                std::future::pending().await
            }
        }),
    );
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    told.notified().await;
    let stopping = jobs.clone();
    let shutdown = tokio::spawn(async move { stopping.shutdown().await });
    told.notified().await;
    let second = Duration::from_secs(1);
    controller.advance(SHUTDOWN_TIMEOUT - second).await;
    assert!(!shutdown.is_finished());
    controller.advance(second).await;
    shutdown.await.unwrap().unwrap();
    let job = eventually("the job is read", async || spawned_job(&jobs, id).await).await;
    assert_eq!(history(&job), ["spawned", "started", "aborted"]);
}
