//! The cases that are kept.

use std::path::{Path, PathBuf};

use job_sim::case::{Case, Tolerance};

/// Their files, by name.
pub(crate) fn files() -> Vec<PathBuf> {
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
pub(crate) fn read(path: &Path) -> Case {
    let tolerance = Tolerance {
        any_version: true,
        edited: false,
    };
    Case::read(path, tolerance).unwrap_or_else(|error| panic!("{error}"))
}
