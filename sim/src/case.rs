//! A failing scenario in a file, to be replayed.

use std::fs;
use std::path::{Path, PathBuf};

use job_engine::planted::Bug;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::check::Violation;
use crate::hash::TraceHash;
use crate::level::Level;
use crate::recorder::Report;
use crate::scenario::{InvalidScenario, Scenario};
use job_engine::draw::mix;

/// The version of the format of the file.
const FORMAT: u32 = 1;
/// The version of the engine.
const ENGINE: &str = env!("CARGO_PKG_VERSION");

/// A scenario, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    format: u32,
    /// The version of the engine that it was found with.
    engine: String,
    /// At which level it fails.
    pub level: Level,
    /// The planted bug that makes it fail, if one does.
    pub bug: Option<Bug>,
    /// The property that does not hold.
    pub violation: Violation,
    /// The hash over all events.
    pub hash: TraceHash,
    /// A hash over all of this file but itself: tells whether someone edited it.
    checksum: TraceHash,
    /// What is simulated.
    pub scenario: Scenario,
}

/// Why a case cannot be read. Each says what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CaseError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file ends in the middle.
    #[error("{path} ends in the middle, at line {line}: it is cut off; get the whole file")]
    Truncated {
        /// Which.
        path: PathBuf,
        /// The last line.
        line: usize,
    },
    /// The file is no JSON, or lacks something.
    #[error("{path} is no case: {source}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Where, and what.
        source: serde_json::Error,
    },
    /// The file has another format.
    #[error(
        "{path} has the format {found}, and this job-sim reads the format {FORMAT}: \
         use the job-sim that wrote it"
    )]
    Format {
        /// Which.
        path: PathBuf,
        /// The format that it has.
        found: String,
    },
    /// Another version of the engine wrote it.
    #[error(
        "{path} was written by engine {found}, and this is engine {ENGINE}, which may behave \
         otherwise: use that version, or replay it with --any-version"
    )]
    Engine {
        /// Which.
        path: PathBuf,
        /// The version that it has.
        found: String,
    },
    /// Someone edited it.
    #[error(
        "{path} was edited by hand: its checksum is {found} and should be {expected}; \
         if that is meant, replay it with --edited"
    )]
    Edited {
        /// Which.
        path: PathBuf,
        /// What it says.
        found: TraceHash,
        /// What is right.
        expected: TraceHash,
    },
    /// Its scenario makes no sense.
    #[error("{path}: {source}")]
    Invalid {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: InvalidScenario,
    },
}

/// What is overlooked in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tolerance {
    /// That another version of the engine wrote it.
    pub any_version: bool,
    /// That someone edited it.
    pub edited: bool,
}

impl Case {
    /// The case of a scenario that failed; `None` if it did not.
    pub fn new(
        level: Level,
        bug: Option<Bug>,
        scenario: &Scenario,
        report: &Report,
    ) -> Option<Self> {
        let mut case = Self {
            format: FORMAT,
            engine: ENGINE.to_owned(),
            level,
            bug,
            violation: report.violation.clone()?,
            hash: report.hash,
            checksum: TraceHash::default(),
            scenario: scenario.clone(),
        };
        case.checksum = case.checksum();
        Some(case)
    }

