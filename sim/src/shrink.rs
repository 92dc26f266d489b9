//! Makes a failing scenario small.

use crate::recorder::{Keep, Report};
use crate::scenario::{EndSpec, Fault, JobSpec, RunSpec, Scenario};

/// So many events of all simulations to shrink one failure: some ten seconds.
const EVENTS_MAX: u64 = 10_000_000;

/// What shrinking gave.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smallest scenario that was found; it fails the same check.
    pub scenario: Scenario,
    /// What came of it.
    pub report: Report,
    /// How many simulations it took.
    pub runs: u32,
}

/// Reduces `scenario`, which fails, to one that fails the same check with
/// fewer elements, workers, and less time.
///
/// `run` simulates a scenario. At most `runs_max` simulations are made. Faults
/// that are a matter of chance are first replaced by what befell single
/// messages, so that one lost reply can be told from a window in which many
/// were; then delta debugging (Zeller and Hildebrandt 2002) takes elements out.
pub fn shrink(
    scenario: &Scenario,
    runs_max: u32,
    run: &dyn Fn(&Scenario, Keep) -> Report,
) -> Option<Shrunk> {
    let report = run(scenario, Keep::default());
    let check = report.violation.as_ref()?.check.clone();
    let mut search = Search {
        run,
        check,
        best: scenario.clone(),
        report,
        runs: 1,
        runs_max,
        events: 0,
    };
    search.all();
    Some(Shrunk {
        scenario: search.best,
        report: search.report,
        runs: search.runs,
    })
}

struct Search<'a> {
    run: &'a dyn Fn(&Scenario, Keep) -> Report,
    check: String,
    best: Scenario,
    report: Report,
    runs: u32,
    runs_max: u32,
    /// In all simulations so far.
    events: u64,
}

