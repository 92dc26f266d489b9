//! Readings, printed and appended to a file that the main harness merges.

use anyhow::{Context, Result};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

/// Where the readings of one subject in one round go.
pub struct Report {
    subject: String,
    round: u32,
    json: Option<PathBuf>,
}

impl Report {
    pub fn new(subject: String, round: u32, json: Option<PathBuf>) -> Self {
        Self {
            subject,
            round,
            json,
        }
    }

    pub fn reading(&mut self, measure: &str, unit: &str, value: f64) -> Result<()> {
        println!("{:<42} {:<28} {value:>12.2} {unit}", measure, self.subject);
        let Some(path) = &self.json else {
            return Ok(());
        };
        let line = serde_json::json!({
            "measure": measure,
            "subject": self.subject,
            "unit": unit,
            "round": self.round,
            "value": value,
        });
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| writeln!(file, "{line}"))
            .with_context(|| format!("append a reading to {}", path.display()))
    }
}
