//! Measures `job` as a whole. `benches/run` starts a server for it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use job_bench::database::Server;
use job_bench::measures::Measure;
use job_bench::round::Sizes;
use job_bench::table::Table;
use job_bench::{Reading, Result, Round, aims, child, report};

/// How long one round of one measure may take.
const ROUND_MAX: Duration = Duration::from_secs(30 * 60);

#[derive(Parser)]
#[command(about = "Measures the job engine beside what hand-written SQL reaches")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures once, on the server that DATABASE_URL names
    Measure {
        /// What
        measure: Measure,
        /// Which round of it this is, from 1
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        round: u32,
        /// The file to which the readings are added
        #[arg(long)]
        json: PathBuf,
        /// Small sizes
        #[arg(long)]
        quick: bool,
    },
    /// Lists what can be measured
    List {
        /// The names alone
        #[arg(long)]
        names: bool,
    },
    /// Prints the readings of a file as a table
    Table {
        /// The file
        #[arg(long)]
        json: PathBuf,
    },
    /// Writes the readings of a file into a page, and plots beside it
    Report {
        /// The file
        #[arg(long)]
        json: PathBuf,
        /// The page, in Markdown; it is made if it is missing
        #[arg(long)]
        out: PathBuf,
    },
    /// Lives as a worker process
    #[command(hide = true)]
    Worker {
        /// Where
        url: String,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match execute(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("job-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(command: Command) -> Result<()> {
    match command {
        Command::Measure {
            measure,
            round,
            json,
            quick,
        } => {
            let sizes = if quick { Sizes::QUICK } else { Sizes::FULL };
            let mut round = Round::new(Server::from_env()?, sizes, round).await?;
            let taken = tokio::time::timeout(ROUND_MAX, measure.take(&mut round)).await;
            taken.map_err(|_| format!("not done within {ROUND_MAX:?}"))??;
            Reading::append(&json, &round.into_readings())
        }
        Command::List { names } => {
            for value in Measure::value_variants()
                .iter()
                .filter_map(Measure::to_possible_value)
            {
                match value.get_help().filter(|_| !names) {
                    Some(help) => println!("{:<15} {help}", value.get_name()),
                    None => println!("{}", value.get_name()),
                }
            }
            Ok(())
        }
        Command::Table { json } => {
            let readings = Reading::read_all(&json)?;
            print!("{}", Table::of(&readings));
            aims::write_judged(&readings, &mut std::io::stdout())
        }
        Command::Report { json, out } => report::write(&Reading::read_all(&json)?, &out),
        Command::Worker { url } => child::live(&url).await,
    }
}
