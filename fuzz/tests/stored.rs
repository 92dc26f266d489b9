//! Every stored input, and a fixed number of inputs that are made of those.

use std::fs;
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use job_fuzz::stored;

use crate::changing::change;
use crate::support::{target, violation};

/// A corpus is run by everybody, so it stays small: this many files.
const FILES_MAX: usize = 64;
/// Bytes of a corpus.
const BYTES_MAX: usize = 200 * 1024;
// The numbers of changed inputs are what takes some seconds in a debug build.

#[test]
fn a_worker_keeps_its_promises() {
    check("worker", 400);
}

#[test]
fn a_history_decodes_or_says_why_not() {
    check("history", 10_000);
}

#[test]
fn retries_stay_within_their_bounds() {
    check("retry", 20_000);
}

#[test]
fn frames_arrive_or_are_refused() {
    check("rpc", 4_000);
}

#[test]
fn a_configuration_works_or_is_refused() {
    check("config", 2_000);
}

#[test]
fn the_corpora_are_small() {
    for target in job_fuzz::TARGETS {
        let stored = stored(target.name);
        let bytes: usize = stored.iter().map(|(_, data)| data.len()).sum();
        let name = target.name;
        assert!(stored.len() <= FILES_MAX, "{name}: {} files", stored.len());
        assert!(bytes <= BYTES_MAX, "{name}: {bytes} bytes");
    }
}

fn check(name: &str, changed: usize) {
    let target = target(name);
    let stored = stored(name);
    assert!(!stored.is_empty(), "there are no stored inputs for {name}");
    for (path, data) in &stored {
        if let Some(text) = violation(target, data) {
            fail(name, path, data, &text);
        }
    }
    let inputs: Vec<&[u8]> = stored.iter().map(|(_, data)| data.as_slice()).collect();
    let mut rng = ChaCha8Rng::from_seed([1; 32]);
    // Written before it is run: it may be one that never ends.
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-input"));
    for _ in 0..changed {
        let data = change(&mut rng, &inputs);
        fs::write(&path, &data).expect("the directory for tests can be written");
        if let Some(text) = violation(target, &data) {
            fail(name, &path, &data, &text);
        }
    }
}

fn fail(name: &str, path: &Path, data: &[u8], text: &str) -> ! {
    let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
    panic!(
        "{text}\n\nThe input is in {path}, and is, in hexadecimal,\n{hex}\n\nReplay it with\n    \
         cargo run -p job-fuzz --bin {name} -- {path}\n",
        path = path.display(),
    );
}