    /// The text of its file.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).expect("a case is plain data");
        json.push('\n');
        json
    }

    /// Writes it to a file.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, self.to_json())
    }

    /// Reads it from a file.
    ///
    /// # Errors
    ///
    /// A [`CaseError`] that says what is wrong with the file, and what to do.
    pub fn read(path: &Path, tolerance: Tolerance) -> Result<Self, CaseError> {
        let unreadable = |source| CaseError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let text = fs::read_to_string(path).map_err(unreadable)?;
        Self::parse(&text, path, tolerance)
    }

    /// Reads it from a text; `path` is for the errors.
    ///
    /// # Errors
    ///
    /// As [`Case::read`].
    pub fn parse(text: &str, path: &Path, tolerance: Tolerance) -> Result<Self, CaseError> {
        let path = path.to_owned();
        let malformed = |source: serde_json::Error| {
            if source.is_eof() {
                let line = source.line();
                let path = path.clone();
                CaseError::Truncated { path, line }
            } else {
                let path = path.clone();
                CaseError::Malformed { path, source }
            }
        };
        // The versions first: what follows may be different in another one.
        let header: Header = serde_json::from_str(text).map_err(malformed)?;
        if header.format != FORMAT {
            let found = header.format.to_string();
            return Err(CaseError::Format { path, found });
        }
        if header.engine != ENGINE && !tolerance.any_version {
            let found = header.engine;
            return Err(CaseError::Engine { path, found });
        }
        let case: Self = serde_json::from_str(text).map_err(malformed)?;
        let expected = case.checksum();
        if case.checksum != expected && !tolerance.edited {
            let found = case.checksum;
            return Err(CaseError::Edited {
                path,
                found,
                expected,
            });
        }
        let invalid = |source| CaseError::Invalid { path, source };
        case.scenario.validate().map_err(invalid)?;
        Ok(case)
    }

    fn checksum(&self) -> TraceHash {
        let plain = Self {
            checksum: TraceHash::default(),
            ..self.clone()
        };
        let text = serde_json::to_string(&plain).expect("a case is plain data");
        let hash = text
            .bytes()
            .fold(0, |hash, byte| mix(hash ^ u64::from(byte)));
        TraceHash::of(hash)
    }
}

#[derive(Deserialize)]
struct Header {
    format: u32,
    engine: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::Report;

    fn case() -> Case {
        let report = Report {
            violation: Some(Violation::new("some.check", "it does not hold")),
            ..Report::default()
        };
        let scenario = Level::Explorer.scenario(1);
        Case::new(Level::Explorer, None, &scenario, &report).expect("it failed")
    }

    fn parse(text: &str) -> Result<Case, String> {
        let path = Path::new("a.json");
        Case::parse(text, path, Tolerance::default()).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let error = parse(text).unwrap_err();
        assert!(
            error.contains(expected),
            "{error:?} does not say {expected:?}"
        );
    }

    #[test]
    fn a_case_goes_to_its_file_and_back() {
        let case = case();
        assert_eq!(parse(&case.to_json()).unwrap(), case);
    }

    #[test]
    fn a_case_of_another_version_is_refused() {
        let json = case().to_json();
        refused(
            &json.replace("\"format\": 1", "\"format\": 2"),
            "has the format 2",
        );
        let other = json.replace(
            &format!("\"engine\": \"{ENGINE}\""),
            "\"engine\": \"9.9.9\"",
        );
        refused(&other, "was written by engine 9.9.9");
    }

    #[test]
    fn a_truncated_case_is_refused() {
        let json = case().to_json();
        for part in [0, 1, 10, json.len() / 2, json.len() - 3] {
            refused(&json[..part], "cut off");
        }
    }

    #[test]
    fn an_edited_case_is_refused_unless_that_is_meant() {
        let edited = case().to_json().replace("some.check", "other.check");
        refused(&edited, "was edited by hand");
        let tolerance = Tolerance {
            edited: true,
            ..Tolerance::default()
        };
        Case::parse(&edited, Path::new("a.json"), tolerance).unwrap();
        let nonsense = case()
            .to_json()
            .replace("\"horizon_ms\": ", "\"horizon_ms\": 99999999");
        let error = Case::parse(&nonsense, Path::new("a.json"), tolerance).unwrap_err();
        assert!(error.to_string().contains("at most ten years"), "{error}");
        let misspelt = case().to_json().replace("\"horizon_ms\"", "\"horizon\"");
        refused(&misspelt, "unknown field `horizon`");
        refused(
            &case().to_json().replace("\"level\": 1", "\"level\": 7"),
            "no level 7",
        );
        refused("[1, 2]", "is no case");
    }
}
