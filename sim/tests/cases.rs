//! Replays the cases that are kept: each is the smallest of a bug that the
//! simulator found.

use std::path::{Path, PathBuf};

use job_engine::planted;
use job_sim::Keep;
use job_sim::case::{Case, Tolerance};

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let entries = std::fs::read_dir(folder).expect("the folder of the cases is there");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    let mut files: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|ext| ext == "json"))
        .collect();
    files.sort();
    files
}

/// Cases outlive the version of the engine that they were found with.
fn read(path: &Path) -> Case {
    let tolerance = Tolerance {
        any_version: true,
        edited: false,
    };
    Case::read(path, tolerance).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_case_holds_now() {
    let files = files();
    assert!(!files.is_empty());
    for path in files {
        let case = read(&path);
        let report = case.level.run(&case.scenario, Keep::default());
        let replay = format!("cargo job-sim replay {}", path.display());
        assert_eq!(report.violation, None, "{replay}");
    }
}

#[test]
fn every_case_with_a_planted_bug_is_still_found_by_its_check() {
    for path in files() {
        let case = read(&path);
        let Some(bug) = case.bug else { continue };
        let run = || case.level.run(&case.scenario, Keep::default());
        let report = planted::with(bug, run);
        let check = report.violation.map(|violation| violation.check);
        let replay = format!("cargo job-sim replay {}", path.display());
        assert_eq!(check, Some(case.violation.check), "{bug}: {replay}");
    }
}
