//! A process that is told to end, as an orchestrator or a terminal does it.
//!
//! The process is this test binary again: it runs the test `a_process_that_runs_until_a_signal`,
//! which does nothing unless the environment tells it to.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use job::{JobCompletion, JobError, JobId, JobPollerConfig, JobState, JobSvcConfig, Jobs, Sqlite};
use serde_json::json;

use crate::support::{TestInitializer, history};

const FILE: &str = "JOB_TEST_DEPLOYS_FILE";
const SHUTDOWN_TIMEOUT_MS: &str = "JOB_TEST_DEPLOYS_SHUTDOWN_TIMEOUT_MS";
const JOB: &str = "JOB_TEST_DEPLOYS_JOB";

#[tokio::test]
async fn a_process_that_runs_until_a_signal() {
    let Ok(file) = std::env::var(FILE) else {
        return;
    };
    std::thread::spawn(end_with_parent);
    let setting = |name| std::env::var(name).expect("the parent sets it");
    let shutdown_timeout = setting(SHUTDOWN_TIMEOUT_MS).parse().unwrap();
    let poller = JobPollerConfig {
        shutdown_timeout: Duration::from_millis(shutdown_timeout),
        ..JobPollerConfig::default()
    };
    let config = JobSvcConfig::sqlite().path(file).poller_config(poller);
    let mut jobs = Jobs::init(config.build().unwrap()).await.unwrap();
    let spawner = jobs.add_initializer(TestInitializer::<Sqlite>::new(
        "work",
        |mut job, config| async move {
            println!("works");
            job.shutdown_requested().await;
            println!("asked to end");
            if config == json!("stubborn") {
                std::future::pending::<()>().await;
            }
            Ok(JobCompletion::Complete)
        },
    ));
    jobs.start_poll().await.unwrap();
    let kind = setting(JOB);
    spawner.spawn(job_id(), json!(kind)).await.unwrap();
    jobs.run_until_signal().await.unwrap();
    println!("ended");
}

/// A process whose test was killed must not go on for ever: the other end of its standard
/// input is held by the test.
fn end_with_parent() {
    let _ = std::io::stdin().read(&mut [0]);
    std::process::exit(1);
}

fn job_id() -> JobId {
    uuid::Uuid::from_u128(1).into()
}

/// A process with one job; killed when it is dropped.
struct Process {
    child: Child,
    says: BufReader<ChildStdout>,
    /// Waiting for the child would close it, and end the child.
    _stdin: ChildStdin,
}

impl Process {
    fn start(directory: &Path, job: &str, shutdown_timeout_ms: u64) -> Self {
        let this = std::env::current_exe().expect("the test binary has a path");
        let test = "deploys::a_process_that_runs_until_a_signal";
        let mut child = Command::new(this)
            .args([test, "--exact", "--nocapture"])
            .env(FILE, directory.join("jobs.db"))
            .env(JOB, job)
            .env(SHUTDOWN_TIMEOUT_MS, shutdown_timeout_ms.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test binary can be started");
        let says = BufReader::new(child.stdout.take().expect("it is piped"));
        let _stdin = child.stdin.take().expect("it is piped");
        Self {
            child,
            says,
            _stdin,
        }
    }

    /// Waits until it has said this.
    fn says(&mut self, what: &str) {
        let mut line = String::new();
        while self.says.read_line(&mut line).unwrap() > 0 {
            if line.contains(what) {
                return;
            }
            line.clear();
        }
        panic!("it ended and never said {what:?}");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status();
        assert!(sent.expect("kill can be run").success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().expect("it is our child").code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The job as the process has left it.
async fn left_by_the_process(directory: &Path) -> job::Job {
    let config = JobSvcConfig::sqlite().path(directory.join("jobs.db"));
    let jobs = Jobs::init(config.build().unwrap()).await.unwrap();
    jobs.find(job_id()).await.unwrap()
}

#[tokio::test]
async fn a_signal_lets_running_jobs_end() {
    for signal in ["-TERM", "-INT"] {
        let directory = tempfile::tempdir().unwrap();
        let mut process = Process::start(directory.path(), "obedient", 60_000);
        process.says("works");
        process.signal(signal);
        process.says("ended");
        assert_eq!(process.exit_code(), Some(0), "{signal}");
        let job = left_by_the_process(directory.path()).await;
        assert_eq!(history(&job), ["spawned", "started", "completed"]);
    }
}

#[tokio::test]
async fn a_signal_puts_back_what_does_not_end_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::start(directory.path(), "stubborn", 100);
    process.says("works");
    process.signal("-TERM");
    process.says("ended");
    assert_eq!(process.exit_code(), Some(0));
    let job = left_by_the_process(directory.path()).await;
    assert_eq!(history(&job), ["spawned", "started", "aborted"]);
    assert_eq!((job.state(), job.attempt()), (JobState::Pending, 1));
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
        let directory = tempfile::tempdir().unwrap();
        let mut process = Process::start(directory.path(), "stubborn", 600_000);
        process.says("works");
        process.signal("-TERM");
        process.says("asked to end");
        process.signal(signal);
        assert_eq!(process.exit_code(), Some(code), "{signal}");
        // Nothing ended the run: who opened the file next took the job back, at once.
        let job = left_by_the_process(directory.path()).await;
        assert_eq!(history(&job), ["spawned", "started", "aborted"]);
        assert_eq!((job.state(), job.attempt()), (JobState::Pending, 1));
    }
}

#[tokio::test]
async fn running_until_a_signal_needs_a_worker_and_ends_with_it() {
    let mut jobs = Jobs::init(JobSvcConfig::memory().build().unwrap())
        .await
        .unwrap();
    let refused = jobs.run_until_signal().await.unwrap_err();
    assert!(matches!(refused, JobError::Config(_)), "{refused}");
    assert!(refused.to_string().contains("start_poll"), "{refused}");
    jobs.add_initializer(TestInitializer::completing("mail"));
    jobs.start_poll().await.unwrap();
    let (stopped, shut_down) = tokio::join!(jobs.run_until_signal(), jobs.shutdown());
    stopped.unwrap();
    shut_down.unwrap();
    jobs.run_until_signal().await.unwrap();
}
