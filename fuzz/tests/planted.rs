//! The stored inputs that once found a mistake find it again: one that is planted
//! in the engine or in the model of the store. Without it the input passes, as all
//! of them do.

use std::collections::BTreeMap;
use std::fs;

use job_engine::planted::{Bug, with};
use job_fuzz::{TARGETS, stored};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::changing::change;
use crate::support::violation;

/// What the names of their files begin with; the name of the bug follows.
const PREFIX: &str = "planted-";

/// So many bugs the inputs of a target find at least.
const FOUND_MIN: [(&str, usize); 2] = [("worker", 19), ("history", 14)];

#[test]
fn the_stored_inputs_find_planted_bugs() {
    let mut found = BTreeMap::<_, usize>::new();
    for target in TARGETS {
        for (path, data) in stored(target.name) {
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(bug) = name.and_then(|name| name.strip_prefix(PREFIX)) else {
                continue;
            };
            let bug: Bug = bug.parse().expect("the file is named like a bug");
            let text = with(bug, || violation(target, &data));
            assert!(text.is_some(), "{} does not find it", path.display());
            *found.entry(target.name).or_default() += 1;
        }
    }
    for (name, least) in FOUND_MIN {
        assert!(
            found[name] >= least,
            "only {} of {name} are left",
            found[name]
        );
    }
}

/// How many inputs are tried for a bug.
const TRIES_MAX: usize = 100_000;

/// For after a change of what a target or the engine does with an input: makes such
/// stored inputs find their bugs again.
#[test]
#[ignore = "it changes the corpora: see README.md"]
fn replace_the_stored_inputs_that_no_longer_find_their_bugs() {
    for target in TARGETS {
        let stored = stored(target.name);
        let inputs: Vec<&[u8]> = stored.iter().map(|(_, data)| data.as_slice()).collect();
        for (path, data) in &stored {
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(bug) = name.and_then(|name| name.strip_prefix(PREFIX)) else {
                continue;
            };
            let bug: Bug = bug.parse().expect("the file is named like a bug");
            let finds = |data: &[u8]| with(bug, || violation(target, data)).is_some();
            if finds(data) {
                continue;
            }
            let mut rng = ChaCha8Rng::from_seed([2; 32]);
            let mut tries = (0..TRIES_MAX).map(|_| change(&mut rng, &inputs));
            match tries.find(|data| finds(data) && violation(target, data).is_none()) {
                Some(found) => fs::write(path, found).expect("the corpus can be written"),
                None => println!("{} finds it no longer", path.display()),
            }
        }
    }
}
