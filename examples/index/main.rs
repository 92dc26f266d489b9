//! Indexes a directory: one job a file computes its size, lines and SHA-256.
//!
//! Kill it at any moment and start it again: it goes on where it was. With
//! `--database-url` any number of processes share the work.

mod facts;
mod results;

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use clap::Parser;
use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use job::error::JobError;
use job::{
    CurrentJob, Job, JobCompletion, JobId, JobInitializer, JobPollerConfig, JobRunner, JobSpawner,
    JobSvcConfig, JobType, Jobs,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use results::Results;

/// Jobs that are spawned in one transaction.
const SPAWN_BATCH: usize = 500;
/// After a crash, jobs that were running wait for their leases to run out. Files
/// are read quickly, so the lease can be short.
const JOB_LOST_INTERVAL: Duration = Duration::from_secs(5);

/// Index a directory with one job a file: size, lines, SHA-256.
#[derive(Parser)]
struct Args {
    /// The directory to index. Files that .gitignore names are left out.
    #[arg(default_value = ".")]
    directory: PathBuf,
    /// The SQLite file that keeps the jobs and the results.
    #[arg(long, default_value = "job-index.db")]
    file: PathBuf,
    /// Share the work through this Postgres database instead
    /// (postgres://user:password@host/database).
    #[arg(long, conflicts_with = "file")]
    database_url: Option<String>,
    /// Files that are worked on at once in this process.
    #[arg(long, default_value_t = 8)]
    jobs: usize,
}

/// The config of a job: the file to look at.
#[derive(Debug, Serialize, Deserialize)]
struct IndexFile {
    path: PathBuf,
}

struct IndexFileInitializer;

impl<B: Results> JobInitializer<B> for IndexFileInitializer {
    type Config = IndexFile;

    fn job_type(&self) -> JobType {
        JobType::new("index-file")
    }

    fn init(
        &self,
        job: &Job,
        _spawner: JobSpawner<IndexFile, B>,
    ) -> Result<Box<dyn JobRunner<B>>, Box<dyn Error>> {
        let config: IndexFile = job.config()?;
        Ok(Box::new(IndexFileRunner { path: config.path }))
    }
}

struct IndexFileRunner {
    path: PathBuf,
}

#[async_trait]
impl<B: Results> JobRunner<B> for IndexFileRunner {
    async fn run(&self, job: CurrentJob<B>) -> Result<JobCompletion<B>, Box<dyn Error>> {
        let path = self.path.clone();
        let facts = tokio::task::spawn_blocking(move || facts::read(&path)).await?;
        // The facts and the end of the job are committed together, so that no
        // file is ever counted twice.
        let transaction = B::store(job.pool(), *job.id(), &self.path, &facts).await?;
        Ok(JobCompletion::CompleteWithTx(transaction))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let poller = JobPollerConfig {
        job_lost_interval: JOB_LOST_INTERVAL,
        max_jobs_per_process: args.jobs,
        min_jobs_per_process: args.jobs,
        ..JobPollerConfig::default()
    };
    let directory = std::fs::canonicalize(&args.directory)
        .map_err(|error| format!("cannot index {}: {error}", args.directory.display()))?;
    match args.database_url {
        Some(url) => {
            let config = JobSvcConfig::builder().pg_con(url).poller_config(poller);
            index(config.build()?, &directory).await
        }
        None => {
            let config = JobSvcConfig::sqlite().path(args.file).poller_config(poller);
            index(config.build()?, &directory).await
        }
    }
}

async fn index<B: Results>(
    config: JobSvcConfig<B>,
    directory: &Path,
) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let mut jobs = Jobs::init(config).await?;
    B::create_tables(jobs.pool()).await?;
    let spawner = jobs.add_initializer(IndexFileInitializer);

    let files = files(directory)?;
    let ids: BTreeSet<JobId> = files.iter().map(|(id, _)| *id).collect();
    let before = count_done::<B>(jobs.pool(), &ids).await?;
    let spawned = spawn_all::<B>(jobs.pool(), &spawner, files).await?;
    println!(
        "{} files: {} new jobs, {} known from before, {} of them done",
        HumanCount(ids.len() as u64),
        HumanCount(spawned),
        HumanCount(ids.len() as u64 - spawned),
        HumanCount(before),
    );

    jobs.start_poll().await?;
    let finished = tokio::select! {
        finished = watch::<B>(jobs.pool(), &ids, before) => { finished?; true }
        stopped = jobs.run_until_signal() => { stopped?; false }
    };
    jobs.shutdown().await?;
    if !finished {
        println!("stopped; start it again to go on");
        return Ok(());
    }
    let summary = B::summary(jobs.pool(), &ids).await?;
    println!(
        "{} files, {} bytes ({}), {} lines, {} with the same content as another, {} unreadable",
        HumanCount(summary.files),
        HumanCount(summary.bytes),
        HumanBytes(summary.bytes),
        HumanCount(summary.lines),
        HumanCount(summary.duplicates),
        HumanCount(summary.unreadable),
    );
    if let Some((path, size)) = summary.largest {
        println!("largest: {path} ({})", HumanBytes(size));
    }
    println!("took {}", HumanDuration(started.elapsed()));
    Ok(())
}

/// The files to index, each with the id of its job. The id says path, size and
/// time of change, so that a start finds the jobs of an earlier one, and a file
/// that changed gets a new job.
fn files(directory: &Path) -> Result<Vec<(JobId, PathBuf)>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in ignore::Walk::new(directory) {
        let entry = entry?;
        let Ok(metadata) = entry.metadata() else {
            continue; // deleted meanwhile
        };
        if metadata.is_file() {
            let changed = metadata.modified()?.duration_since(std::time::UNIX_EPOCH);
            let name = format!(
                "{}\0{}\0{changed:?}",
                entry.path().display(),
                metadata.len()
            );
            let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes());
            files.push((id.into(), entry.into_path()));
        }
    }
    Ok(files)
}

/// Spawns a job for each file that has none. Returns how many.
async fn spawn_all<B: Results>(
    pool: &B::Pool,
    spawner: &JobSpawner<IndexFile, B>,
    files: Vec<(JobId, PathBuf)>,
) -> Result<u64, Box<dyn Error>> {
    let mut spawned = 0;
    let mut files = files.into_iter().peekable();
    while files.peek().is_some() {
        let mut transaction = B::begin(pool).await?;
        for (id, path) in files.by_ref().take(SPAWN_BATCH) {
            let config = IndexFile { path };
            match spawner.spawn_in_op(&mut transaction, id, config).await {
                Ok(_) => spawned += 1,
                Err(JobError::DuplicateId(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        B::commit(transaction).await?;
    }
    Ok(spawned)
}

/// Shows how far the work is, until all is done.
async fn watch<B: Results>(
    pool: &B::Pool,
    ids: &BTreeSet<JobId>,
    before: u64,
) -> Result<(), Box<dyn Error>> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} files, {per_sec}, {eta} left")?;
    let bar = ProgressBar::new(ids.len() as u64).with_style(style);
    bar.set_position(before);
    bar.reset_eta();
    loop {
        let done = count_done::<B>(pool, ids).await?;
        bar.set_position(done);
        if done == ids.len() as u64 {
            bar.finish();
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn count_done<B: Results>(
    pool: &B::Pool,
    ids: &BTreeSet<JobId>,
) -> Result<u64, Box<dyn Error>> {
    let done = B::done(pool).await?;
    Ok(done.iter().filter(|id| ids.contains(id)).count() as u64)
}
