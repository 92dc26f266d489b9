//! Whole processes, killed and stopped.
//!
//! A worker process is this test binary again: it runs the test
//! `a_worker_process`, which does nothing unless the environment tells it to.

mod audit;
mod books;
mod chaos;
mod dice;
mod harness;
mod named;
mod process;
mod spawning;
mod sqlite;
mod torment;
mod troubles;
mod workload;

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};

const ROLE: &str = "JOB_TEST_WORKER_ROLE";
const BRIEF: &str = "JOB_TEST_WORKER_BRIEF";

/// What a worker process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Runs the jobs of [`named`] on Postgres.
    Postgres,
    /// Runs the jobs of [`named`] on SQLite.
    Sqlite,
    /// Runs a job on SQLite that does not end while it lives.
    StuckOnSqlite,
    /// Runs the jobs of [`workload`] on Postgres.
    ChaosOnPostgres,
    /// Runs the jobs of [`workload`] on SQLite.
    ChaosOnSqlite,
}

impl Role {
    const ALL: [Self; 5] = [
        Self::Postgres,
        Self::Sqlite,
        Self::StuckOnSqlite,
        Self::ChaosOnPostgres,
        Self::ChaosOnSqlite,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Sqlite => "sqlite",
            Self::StuckOnSqlite => "stuck on sqlite",
            Self::ChaosOnPostgres => "chaos on postgres",
            Self::ChaosOnSqlite => "chaos on sqlite",
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_process() {
    let Ok(name) = std::env::var(ROLE) else {
        return;
    };
    std::thread::spawn(end_with_parent);
    let brief = std::env::var(BRIEF).expect("a role comes with a brief");
    let mut roles = Role::ALL.into_iter();
    let role = roles.find(|role| role.name() == name);
    match role.expect("the parent knows the roles") {
        Role::Postgres => named::work_on_postgres(&brief).await,
        Role::Sqlite => named::work_on_sqlite(&brief).await,
        Role::StuckOnSqlite => sqlite::be_stuck(&brief).await,
        Role::ChaosOnPostgres => process::live::<job::Postgres>(&brief).await,
        Role::ChaosOnSqlite => process::live::<job::Sqlite>(&brief).await,
    }
}

/// A worker whose test was killed must not go on for ever. The other end of its
/// standard input is held by the test, which never writes.
fn end_with_parent() {
    let _ = std::io::stdin().read(&mut [0]);
    std::process::exit(1);
}

/// A process that runs jobs; killed when it is dropped.
struct Worker(Child);

/// What can be sent to a worker.
#[derive(Clone, Copy, Debug)]
enum Signal {
    Stop,
    Continue,
    /// Asks it to shut down.
    Terminate,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Stop => "-STOP",
            Self::Continue => "-CONT",
            Self::Terminate => "-TERM",
        }
    }
}

impl Worker {
    fn start(role: Role, brief: &str) -> Self {
        let this = std::env::current_exe().expect("the test binary has a path");
        let child = Command::new(this)
            .args(["processes::a_worker_process", "--exact", "--nocapture"])
            .env(ROLE, role.name())
            .env(BRIEF, brief)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        Self(child.expect("the test binary can be started"))
    }

    fn signal(&self, signal: Signal) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args([signal.name(), &pid]).status();
        assert!(sent.expect("kill can be run").success());
    }

    /// How it ended; `None` while it has not.
    fn exited(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("it is our child")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.kill().expect("it is our child");
        self.0.wait().expect("it is our child");
    }
}
