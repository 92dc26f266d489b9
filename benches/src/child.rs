//! Worker processes: this program, started again.
//!
//! A worker writes `ready` once its service is open, starts to poll when it is sent
//! a line, then writes how many runners ran whenever that changed, and shuts down
//! when its input ends.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, stdin};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::Result;
use crate::ours::{self, Tally};

/// How often a worker says at most how many runners ran.
const TOLD_EVERY: Duration = Duration::from_millis(2);

/// A worker process. Killed when it is dropped.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    input: ChildStdin,
    ran: Arc<AtomicU64>,
    reader: JoinHandle<()>,
}

impl Worker {
    /// Starts a worker on a database. It does not poll yet.
    ///
    /// # Errors
    ///
    /// When the process does not start, or its service does not.
    pub async fn start(url: &str) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["worker", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take().ok_or("the worker has no input")?;
        let output = child.stdout.take().ok_or("the worker has no output")?;
        let mut lines = BufReader::new(output).lines();
        if lines.next_line().await?.is_none() {
            return Err("the worker ended before it was ready".into());
        }
        let ran = Arc::new(AtomicU64::new(0));
        let reader = tokio::spawn(read_counts(lines, Arc::clone(&ran)));
        Ok(Self {
            child,
            input,
            ran,
            reader,
        })
    }

    /// Lets it poll.
    ///
    /// # Errors
    ///
    /// When the process is gone.
    pub async fn go(&mut self) -> Result<()> {
        Ok(self.input.write_all(b"go\n").await?)
    }

    /// How many runners it ran, as far as it has told.
    pub fn ran(&self) -> u64 {
        self.ran.load(Ordering::Relaxed)
    }

    /// The number of its process.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn pid(&self) -> Result<u32> {
        self.child.id().ok_or_else(|| "the worker has ended".into())
    }

    /// Shuts it down.
    ///
    /// # Errors
    ///
    /// When it fails to.
    pub async fn stop(mut self) -> Result<()> {
        drop(self.input);
        let status = self.child.wait().await?;
        self.reader.await?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the worker ended with {status}").into())
        }
    }
}

/// Waits until these workers together ran so many jobs.
///
/// # Errors
///
/// When one of them ends before.
pub async fn ran_together(workers: &mut [Worker], jobs: usize) -> Result<()> {
    while workers.iter().map(Worker::ran).sum::<u64>() < jobs as u64 {
        for worker in &mut *workers {
            if let Some(status) = worker.child.try_wait()? {
                return Err(format!("a worker ended with {status}").into());
            }
        }
        sleep(TOLD_EVERY).await;
    }
    Ok(())
}

async fn read_counts(mut lines: Lines<BufReader<ChildStdout>>, ran: Arc<AtomicU64>) {
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(count) = line.parse() {
            ran.store(count, Ordering::Relaxed);
        }
    }
}

/// The life of a worker process.
///
/// # Errors
///
/// When the service fails.
pub async fn live(url: &str) -> Result<()> {
    let mut jobs = ours::service(url).await?;
    let tally = Tally::new(0);
    jobs.add_initializer(ours::counting(&tally));
    println!("ready");
    let mut input = BufReader::new(stdin()).lines();
    if input.next_line().await?.is_none() {
        return Ok(());
    }
    jobs.start_poll().await?;
    let teller = tokio::spawn(tell(tally));
    while input.next_line().await?.is_some() {}
    teller.abort();
    jobs.shutdown().await?;
    Ok(())
}

/// Only when there is something to tell: a worker with nothing to do must do
/// nothing.
async fn tell(tally: Arc<Tally>) {
    loop {
        tally.reached().await;
        println!("{}", tally.ran());
        sleep(TOLD_EVERY).await;
    }
}
