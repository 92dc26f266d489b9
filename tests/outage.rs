//! The database goes away for half a minute while jobs run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use job::{JobCompletion, JobId, JobPollerConfig, JobState, JobSvcConfig, Jobs};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::{TestDatabase, TestInitializer, ended, eventually, history};

const AWAY: Duration = Duration::from_secs(30);

/// Forwards connections to a server, and cuts all of them when told to.
struct Proxy {
    port: u16,
    connected: watch::Sender<bool>,
}

impl Proxy {
    async fn start(host: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connected, state) = watch::channel(true);
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let (host, mut state) = (host.clone(), state.clone());
                if !*state.borrow() {
                    continue; // closed at once
                }
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(host).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = state.wait_for(|connected| !connected) => {}
                    }
                });
            }
        });
        Self { port, connected }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_run_while_the_database_is_away_lose_nothing() {
    let database = TestDatabase::create().await;
    let url = database.url();
    let host = url
        .split('@')
        .next_back()
        .unwrap()
        .trim_start_matches("postgres://");
    let (host, name) = host.split_once('/').unwrap();
    let user = url
        .split_once("://")
        .unwrap()
        .1
        .rsplit_once('@')
        .map_or("", |(user, _)| user);
    let proxy = Proxy::start(host.to_owned()).await;
    let through = format!("postgres://{user}@127.0.0.1:{}/{name}", proxy.port);
    let poller = JobPollerConfig {
        // Shorter than the outage: the leases run out in it.
        job_lost_interval: Duration::from_secs(20),
        ..JobPollerConfig::default()
    };
    let config = JobSvcConfig::builder()
        .pg_con(through)
        .poller_config(poller);
    let mut jobs = Jobs::init(config.build().unwrap()).await.unwrap();
    let away = Arc::new(AtomicBool::new(false));
    let back = Arc::clone(&away);
    let short = jobs.add_initializer(TestInitializer::completing("short"));
    let long = jobs.add_initializer(TestInitializer::new("long", move |_, _| {
        let back = Arc::clone(&back);
        async move {
            // It ends in the middle of the outage, when nobody can be told.
            while !back.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok(JobCompletion::Complete)
        }
    }));
    jobs.start_poll().await.unwrap();
    let ids: Vec<JobId> = (0..20).map(|_| JobId::new()).collect();
    for id in &ids {
        long.spawn(*id, Value::Null).await.unwrap();
    }
    eventually("all run", async || {
        for id in &ids {
            if jobs.find(*id).await.unwrap().state() != JobState::Running {
                return None;
            }
        }
        Some(())
    })
    .await;
    proxy.connected.send_replace(false);
    away.store(true, Ordering::SeqCst);
    tokio::time::sleep(AWAY).await;
    proxy.connected.send_replace(true);
    for id in &ids {
        let job = ended(&jobs, *id).await;
        let mut told = history(&job);
        let lost = u32::from(told.contains(&"lease lost"));
        let end = (job.state(), job.attempt());
        assert_eq!(end, (JobState::Completed, 1 + lost));
        // Once the database is back, this worker records the ends and renews the
        // leases. It may look for lost jobs before, and then finds its own.
        if lost > 0 {
            assert_eq!(
                told.drain(1..3).collect::<Vec<_>>(),
                ["started", "lease lost"]
            );
        }
        assert_eq!(told, ["spawned", "started", "completed"]);
    }
    // And it goes on as before.
    let id = JobId::new();
    eventually("jobs can be spawned again", async || {
        short.spawn(id, Value::Null).await.ok()
    })
    .await;
    ended(&jobs, id).await;
    jobs.shutdown().await.unwrap();
}
