//! What there was to judge: a chaos that did not happen proves nothing.

use std::collections::BTreeMap;
use std::fmt;

use job_engine::lifecycle::RunEnd;

use super::case::Case;
use crate::processes::books::{Line, Meant};

/// How often what happened.
#[derive(Clone, Debug, Default)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    pub fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    pub(super) fn count(&mut self, case: &Case<'_>) {
        for process in case.processes.values() {
            self.add("processes");
            if process.killed {
                self.add("killed");
            }
            if process.asked_at.is_some() {
                self.add("asked to shut down");
            }
            for _ in &process.stops {
                self.add("stops");
            }
        }
        for (_, line) in &case.evidence.diary {
            match line {
                Line::BeginCut => self.add("begins cut"),
                Line::NotRenewed { .. } => self.add("heartbeats failed"),
                _ => {}
            }
        }
        for job in case.jobs.values() {
            self.add("jobs");
            for run in &job.runs {
                self.add("runs");
                self.add(match run.end.end {
                    RunEnd::Completed => "completed",
                    RunEnd::Rescheduled => "rescheduled",
                    RunEnd::Snoozed => "snoozed",
                    RunEnd::Retried => "retried",
                    RunEnd::Errored => "errored",
                    RunEnd::Released => "released",
                    RunEnd::Lost => "lost",
                    RunEnd::Abandoned => "abandoned",
                    RunEnd::Interrupted => "interrupted",
                    RunEnd::Undecodable => "undecodable",
                });
                if case.was_left(run.end) {
                    self.add("taken back at a start");
                }
                let Some(seen) = &run.seen else {
                    self.add("claims without a run");
                    continue;
                };
                let ended_by_itself = seen.ending.is_some() || seen.dropped_at.is_some();
                let process = case.processes.get(&seen.worker);
                if process.is_some_and(|process| process.killed) && !ended_by_itself {
                    self.add("runs killed at work");
                }
                let lost = matches!(run.end.end, RunEnd::Lost | RunEnd::Abandoned);
                if lost
                    && let Some((at, Meant::Complete)) = seen.ending
                    && at > run.end.ended_at
                {
                    self.add("stale completions");
                }
            }
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.0.iter().map(|(what, n)| format!("{what} {n}"));
        f.write_str(&counts.collect::<Vec<_>>().join(", "))
    }
}
