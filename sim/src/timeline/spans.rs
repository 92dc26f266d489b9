//! What lasts: processes, runs and leases, from the events that begin and end
//! them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::process::{Process, State};
use crate::event::Who;
use crate::trace::{Fate, Hold, Trace};

/// Everything that lasts, each by its beginning. Times are microseconds of true
/// time.
#[derive(Debug, Default)]
pub(super) struct Spans {
    pub(super) processes: Vec<ProcessSpan>,
    pub(super) runs: Vec<RunSpan>,
    pub(super) leases: Vec<LeaseSpan>,
}

/// A process in one state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ProcessSpan {
    pub(super) worker: u32,
    pub(super) state: State,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// A runner at work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct RunSpan {
    pub(super) worker: u32,
    pub(super) incarnation: u32,
    pub(super) job: u32,
    pub(super) fence: i64,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) end: &'static str,
    /// When it works without a lease.
    pub(super) lost: Vec<(u64, u64)>,
    /// The event that began it, by place.
    pub(super) place: usize,
}

/// A lease, from a grant or a renewal on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct LeaseSpan {
    /// Who was granted it.
    pub(super) worker: u32,
    pub(super) job: u32,
    pub(super) fence: i64,
    pub(super) from: u64,
    pub(super) to: u64,
    /// When it was renewed.
    pub(super) renewed: Vec<u64>,
    pub(super) end: &'static str,
}

impl Spans {
    pub(super) fn of(trace: &Trace, end_us: u64) -> Self {
        let mut spans = Self::default();
        spans.find_processes(trace, end_us);
        spans.find_leases(trace, end_us);
        spans.find_runs(trace, end_us);
        spans
    }

    fn find_processes(&mut self, trace: &Trace, end_us: u64) {
        let mut workers: BTreeMap<u32, (Process, u64)> = BTreeMap::new();
        let mut ended = |worker, state, from, to| {
            if state != State::Down {
                self.processes.push(ProcessSpan {
                    worker,
                    state,
                    from,
                    to,
                });
            }
        };
        for entry in &trace.entries {
            let Some(who) = entry.who else { continue };
            let (process, since) = workers.entry(who.worker).or_default();
            let before = process.state;
            process.take_in(entry);
            if process.state != before {
                ended(who.worker, before, *since, entry.at_us);
                *since = entry.at_us;
            }
        }
        for (worker, (process, since)) in workers {
            ended(worker, process.state, since, end_us);
        }
        self.processes.sort_by_key(|span| (span.from, span.worker));
    }

    fn find_runs(&mut self, trace: &Trace, end_us: u64) {
        let mut open: BTreeMap<(Who, (u32, i64)), usize> = BTreeMap::new();
        for (place, entry) in trace.entries.iter().enumerate() {
            let Some(who) = entry.who else { continue };
            use crate::trace::Kind::{Crashed, Ended, Started};
            match (entry.kind, entry.run) {
                (Started, Some(run)) => {
                    open.insert((who, run), self.runs.len());
                    self.runs.push(RunSpan {
                        worker: who.worker,
                        incarnation: who.incarnation,
                        job: run.0,
                        fence: run.1,
                        from: entry.at_us,
                        to: end_us,
                        end: "running",
                        lost: Vec::new(),
                        place,
                    });
                }
                (Ended, Some(run)) => {
                    if let Some(span) = open.remove(&(who, run)) {
                        self.runs[span].to = entry.at_us;
                        self.runs[span].end = entry.fate.map_or("running", fate_name);
                    }
                }
                (Crashed, _) => open.retain(|(of, _), span| {
                    if *of == who {
                        self.runs[*span].to = entry.at_us;
                        self.runs[*span].end = "crashed";
                    }
                    *of != who
                }),
                _ => {}
            }
        }
        let mut leases: BTreeMap<(u32, i64), Vec<&LeaseSpan>> = BTreeMap::new();
        for lease in &self.leases {
            leases
                .entry((lease.job, lease.fence))
                .or_default()
                .push(lease);
        }
        for run in &mut self.runs {
            if let Some(leases) = leases.get(&(run.job, run.fence)) {
                run.lost = lost(run.from, run.to, leases);
            }
        }
    }

