//! What becomes of a process that forgets to move a manual clock.

use std::env;
use std::process::{Command, Output};
use std::time::Duration;

use job_tokio::ClockController;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::support::{manual, one_thread, secs};

/// Set in the process that forgets.
const FORGETS: &str = "JOB_TEST_FORGETS_ITS_CLOCK";
const PATIENCE: Duration = Duration::from_millis(50);

/// Runs one test of this binary once more, in a process of its own.
fn in_a_process(test: &str) -> Output {
    let this = env::current_exe().expect("the test binary has a path");
    let mut command = Command::new(this);
    command.args([test, "--exact", "--nocapture"]);
    let output = command.env(FORGETS, "").output();
    output.expect("the test binary can be started")
}

fn is_forgetful() -> bool {
    env::var_os(FORGETS).is_some()
}

/// Awaits what never comes while a task sleeps. It is not to get to its end.
async fn forget(controller: &ClockController, sleep: job_tokio::ClockSleep) {
    let (_tell, told) = oneshot::channel::<()>();
    tokio::spawn(sleep);
    let forgotten = timeout(secs(60), told).await;
    panic!(
        "nobody ended the process: {forgotten:?}, {}",
        controller.waiting()
    );
}

/// What a process says that ended because it forgot its clock.
fn assert_ended(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(101), "{text}");
    for part in [
        "a manual clock was forgotten",
        "for 50ms of real time nobody moved it and nothing was busy",
        "a sleep lasts until 1970-01-12 13:47:40 UTC",
        "Advance the clock",
        "`ClockController::set_patience`",
    ] {
        assert!(text.contains(part), "{text}");
    }
    text
}

#[test]
fn a_forgotten_clock_ends_the_process_with_who_sleeps_until_when() {
    if is_forgetful() {
        one_thread().block_on(async {
            let (clock, controller) = manual();
            controller.set_patience(Some(PATIENCE));
            forget(&controller, clock.sleep(secs(60))).await;
        });
    }
    let line = line!() - 3;
    let output =
        in_a_process("forgotten::a_forgotten_clock_ends_the_process_with_who_sleeps_until_when");
    let text = assert_ended(&output);
    let made_at = format!("made at adapters/tokio/tests/clock/forgotten.rs:{line}");
    assert!(text.contains(&made_at), "{text}");
}

/// The guard is there for ten times the patience; the process ends after it, not before.
#[test]
fn a_clock_is_not_forgotten_while_something_is_busy() {
    const GONE: &str = "the guard is gone";
    if is_forgetful() {
        one_thread().block_on(async {
            let (clock, controller) = manual();
            let busy = clock.busy();
            let sleep = clock.sleep(secs(60));
            // After the sleep has begun: it is watched all the same.
            controller.set_patience(Some(PATIENCE));
            tokio::time::sleep(10 * PATIENCE).await;
            println!("{GONE}");
            drop(busy);
            forget(&controller, sleep).await;
        });
    }
    let output = in_a_process("forgotten::a_clock_is_not_forgotten_while_something_is_busy");
    assert_ended(&output);
    assert!(String::from_utf8_lossy(&output.stdout).contains(GONE));
}
