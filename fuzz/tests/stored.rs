//! Every stored input, and a fixed number of inputs that are made of those.

use std::fs;
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::support::{stored, target, violation};

/// Changes that are made to one input at most.
const CHANGES_MAX: usize = 4;
/// Bytes beyond which an input does not grow.
const LEN_MAX: usize = 4_096;
/// A corpus is run by everybody, so it stays small: this many files.
const FILES_MAX: usize = 64;
/// Bytes of a corpus.
const BYTES_MAX: usize = 200 * 1024;
/// Numbers at which something might change.
const EDGES: [u8; 8] = [0, 1, 3, 127, 128, 240, 254, 255];

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

/// One of the inputs, with a few changes.
fn change(rng: &mut ChaCha8Rng, inputs: &[&[u8]]) -> Vec<u8> {
    let mut data = inputs[below(rng, inputs.len())].to_vec();
    for _ in 0..=below(rng, CHANGES_MAX) {
        let at = below(rng, data.len() + 1);
        let len = below(rng, 16).min(data.len() - at);
        match below(rng, 7) {
            0 => {
                if let Some(byte) = data.get_mut(at) {
                    *byte ^= 1 << below(rng, 8);
                }
            }
            1 => {
                if let Some(byte) = data.get_mut(at) {
                    *byte = EDGES[below(rng, EDGES.len())];
                }
            }
            2 => {
                if let Some(byte) = data.get_mut(at) {
                    *byte = rng.next_u32() as u8;
                }
            }
            3 => data.insert(at, rng.next_u32() as u8),
            4 => drop(data.drain(at..at + len)),
            // The same once more.
            5 => {
                let again = data[at..at + len].to_vec();
                data.splice(at..at, again);
            }
            // On with another input.
            _ => {
                let other = inputs[below(rng, inputs.len())];
                data.truncate(at);
                data.extend_from_slice(&other[below(rng, other.len() + 1)..]);
            }
        }
    }
    data.truncate(LEN_MAX);
    data
}

fn below(rng: &mut ChaCha8Rng, limit: usize) -> usize {
    (rng.next_u64() % limit as u64) as usize
}