impl Search<'_> {
    fn all(&mut self) {
        self.shorten();
        self.faults();
        self.jobs();
        self.inputs();
        self.messages();
        loop {
            let before = self.best.clone();
            self.faults();
            self.jobs();
            self.inputs();
            self.workers();
            self.simplify_runs();
            self.simplify_knobs();
            self.shorten();
            if self.best == before || self.is_over() {
                break;
            }
        }
    }

    /// Whether it has taken long enough.
    fn is_over(&self) -> bool {
        self.runs >= self.runs_max || self.events >= EVENTS_MAX
    }

    /// Takes `candidate` if it fails the same check.
    fn try_it(&mut self, candidate: Scenario) -> bool {
        if self.is_over() || candidate == self.best || candidate.validate().is_err() {
            return false;
        }
        self.runs += 1;
        let report = (self.run)(&candidate, Keep::default());
        self.events += report.events;
        let same = report
            .violation
            .as_ref()
            .is_some_and(|v| v.check == self.check);
        if same {
            self.best = candidate;
            self.report = report;
        }
        same
    }

    fn change(&mut self, change: impl FnOnce(&mut Scenario)) -> bool {
        let mut candidate = self.best.clone();
        change(&mut candidate);
        self.try_it(candidate)
    }

    /// What comes after the violation plays no part in it.
    fn shorten(&mut self) {
        let at_ms = self.report.simulated_us / 1_000 + 1;
        if at_ms >= self.best.horizon_ms {
            return;
        }
        self.change(|scenario| {
            scenario.horizon_ms = at_ms;
            scenario.jobs.retain(|job| job.spawn_ms <= at_ms);
            drop_orphans(scenario);
            let begun = |fault: &Fault| fault.span_ms().is_none_or(|(from, _)| from <= at_ms);
            scenario.faults.retain(begun);
        });
    }

    /// Names the messages that matter, unless a window says it in fewer words.
    fn messages(&mut self) {
        let window = (self.best.clone(), self.report.clone());
        self.name_what_befell();
        self.faults();
        if self.best.is_of_application() && self.best.faults.len() > window.0.faults.len() {
            (self.best, self.report) = window;
        }
    }

    /// Replaces windows of bad luck by what befell single messages in them.
    fn name_what_befell(&mut self) {
        let by_chance = |fault: &Fault| {
            matches!(
                fault,
                Fault::Net { .. }
                    | Fault::Partition { .. }
                    | Fault::Store { .. }
                    | Fault::StoreRestart { .. }
            )
        };
        if !self.best.faults.iter().any(by_chance) || self.is_over() {
            return;
        }
        let keep = Keep {
            befell: true,
            ..Keep::default()
        };
        self.runs += 1;
        let befell = (self.run)(&self.best, keep).befell;
        self.change(|scenario| {
            scenario.faults.retain(|fault| !by_chance(fault));
            scenario.faults.extend(befell);
        });
    }

    fn faults(&mut self) {
        self.reduce(
            |scenario| scenario.faults.len(),
            |scenario, from, to| {
                scenario.faults.drain(from..to);
            },
        );
    }

    fn jobs(&mut self) {
        self.reduce(
            |scenario| scenario.jobs.len(),
            |scenario, from, to| {
                scenario.jobs.drain(from..to);
                drop_orphans(scenario);
            },
        );
    }

    /// Leaves inputs out, in ever smaller parts.
    fn inputs(&mut self) {
        let kept = |best: &Scenario, count| {
            let kept = (0..count).filter(|input| !best.left_out.contains(input));
            kept.collect::<Vec<u32>>()
        };
        let count = self.report.inputs;
        let mut part = kept(&self.best, count).len();
        while part > 0 {
            let mut from = 0;
            loop {
                let inputs = kept(&self.best, count);
                let Some(rest) = inputs.get(from..).filter(|rest| !rest.is_empty()) else {
                    break;
                };
                let part = &rest[..part.min(rest.len())];
                if !self.change(|scenario| scenario.left_out.extend(part)) {
                    from += part.len();
                }
                if self.is_over() {
                    return;
                }
            }
            part /= 2;
        }
    }

    /// Takes out ever smaller parts of a list.
    fn reduce(
        &mut self,
        len: impl Fn(&Scenario) -> usize,
        take_out: impl Fn(&mut Scenario, usize, usize),
    ) {
        let mut part = len(&self.best);
        while part > 0 {
            let mut from = 0;
            while from < len(&self.best) {
                let to = (from + part).min(len(&self.best));
                if !self.change(|scenario| take_out(scenario, from, to)) {
                    from = to;
                }
                if self.is_over() {
                    return;
                }
            }
            part /= 2;
        }
    }

    fn workers(&mut self) {
        let keys: Vec<u32> = self.best.workers.iter().map(|worker| worker.key).collect();
        for key in keys {
            if self.best.workers.len() == 1 {
                return;
            }
            self.change(|scenario| {
                scenario.workers.retain(|worker| worker.key != key);
                scenario.faults.retain(|fault| fault.worker() != Some(key));
                let own = |job: &&mut JobSpec| job.by == Some(key);
                scenario
                    .jobs
                    .iter_mut()
                    .filter(own)
                    .for_each(|job| job.by = None);
            });
        }
    }

    /// Runs do no more than they must.
    fn simplify_runs(&mut self) {
        for place in 0..self.best.jobs.len() {
            loop {
                let shorter = |scenario: &mut Scenario| {
                    scenario.jobs[place].runs.pop();
                };
                if self.best.jobs[place].runs.is_empty() || !self.change(shorter) {
                    break;
                }
            }
            for run in 0..self.best.jobs[place].runs.len() {
                self.change(|scenario| {
                    scenario.jobs[place].runs[run].checkpoint_ms = None;
                });
                self.change(|scenario| {
                    let RunSpec { end, .. } = &mut scenario.jobs[place].runs[run];
                    *end = EndSpec::Complete;
                });
            }
            self.change(|scenario| {
                let job = &mut scenario.jobs[place];
                (job.by, job.again_ms) = (None, None);
            });
        }
    }

    fn simplify_knobs(&mut self) {
        self.change(|scenario| scenario.latency_us = (500, 1_000));
        for place in 0..self.best.workers.len() {
            self.change(|scenario| {
                let worker = &mut scenario.workers[place];
                (worker.clock_ahead_ms, worker.clock_drift_ppm) = (0, 0);
            });
            self.change(|scenario| {
                let knobs = &mut scenario.workers[place].knobs;
                (knobs.jobs_max, knobs.jobs_min) = (1, 1);
            });
        }
    }
}

/// A job whose parent is gone is never spawned.
fn drop_orphans(scenario: &mut Scenario) {
    let keys: Vec<u32> = scenario.jobs.iter().map(|job| job.key).collect();
    scenario
        .jobs
        .retain(|job| job.parent.is_none_or(|key| keys.contains(&key)));
}
