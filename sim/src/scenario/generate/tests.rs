//! What scenarios there are.

use super::*;

#[test]
fn a_scenario_goes_to_json_and_back() {
    for seed in 0..200 {
        let scenario = generate(Profile::EXPLORER, seed);
        let json = serde_json::to_string(&scenario).unwrap();
        assert_eq!(serde_json::from_str::<Scenario>(&json).unwrap(), scenario);
    }
}

#[test]
fn a_seed_gives_the_same_scenario_again() {
    let one = generate(Profile::CLUSTER, 7);
    assert_eq!(one, generate(Profile::CLUSTER, 7));
    assert_ne!(one, generate(Profile::CLUSTER, 8));
}

/// Long work makes for long backlogs, of which the end is not waited for.
#[test]
fn the_liveness_phase_is_long_enough_in_most_scenarios() {
    for (profile, pct) in [
        (Profile::EXPLORER, 85),
        (Profile::PAUSED, 85),
        (Profile::CLUSTER, 85),
    ] {
        let long_enough = |seed: &u64| {
            let scenario = generate(profile, *seed);
            let calm_ms = scenario.horizon_ms - scenario.calm_from_ms;
            calm_ms >= crate::check::calm_ms(&scenario)
        };
        let checked = (0..1_000).filter(long_enough).count();
        assert!(checked > 10 * pct, "{checked} of 1,000 in {profile:?}");
    }
}
