//! Readings as a table: the median of the rounds, and the median of the ratios
//! within a round.

use std::fmt;

use crate::Reading;
use crate::round::OURS;

/// What is known of a subject in one unit of one measure.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The question.
    pub measure: String,
    /// Of what the figures are numbers.
    pub unit: String,
    /// Who answered.
    pub subject: String,
    /// Of all rounds.
    pub spread: Spread,
    /// By how much the first subject of the measure is above this one, in the rounds
    /// that have both; `None` for the first one.
    pub ratio: Option<Spread>,
}

/// A median and what it is a median of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The one in the middle, or the mean of the two that are.
    pub median: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// `None` if there are no values.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => (values[middle - 1] + values[middle]) / 2.0,
            _ => values[middle],
        };
        Some(Self { min, median, max })
    }
}

/// All rows, those of a measure together.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// In the order in which the measures were first read.
    pub rows: Vec<Row>,
}

impl Table {
    /// Of all rounds.
    pub fn of(readings: &[Reading]) -> Self {
        let mut rows = Vec::new();
        for (measure, unit) in distinct(readings, |r| (&r.measure, &r.unit)) {
            let of_both = |r: &&Reading| r.measure == *measure && r.unit == *unit;
            let readings: Vec<_> = readings.iter().filter(of_both).cloned().collect();
            let mut subjects = distinct(&readings, |r| &r.subject);
            // Ours first, then the floors, then the peers.
            subjects.sort_by_key(|subject| (!is_ours(subject), !is_floor(subject)));
            for (n, subject) in subjects.iter().enumerate() {
                let values = values(&readings, subject);
                let values = values.iter().map(|(_, value)| *value).collect();
                let Some(spread) = Spread::of(values) else {
                    continue;
                };
                rows.push(Row {
                    measure: measure.clone(),
                    unit: unit.clone(),
                    subject: (*subject).clone(),
                    spread,
                    ratio: (n > 0)
                        .then(|| ratio(&readings, subjects[0], subject))
                        .flatten(),
                });
            }
        }
        Self { rows }
    }
}

/// Whether this is how the harness calls `job`, and not an older release of it.
pub fn is_ours(subject: &str) -> bool {
    subject == OURS || subject.starts_with("job, ")
}

/// Whether this is hand-written SQL.
pub fn is_floor(subject: &str) -> bool {
    subject.starts_with("floor")
}

/// By how much one subject is above another, in each round that has both.
pub fn ratio(readings: &[Reading], subject: &str, to: &str) -> Option<Spread> {
    let others = values(readings, to);
    let ratios = values(readings, subject)
        .into_iter()
        .filter_map(|(round, value)| {
            let (_, other) = others
                .iter()
                .find(|(of, other)| *of == round && *other != 0.0)?;
            Some(value / other)
        });
    Spread::of(ratios.collect())
}

fn values(readings: &[Reading], subject: &str) -> Vec<(u32, f64)> {
    let of_subject = readings.iter().filter(|r| r.subject == subject);
    of_subject.map(|r| (r.round, r.value)).collect()
}

fn distinct<'a, T: PartialEq>(readings: &'a [Reading], key: impl Fn(&'a Reading) -> T) -> Vec<T> {
    let mut keys = Vec::new();
    for key in readings.iter().map(key) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// For the terminal.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut previous: Option<&Row> = None;
        for row in &self.rows {
            let same = previous.is_some_and(|p| p.measure == row.measure && p.unit == row.unit);
            if !same {
                writeln!(f, "\n{}, {}", row.measure, row.unit)?;
            }
            write!(f, "  {:<38}", row.subject)?;
            let Spread { min, median, max } = row.spread;
            write!(f, "{:>12}", number(median))?;
            if min < max {
                write!(f, "  {:<24}", format!("[{}..{}]", number(min), number(max)))?;
            } else {
                write!(f, "  {:<24}", "")?;
            }
            if let Some(ratio) = row.ratio {
                write!(f, "x {}", number(ratio.median))?;
            }
            writeln!(f)?;
            previous = Some(row);
        }
        Ok(())
    }
}

/// A number with as many digits as mean something.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => return "0".to_owned(),
        x if x < 0.1 => 4,
        x if x < 10.0 => 2,
        x if x < 100.0 => 1,
        _ => 0,
    };
    let plain = format!("{value:.digits$}");
    let (whole, fraction) = match plain.split_once('.') {
        Some((whole, fraction)) => (whole, format!(".{fraction}")),
        None => (plain.as_str(), String::new()),
    };
    let (sign, whole) = match whole.strip_prefix('-') {
        Some(whole) => ("-", whole),
        None => ("", whole),
    };
    let mut grouped = String::new();
    for (n, digit) in whole.chars().enumerate() {
        if n > 0 && (whole.len() - n) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(subject: &str, round: u32, value: f64) -> Reading {
        Reading {
            measure: "drain".into(),
            subject: subject.into(),
            unit: "jobs/s".into(),
            round,
            value,
        }
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        let table = Table::of(&[
            reading("floor, a", 1, 100.0),
            reading("job", 1, 50.0),
            reading("job", 2, 60.0),
            reading("floor, a", 2, 60.0),
            reading("job", 3, 80.0),
            reading("floor, a", 3, 100.0),
            // No floor in this round.
            reading("job", 4, 1.0),
        ]);
        let [ours, floor] = &table.rows[..] else {
            panic!("{table:?}");
        };
        assert_eq!(ours.subject, "job");
        assert_eq!(ours.ratio, None);
        assert_eq!(ours.spread.median, 55.0);
        let ratio = floor.ratio.unwrap();
        assert_eq!((ratio.min, ratio.median, ratio.max), (0.5, 0.8, 1.0));
    }

    #[test]
    fn an_older_release_is_a_peer() {
        assert!(is_ours("job") && is_ours("job, 4 processes"));
        assert!(!is_ours("job 0.19.2") && !is_ours("job 0.19.2, batched"));
    }

    #[test]
    fn numbers_are_grouped_and_rounded() {
        for (value, expected) in [
            (0.0, "0"),
            (0.00214, "0.0021"),
            (0.912, "0.91"),
            (12.34, "12.3"),
            (999.6, "1,000"),
            (1_234_567.8, "1,234,568"),
            (-1234.0, "-1,234"),
        ] {
            assert_eq!(number(value), expected);
        }
    }
}
