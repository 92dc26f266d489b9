//! What other job queues reach, by the measures of this project's own benches
//! and on the same database.
//!
//! **What.** `job` 0.19.2, `riverqueue` 0.3, `graphile_worker` 0.14 and `awa`
//! 0.6, as crates.io has them: drain with and without a backlog, enqueueing by
//! one task, by sixteen and in bulk, latency from enqueueing to the handler,
//! and the write-ahead log that a job costs; on SQLite, `riverqueue`, which
//! alone has it. All jobs carry a number, and their handlers count a run and
//! return. Durability is the server's own business: run it with `fsync` and
//! `synchronous_commit` on.
//!
//! **How.** `benches/peers/run` builds and measures everything, interleaved by
//! round, and writes the lines that the main harness merges. One call of this
//! program takes one reading (two for latency): it creates a database in the
//! server, lets the peer make its tables there, measures and drops it.
//!
//! * A drain is timed from the start of the worker, with all jobs enqueued,
//!   until the database has them as ended. It ends after 40 s with what it has
//!   done by then, which the slowest settings need: the reading is a rate all
//!   the same. The same goes for enqueueing after 5 s and for latency after 20.
//! * Latency is that of an idle worker: the next job comes 20 ms after the one
//!   before was recorded. A peer that holds back its fetches for longer than
//!   that shows it.
//! * The log is that of enqueueing in bulk and of running.
//! * `--jobs` takes fewer jobs than the names of the measures say.
//!
//! **Which settings, and why.** `default` is what one gets from the crate's
//! constructors and, where they ask for a number, from its quick start; pools
//! included. `best` is the fastest drain that was found by trying, on the two
//! processors that the server shared with the peer; the head of each module in
//! `peers` has what was tried and what it did. It is the same for all measures:
//! nobody runs one worker for throughput and another for latency.
#![forbid(unsafe_code)]

mod database;
mod measures;
mod peers;
mod report;

use anyhow::{Context, Result};
use clap::Parser;
use database::Scratch;
use measures::{Limits, Measure};
use peers::{Config, PeerName};
use report::Report;
use std::env;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Measures one peer in one configuration.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// A Postgres server: the peer gets a database of its own in it, dropped at the end.
    #[arg(long, env = "DATABASE_URL")]
    database_url: url::Url,
    /// What to measure.
    #[arg(long)]
    measure: Measure,
    /// Whom to measure.
    #[arg(long)]
    peer: PeerName,
    /// The settings: as they come, or the best that were found.
    #[arg(long)]
    config: Config,
    /// How many jobs; the backlog measure enqueues ten times as many.
    #[arg(long, default_value_t = 20_000)]
    jobs: u64,
    /// After how many seconds a measure ends with what it has done by then.
    #[arg(long, default_value_t = 40)]
    seconds_max: u64,
    /// The round that each reading is marked with.
    #[arg(long, default_value_t = 0)]
    round: u32,
    /// A file to append each reading to, as a line of JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let environment = args.peer.environment(args.config);
    if environment
        .iter()
        .any(|(name, value)| env::var(name).as_deref() != Ok(value))
    {
        // A variable is for a program to start with: to set it here would race
        // with whatever else reads the environment.
        let error = Command::new(env::current_exe()?)
            .args(env::args_os().skip(1))
            .envs(environment.iter().copied())
            .exec();
        return Err(error).context("start again with the peer's environment");
    }
    tokio::runtime::Runtime::new()
        .context("start a runtime")?
        .block_on(measure(args))
}

async fn measure(args: Args) -> Result<()> {
    let limits = Limits {
        jobs: args.jobs,
        time: Duration::from_secs(args.seconds_max),
    };
    let mut report = Report::new(args.peer.subject(args.config), args.round, args.json);
    let scratch = Scratch::create(&args.database_url).await?;
    let measured = args
        .measure
        .run(&scratch, args.peer, args.config, limits, &mut report)
        .await;
    scratch.drop().await?;
    measured
}
