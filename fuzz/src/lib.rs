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

use std::path::Path;

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
    let mut files: Vec<_> = std::env::args_os().skip(1).map(Into::into).collect();
    if files.is_empty() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(name);
        let entries = std::fs::read_dir(&corpus).expect("the corpus can be read");
        files.extend(entries.map(|entry| entry.expect("the corpus can be read").path()));
        files.sort();
    }
    for file in files {
        println!("{}", file.display());
        run(&std::fs::read(&file).expect("the file can be read"));
    }
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
