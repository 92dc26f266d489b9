//! `job-sim replay` and `job-sim show`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use job_engine::planted;
use job_sim::case::{Case, Tolerance};
use job_sim::explore::{DETERMINISM, difference};
use job_sim::level::Level;
use job_sim::timeline::{self, TerminalOptions};
use job_sim::{Keep, Report, Scenario};

use super::{Failed, Outcome, level};

#[derive(Debug, Args)]
pub(super) struct Replay {
    /// The file of the case
    case: PathBuf,
    #[command(flatten)]
    view: View,
    /// Also if another version of the engine wrote it
    #[arg(long)]
    any_version: bool,
    /// Also if someone edited it
    #[arg(long)]
    edited: bool,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The seed
    seed: u64,
    /// The level: 1, 2 or 3
    #[arg(long, default_value = "1", value_parser = level)]
    level: Level,
    #[command(flatten)]
    view: View,
    /// Print the scenario as JSON instead
    #[arg(long)]
    scenario: bool,
}

#[derive(Debug, Args)]
struct View {
    /// Which events to print
    #[arg(long, value_enum, default_value_t = Events::Loud)]
    events: Events,
    /// Also write a page for a browser
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// How wide the lines may be
    #[arg(long, default_value_t = 120)]
    width: usize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Events {
    /// Every event
    All,
    /// All but those that say that all is well
    Loud,
    /// Those that led to the violation, and their neighbours
    Chain,
}

impl Replay {
    pub(super) fn run(&self) -> Result<Outcome, Failed> {
        let tolerance = Tolerance {
            any_version: self.any_version,
            edited: self.edited,
        };
        let case = Case::read(&self.case, tolerance)?;
        let run = || case.level.run(&case.scenario, Keep::TRACE);
        let report = match case.bug {
            Some(bug) => planted::with(bug, run),
            None => run(),
        };
        if case.violation.check == DETERMINISM {
            let run = |scenario: &Scenario, keep: Keep| case.level.run(scenario, keep);
            println!("{}", difference(&case.scenario, &run));
            return Ok(Outcome::Bad);
        }
        let title = self.case.display().to_string();
        self.view.show(&case.scenario, &report, &title)?;
        if let Some(bug) = case.bug {
            println!("with the planted bug {bug}: {}", bug.what());
        }
        Ok(match &report.violation {
            Some(violation) if *violation == case.violation && report.hash == case.hash => {
                println!("reproduced, to the last event");
                Outcome::Bad
            }
            Some(violation) if violation.check == case.violation.check => {
                println!("reproduced, by other events than those that were recorded");
                Outcome::Bad
            }
            Some(_) => {
                println!("it fails otherwise than was recorded: {}", case.violation);
                Outcome::Bad
            }
            None => {
                println!("it holds now; what was recorded: {}", case.violation);
                Outcome::Good
            }
        })
    }
}

impl Show {
    pub(super) fn run(&self) -> Result<Outcome, Failed> {
        let scenario = self.level.scenario(self.seed);
        if self.scenario {
            println!("{}", serde_json::to_string_pretty(&scenario)?);
            return Ok(Outcome::Good);
        }
        let report = self.level.run(&scenario, Keep::TRACE);
        let title = format!("seed {} at level {}", self.seed, self.level.number());
        self.view.show(&scenario, &report, &title)?;
        println!("trace hash {}", report.hash);
        Ok(match report.violation {
            Some(_) => Outcome::Bad,
            None => Outcome::Good,
        })
    }
}

impl View {
    fn show(&self, scenario: &Scenario, report: &Report, title: &str) -> Result<(), Failed> {
        let options = TerminalOptions {
            width: self.width.max(40),
            colour: std::io::stdout().is_terminal(),
            show: match self.events {
                Events::All => timeline::Show::All,
                Events::Loud => timeline::Show::Loud,
                Events::Chain => timeline::Show::Chain { context: 3 },
            },
        };
        println!("{}", timeline::terminal(scenario, report, options));
        if let Some(path) = &self.html {
            write(path, &timeline::html(scenario, report, title))?;
            println!("wrote {}", path.display());
        }
        Ok(())
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failed> {
    std::fs::write(path, text)
        .map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}
