//! What the guide and the README show.

use std::process::Command;

const FILE: &str = include_str!("../../../examples/simulation_in_ci/simulations.yml");

/// The lines of the script that is run each night, without what runs the tests.
fn nightly() -> Vec<&'static str> {
    let script = FILE.split("run: |\n").nth(1).expect("it has a script");
    let lines = script.lines().map(str::trim);
    lines.filter(|line| !line.starts_with("cargo")).collect()
}

#[test]
fn the_seeds_of_a_night_are_twenty_thousand_that_the_test_understands() {
    let script = nightly().join("\n") + "\necho $JOB_SIM_SEEDS";
    let output = Command::new("bash").args(["-euc", &script]).output();
    let output = output.expect("bash is there");
    let seeds = String::from_utf8(output.stdout).unwrap();
    let (first, end) = seeds.trim().split_once("..").expect("it is a range");
    let (first, end): (u64, u64) = (first.parse().unwrap(), end.parse().unwrap());
    assert_eq!(end - first, 20_000);
}

#[test]
fn what_it_runs_is_an_example_of_this_package() {
    let manifest = include_str!("../../Cargo.toml");
    let lines = FILE.lines().filter(|line| line.contains("cargo test"));
    let examples = lines.map(|line| line.split("--example ").nth(1).expect("it runs an example"));
    let mut count = 0;
    for example in examples {
        assert!(
            manifest.contains(&format!("name = \"{example}\"")),
            "{example}"
        );
        count += 1;
    }
    assert_eq!(count, 2);
}
