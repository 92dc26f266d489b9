//! Long random sequences of commands. Each is made from its seed, so a failure
//! comes again whenever its test runs.

use crate::conformance::Harness;
use crate::conformance::generator::Generator;
use crate::store::Store;

const STEPS: u32 = 200;
/// Every so many steps all jobs are compared, not only the replies.
const STEPS_COMPARED: u32 = 10;

async fn run_script<S: Store>(harness: &mut Harness<S>, seed: u64) {
    let mut generator = Generator::new(seed);
    for step in 1..=STEPS {
        harness.advance(generator.pause());
        let command = generator.command(harness.now());
        let reply = harness.run(command).await;
        generator.learn(&reply);
        if step % STEPS_COMPARED == 0 {
            harness.compare_jobs().await;
        }
    }
}

pub async fn a_random_script_of_seed_1_gives_what_the_model_gives<S: Store>(
    harness: &mut Harness<S>,
) {
    run_script(harness, 1).await;
}

pub async fn a_random_script_of_seed_2_gives_what_the_model_gives<S: Store>(
    harness: &mut Harness<S>,
) {
    run_script(harness, 2).await;
}

pub async fn a_random_script_of_seed_3_gives_what_the_model_gives<S: Store>(
    harness: &mut Harness<S>,
) {
    run_script(harness, 3).await;
}

pub async fn a_random_script_of_seed_4_gives_what_the_model_gives<S: Store>(
    harness: &mut Harness<S>,
) {
    run_script(harness, 4).await;
}

pub async fn a_random_script_of_seed_5_gives_what_the_model_gives<S: Store>(
    harness: &mut Harness<S>,
) {
    run_script(harness, 5).await;
}

pub async fn a_random_script_of_seed_6_gives_what_the_model_gives<S: Store>(
    harness: &mut Harness<S>,
) {
    run_script(harness, 6).await;
}
