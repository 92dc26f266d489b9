//! What was measured, as lines of JSON.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Result;

/// One number that came of one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The question, such as `drain`.
    pub measure: String,
    /// Who answered: `job`, a floor or a peer, with what is special about it after
    /// a comma.
    pub subject: String,
    /// Of what the value is a number, such as `jobs/s`. A measure can have several.
    pub unit: String,
    /// In which round, from 1.
    pub round: u32,
    /// The number.
    pub value: f64,
}

impl Reading {
    /// All readings of a file, in their order. One that repeats an earlier one of
    /// the same round takes its place.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or a line is no reading.
    pub fn read_all(path: &Path) -> Result<Vec<Self>> {
        let file = File::open(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        let mut readings: Vec<Self> = Vec::new();
        for (n, line) in BufReader::new(file).lines().enumerate() {
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            let reading: Self = serde_json::from_str(&line)
                .map_err(|e| format!("{}:{}: {e}", path.display(), n + 1))?;
            match readings.iter_mut().find(|r| r.is_same(&reading)) {
                Some(earlier) => *earlier = reading,
                None => readings.push(reading),
            }
        }
        Ok(readings)
    }

    /// Adds readings to a file, which is created if it is missing.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn append(path: &Path, readings: &[Self]) -> Result<()> {
        let mut lines = String::new();
        for reading in readings {
            lines += &serde_json::to_string(reading)?;
            lines.push('\n');
        }
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(lines.as_bytes()))
            .map_err(|e| format!("cannot write {}: {e}", path.display()).into())
    }

    fn is_same(&self, other: &Self) -> bool {
        self.round == other.round
            && self.measure == other.measure
            && self.subject == other.subject
            && self.unit == other.unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(round: u32, value: f64) -> Reading {
        Reading {
            measure: "drain".into(),
            subject: "job".into(),
            unit: "jobs/s".into(),
            round,
            value,
        }
    }

    #[test]
    fn a_repeated_round_replaces_the_earlier_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("readings");
        Reading::append(&file, &[reading(1, 1.0), reading(2, 2.0)]).unwrap();
        Reading::append(&file, &[reading(1, 3.0)]).unwrap();
        let read = Reading::read_all(&file).unwrap();
        assert_eq!(read, [reading(1, 3.0), reading(2, 2.0)]);
    }

    #[test]
    fn a_line_that_is_no_reading_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("readings");
        std::fs::write(&file, "\n{}\n").unwrap();
        let error = Reading::read_all(&file).unwrap_err().to_string();
        assert!(error.contains("readings:2: missing field"), "{error}");
    }
}
