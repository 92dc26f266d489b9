//! What the program can be asked for.

mod ci;
mod exhaust;
mod explore;
mod mutants;
mod replay;

use std::ops::Range;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use job_sim::level::Level;

/// Simulates `job`: crashes of many workers, replayed from a seed.
#[derive(Debug, Parser)]
#[command(name = "job-sim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Simulate many seeds, check everything, shrink what fails.
    Explore(explore::Explore),
    /// Replay a failing case from its file.
    Replay(replay::Replay),
    /// Show what happens in one seed.
    Show(replay::Show),
    /// Plant bugs one at a time, and see how soon they are found.
    Mutants(mutants::Mutants),
    /// Try every interleaving of two workers and two jobs.
    Exhaust(exhaust::Exhaust),
    /// The fixed set of everything above that must pass before a change goes in.
    Ci(ci::Ci),
    /// Print the hash of each seed: what another process must agree with.
    #[command(hide = true)]
    Hashes(ci::Hashes),
}

/// How a command ends.
enum Outcome {
    /// Nothing is wrong.
    Good,
    /// A property does not hold.
    Bad,
}

pub(crate) fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Explore(explore) => explore.run(),
        Command::Replay(replay) => replay.run(),
        Command::Show(show) => show.run(),
        Command::Mutants(mutants) => mutants.run(),
        Command::Exhaust(exhaust) => exhaust.run(),
        Command::Ci(ci) => ci.run(),
        Command::Hashes(hashes) => hashes.run(),
    };
    match result {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Bad) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("job-sim: {error}");
            ExitCode::from(2)
        }
    }
}

/// An error in words.
type Failed = Box<dyn std::error::Error>;

/// `A..B`, or one seed.
fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| {
        let digits = text.replace('_', "");
        digits
            .parse::<u64>()
            .map_err(|_| format!("{text:?} is not a seed; write 7 or 0..1000"))
    };
    let Some((from, to)) = text.split_once("..") else {
        let seed = number(text)?;
        return Ok(seed..seed.saturating_add(1));
    };
    let (from, to) = (number(from)?, number(to)?);
    if from >= to {
        return Err(format!("there is no seed in {text:?}"));
    }
    Ok(from..to)
}

fn level(text: &str) -> Result<Level, String> {
    let number = text
        .parse::<u8>()
        .map_err(|_| format!("{text:?} is not a level; there are 1, 2 and 3"))?;
    Level::try_from(number)
}

/// As many threads as there are cores.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_number_or_a_range() {
        assert_eq!(seeds("7"), Ok(7..8));
        assert_eq!(seeds("0..1_000_000"), Ok(0..1_000_000));
        for bad in ["", "a", "1..", "5..5", "9..1", "-1"] {
            assert!(seeds(bad).is_err(), "{bad}");
        }
        assert!(level("4").is_err() && level("x").is_err());
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
