//! The fuzz targets of `job`: what must hold for any bytes at all.
//!
//! A target is a function of bytes that panics when a property does not hold. The
//! binaries in `fuzz_targets/` put libFuzzer around them, the tests run what is
//! stored in `corpus/`. `README.md` beside this crate's sources says how to use
//! them.

pub mod config;
pub mod history;
pub mod retry;
pub mod rpc;
mod source;
mod values;
mod watched;
pub mod worker;

use std::path::{Path, PathBuf};

/// One property of the product, or several around one part of it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: of its module, its binary and the directory of its corpus.
    pub name: &'static str,
    /// Checks the properties on one input. Panics when one does not hold.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 5] = [
    target("worker", worker::run),
    target("history", history::run),
    target("retry", retry::run),
    target("rpc", rpc::run),
    target("config", config::run),
];

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// Runs the files that the command line names, or the whole corpus if it names
/// none. What the binaries do that were built without libFuzzer.
///
/// # Panics
///
/// When a file cannot be read, or a property does not hold for it.
pub fn replay(name: &str, run: fn(&[u8])) {
    let named = std::env::args_os().skip(1).map(PathBuf::from);
    let mut files: Vec<_> = named.map(read).collect();
    if files.is_empty() {
        files = stored(name);
    }
    for (path, data) in files {
        println!("{}", path.display());
        run(&data);
    }
}

/// What is in the corpus of a target, by name of the file.
///
/// # Panics
///
/// When it cannot be read.
pub fn stored(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let entries = std::fs::read_dir(&corpus);
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", corpus.display()));
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the corpus can be read").path())
        .collect();
    paths.sort();
    paths.into_iter().map(read).collect()
}

fn read(path: PathBuf) -> (PathBuf, Vec<u8>) {
    let data = std::fs::read(&path);
    let data = data.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (path, data)
}

/// The body of the binary of a target.
#[macro_export]
macro_rules! binary {
    ($target:ident) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::$target::run(data));

        #[cfg(not(fuzzing))]
        fn main() {
            $crate::replay(stringify!($target), $crate::$target::run);
        }
    };
}
