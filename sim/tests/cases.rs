//! Replays the cases that are kept: each is the smallest of a bug that the
//! simulator found.

use job_engine::planted;
use job_sim::Keep;

use crate::kept::{files, read};

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
