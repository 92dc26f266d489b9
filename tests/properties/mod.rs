//! Properties of retries and of uniqueness, written as users of `job` would write
//! them for their own rules.
//!
//! `JOB_SOAK_CASES` says how many cases of each are tried (by default 60 in memory
//! and 10 on a database), `JOB_SOAK_SEED` which (default 0).

mod retry;
mod unique;

use proptest::test_runner::{Config, RngSeed};

use crate::support::from_environment;

fn config(cases: u32) -> Config {
    Config {
        cases: from_environment("JOB_SOAK_CASES", cases),
        rng_seed: RngSeed::Fixed(from_environment("JOB_SOAK_SEED", 0)),
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..Config::default()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap()
}