    fn find_leases(&mut self, trace: &Trace, end_us: u64) {
        // Of each run the last lease, and when it ends by the store's clock.
        let mut last: BTreeMap<(u32, i64), (usize, i64)> = BTreeMap::new();
        let mut ahead_us = 0;
        for entry in &trace.entries {
            let now = entry.at_us;
            let true_us =
                |until: i64| u64::try_from(until.saturating_sub(entry.store_ahead_us)).unwrap_or(0);
            if entry.store_ahead_us != ahead_us {
                ahead_us = entry.store_ahead_us;
                for (place, until) in last.values_mut() {
                    self.move_end(place, true_us(*until), now);
                }
            }
            for (job, fence, hold) in &entry.leases {
                let run = (*job, *fence);
                let until = match hold {
                    Hold::Until(until) => *until,
                    Hold::Finished | Hold::Reclaimed => {
                        if let Some((place, _)) = last.remove(&run) {
                            let span = &mut self.leases[place];
                            span.to = span.to.min(now);
                            span.end = match hold {
                                Hold::Reclaimed => "reclaimed",
                                _ => "finished",
                            };
                        }
                        continue;
                    }
                };
                let held = last.get(&run).copied();
                match held.filter(|(place, _)| self.leases[*place].to >= now) {
                    Some((place, _)) => {
                        self.leases[place].to = true_us(until);
                        self.leases[place].renewed.push(now);
                        last.insert(run, (place, until));
                    }
                    None => {
                        let sender = entry.cause.and_then(|sent| trace.entries[sent].who);
                        last.insert(run, (self.leases.len(), until));
                        self.leases.push(LeaseSpan {
                            worker: sender.map_or(u32::MAX, |who| who.worker),
                            job: *job,
                            fence: *fence,
                            from: now,
                            to: true_us(until),
                            renewed: Vec::new(),
                            end: "expired",
                        });
                    }
                }
            }
        }
        for span in &mut self.leases {
            if span.to > end_us {
                (span.to, span.end) = (end_us.max(span.from), "held");
            }
        }
    }

    /// The store's clock was set: a lease lasts shorter or longer, or again.
    fn move_end(&mut self, place: &mut usize, to: u64, now: u64) {
        let span = &mut self.leases[*place];
        if span.to > now {
            span.to = to.max(now);
        } else if to > now {
            let again = LeaseSpan {
                from: now,
                to,
                renewed: Vec::new(),
                ..span.clone()
            };
            *place = self.leases.len();
            self.leases.push(again);
        }
    }
}

/// When none of the leases of a run holds, though it is not finished.
fn lost(from: u64, to: u64, leases: &[&LeaseSpan]) -> Vec<(u64, u64)> {
    let mut lost = Vec::new();
    let mut since = None;
    for lease in leases {
        if let Some(since) = since
            && lease.from > since
        {
            lost.push((since, lease.from));
        }
        since = match lease.end {
            "expired" | "reclaimed" => Some(lease.to),
            _ => None,
        };
    }
    lost.extend(since.map(|since| (since, u64::MAX)));
    lost.iter()
        .map(|(start, end)| ((*start).max(from), (*end).min(to)))
        .filter(|(start, end)| start < end)
        .collect()
}

pub(super) fn fate_name(fate: Fate) -> &'static str {
    match fate {
        Fate::Completed => "completed",
        Fate::Rescheduled => "rescheduled",
        Fate::Failed => "failed",
        Fate::LeaseLost => "lease lost",
        Fate::Aborted => "aborted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Entry, Kind};

    fn entry(at_us: u64, store_ahead_us: i64, leases: Vec<(u32, i64, Hold)>) -> Entry {
        Entry {
            at_us,
            who: None,
            kind: Kind::Applied,
            text: String::new(),
            jobs: Vec::new(),
            run: None,
            cause: None,
            before: None,
            store_ahead_us,
            leases,
            fate: None,
            quiet: false,
        }
    }

    fn leases(entries: Vec<Entry>) -> Vec<(u64, u64, &'static str)> {
        let mut trace = Trace::default();
        trace.entries = entries;
        let leases = Spans::of(&trace, 1_000).leases.into_iter();
        leases
            .map(|lease| (lease.from, lease.to, lease.end))
            .collect()
    }

    #[test]
    fn a_lease_lasts_from_claim_to_finish_while_it_is_renewed() {
        let got = leases(vec![
            entry(10, 0, vec![(1, 1, Hold::Until(110))]),
            entry(60, 0, vec![(1, 1, Hold::Until(160))]),
            entry(150, 0, vec![(1, 1, Hold::Finished)]),
        ]);
        assert_eq!(got, [(10, 150, "finished")]);
    }

    #[test]
    fn a_late_renewal_leaves_a_gap() {
        let got = leases(vec![
            entry(10, 0, vec![(1, 1, Hold::Until(110))]),
            entry(200, 0, vec![(1, 1, Hold::Until(300))]),
            entry(400, 0, vec![(1, 1, Hold::Reclaimed)]),
        ]);
        assert_eq!(got, [(10, 110, "expired"), (200, 300, "reclaimed")]);
    }

    #[test]
    fn leases_end_when_the_clock_of_the_store_says_so() {
        let got = leases(vec![
            entry(10, 0, vec![(1, 1, Hold::Until(110))]),
            entry(50, 40, vec![]),
            entry(200, -200, vec![]),
        ]);
        assert_eq!(got, [(10, 70, "expired"), (200, 310, "expired")]);
    }
}
