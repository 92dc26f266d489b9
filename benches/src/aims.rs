//! What is to be reached, and whether it is.

use std::fmt;

use crate::table::{Spread, is_floor, is_ours, number, ratio};
use crate::{Reading, Result};

/// The backlog that is drained as a whole.
const NO_BACKLOG: &str = crate::measures::FIRST_OF_AS_MANY;
const FLOOR_OF_DRAIN: &str = "floor, 4 connections";

/// One figure to reach.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    measure: &'static str,
    subject: &'static str,
    compared: Compared,
    bound: Bound,
}

/// To what the value of a measure is compared, within the same round.
#[derive(Clone, Copy, Debug)]
enum Compared {
    /// To nothing.
    Alone,
    /// As a multiple of what another subject reached.
    Times(&'static str),
    /// As a multiple of what the same subject reached in another measure.
    TimesMeasure(&'static str),
    /// As a multiple of the highest that any peer reached.
    TimesBestPeer,
    /// By how much it is above what another subject reached.
    Above(&'static str),
}

#[derive(Clone, Copy, Debug)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

use Bound::{AtLeast, AtMost};
use Compared::{Above, Alone, Times, TimesBestPeer, TimesMeasure};

const fn aim(measure: &'static str, compared: Compared, bound: Bound) -> Aim {
    Aim {
        measure,
        subject: crate::round::OURS,
        compared,
        bound,
    }
}

/// All figures to reach.
pub const AIMS: &[Aim] = &[
    aim("drain 20,000", Times(FLOOR_OF_DRAIN), AtLeast(0.7)),
    Aim {
        subject: crate::measures::TASK,
        ..aim("drain 20,000", Times(crate::round::OURS), AtLeast(0.98))
    },
    aim("drain 20,000", TimesBestPeer, AtLeast(1.2)),
    aim("drain 20,000", Times("job 0.19.2 default"), AtLeast(30.0)),
    Aim {
        subject: "job, 4 processes",
        ..aim("drain, 4 processes", Times("job, 1 process"), AtLeast(1.0))
    },
    Aim {
        subject: "job, 4 processes",
        ..aim("deadlocks of 4 processes", Alone, AtMost(0.0))
    },
    aim(
        "drain, first 20,000 of 200,000",
        TimesMeasure(NO_BACKLOG),
        AtLeast(0.9),
    ),
    aim(
        "drain, first 20,000 of 1,000,000",
        TimesMeasure(NO_BACKLOG),
        AtLeast(0.9),
    ),
    aim(
        "enqueue, 16 tasks",
        Times("job 0.19.2 default"),
        AtLeast(5.0),
    ),
    aim(
        "enqueue, 16 tasks",
        Times("floor, 16 pgbench clients"),
        AtLeast(1.5),
    ),
    aim(
        "enqueue, 1 task",
        Times("floor, one row a commit"),
        AtLeast(0.9),
    ),
    aim(
        "bulk enqueue",
        Times("floor, unnest of 1,000"),
        AtLeast(0.7),
    ),
    aim(
        "pickup latency, same process p50",
        Above("floor, the insert alone"),
        AtMost(0.3),
    ),
    aim(
        "pickup latency, across processes p50",
        Times("floor, insert and NOTIFY"),
        AtMost(1.5),
    ),
    aim(
        "pickup latency, across processes p99",
        Times("floor, insert and NOTIFY"),
        AtMost(2.0),
    ),
    aim("WAL a job", Alone, AtMost(900.0)),
    aim(
        "drain beside a long transaction",
        Times("job, without it"),
        AtLeast(0.5),
    ),
    aim("idle worker, statements", Alone, AtMost(0.2)),
    aim("idle worker, CPU", Alone, AtMost(0.1)),
    aim("memory", Alone, AtMost(100.0)),
    aim("real runners", Alone, AtMost(1.05)),
    aim("SQLite drain", Alone, AtLeast(10_000.0)),
    aim("SQLite drain", TimesBestPeer, AtLeast(1.0)),
    aim("engine alone", Alone, AtLeast(3e6)),
];

/// An aim, and how far it was reached.
#[derive(Clone, Debug)]
pub struct Reached {
    /// What was asked.
    pub measure: &'static str,
    /// What was aimed at, as a text.
    pub aim: String,
    /// What came of it, in each round.
    pub spread: Spread,
    /// Whether the median is within the bound.
    pub is_reached: bool,
}

impl Aim {
    /// `None` if no round measured all that it takes.
    pub fn judge(&self, readings: &[Reading]) -> Option<Reached> {
        let of = |measure: &str| -> Vec<Reading> {
            let of_measure = readings.iter().filter(|r| r.measure == measure);
            of_measure.cloned().collect()
        };
        let here = of(self.measure);
        let unit = &here.first()?.unit;
        let (spread, what) = match self.compared {
            Alone => {
                let ours = here.iter().filter(|r| r.subject == self.subject);
                (Spread::of(ours.map(|r| r.value).collect())?, unit.clone())
            }
            Times(other) => (ratio(&here, self.subject, other)?, format!("x {other}")),
            TimesMeasure(measure) => {
                let mut both = here.clone();
                for mut reading in of(measure) {
                    if reading.subject == self.subject {
                        reading.subject = measure.to_owned();
                        both.push(reading);
                    }
                }
                (ratio(&both, self.subject, measure)?, format!("x {measure}"))
            }
            TimesBestPeer => {
                let mut both = here.clone();
                both.extend(best_peers(&here));
                (
                    ratio(&both, self.subject, BEST_PEER)?,
                    format!("x {BEST_PEER}"),
                )
            }
            Above(other) => {
                let differences = here.iter().filter(|r| r.subject == self.subject);
                let differences = differences.filter_map(|ours| {
                    let same = |r: &&Reading| r.subject == other && r.round == ours.round;
                    Some(ours.value - here.iter().find(same)?.value)
                });
                let spread = Spread::of(differences.collect())?;
                (spread, format!("{unit} above {other}"))
            }
        };
        let (sign, bound, is_reached) = match self.bound {
            AtLeast(bound) => ("at least", bound, spread.median >= bound),
            AtMost(bound) => ("at most", bound, spread.median <= bound),
        };
        Some(Reached {
            measure: self.measure,
            aim: format!("{sign} {} {what}", number(bound)),
            spread,
            is_reached,
        })
    }
}

const BEST_PEER: &str = "the best peer";

/// The highest value of a peer in each round.
fn best_peers(readings: &[Reading]) -> Vec<Reading> {
    let mut best: Vec<Reading> = Vec::new();
    let is_peer = |r: &&Reading| !is_ours(&r.subject) && !is_floor(&r.subject);
    for reading in readings.iter().filter(is_peer) {
        match best.iter_mut().find(|r| r.round == reading.round) {
            Some(best) => best.value = best.value.max(reading.value),
            None => best.push(Reading {
                subject: BEST_PEER.to_owned(),
                ..reading.clone()
            }),
        }
    }
    best
}

/// The aims about which there are readings.
pub fn judged(readings: &[Reading]) -> Vec<Reached> {
    AIMS.iter().filter_map(|aim| aim.judge(readings)).collect()
}

/// For the terminal.
impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_reached { "reached" } else { "missed" };
        let Self {
            measure,
            aim,
            spread,
            ..
        } = self;
        write!(
            f,
            "  {verdict:<8} {:>10}  {aim:<50}  {measure}",
            number(spread.median)
        )
    }
}

/// Writes the aims for the terminal.
///
/// # Errors
///
/// When it cannot write.
pub fn write_judged(readings: &[Reading], out: &mut impl std::io::Write) -> Result<()> {
    let judged = judged(readings);
    if !judged.is_empty() {
        writeln!(out, "\naims")?;
    }
    for reached in judged {
        writeln!(out, "{reached}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(aim: Aim, readings: &[(&str, &str, u32, f64)], median: f64, is_reached: bool) {
        let readings: Vec<_> = readings
            .iter()
            .map(|(measure, subject, round, value)| Reading {
                measure: (*measure).into(),
                subject: (*subject).into(),
                unit: "jobs/s".into(),
                round: *round,
                value: *value,
            })
            .collect();
        let reached = aim.judge(&readings).unwrap();
        assert_eq!(
            (reached.spread.median, reached.is_reached),
            (median, is_reached)
        );
    }

    #[test]
    fn the_best_peer_is_that_of_the_round() {
        check(
            aim("m", TimesBestPeer, AtLeast(1.2)),
            &[
                ("m", "job", 1, 24.0),
                ("m", "floor", 1, 100.0),
                ("m", "job 0.19.2 best", 1, 10.0),
                ("m", "awa 0.6 default", 1, 20.0),
            ],
            1.2,
            true,
        );
    }

    #[test]
    fn a_measure_is_compared_with_another_in_the_same_round() {
        check(
            aim("m", TimesMeasure("base"), AtLeast(0.9)),
            &[
                ("m", "job", 1, 5.0),
                ("base", "job", 1, 10.0),
                ("base", "floor", 1, 1.0),
                ("base", "job", 2, 1.0),
            ],
            0.5,
            false,
        );
    }

    #[test]
    fn a_difference_is_taken_within_a_round() {
        let values = [("m", "job", 1, 1.5), ("m", "floor", 1, 1.25)];
        check(aim("m", Above("floor"), AtMost(0.3)), &values, 0.25, true);
    }
}
