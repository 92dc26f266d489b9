//! The stored inputs that once found a mistake find it again: one that is planted
//! in the engine or in the model of the store. Without it the input passes, as all
//! of them do.

use std::collections::BTreeMap;

use job_engine::planted::{Bug, with};
use job_fuzz::TARGETS;

use crate::support::{stored, violation};

/// What the names of their files begin with; the name of the bug follows.
const PREFIX: &str = "planted-";

/// So many bugs the inputs of a target find at least.
const FOUND_MIN: [(&str, usize); 2] = [("worker", 18), ("history", 14)];

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
