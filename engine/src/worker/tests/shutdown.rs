//! What becomes of runs and jobs when the worker is to end.

use super::*;

#[test]
fn an_idle_worker_stops_at_once() {
    let mut bench = Bench::new();
    bench.pass(secs(1));
    bench.input(Input::ShutdownRequested);
    assert!(bench.stopped);
    assert_eq!(bench.worker.poll_timeout(), None);
}

#[test]
fn a_shutdown_waits_for_the_runners_and_claims_nothing_more() {
    let mut bench = Bench::new();
    let job = bench.spawn(1, Due::Now);
    bench.pass(Duration::ZERO);
    bench.input(Input::ShutdownRequested);
    let run = bench.started[0].run;
    assert_eq!(bench.stops, [(run, StopReason::Shutdown)]);
    bench.spawn(2, Due::Now);
    bench.input(Input::Woken(TYPE));
    assert!(!bench.stopped);
    bench.end(run, Ended::Completed);
    assert!(bench.stopped);
    assert_eq!(bench.job(job).state(), State::Completed);
    assert_eq!(bench.started.len(), 1);
}

#[test]
fn what_outlives_the_shutdown_timeout_is_aborted_and_put_back() {
    let mut bench = Bench::new();
    let job = bench.spawn(1, Due::Now);
    bench.pass(Duration::ZERO);
    bench.input(Input::ShutdownRequested);
    bench.pass(secs(5));
    let run = bench.started[0].run;
    assert_eq!(bench.aborts, [run]);
    assert!(!bench.stopped, "the runner has not ended yet");
    bench.end(run, Ended::Aborted);
    assert!(bench.stopped);
    assert_eq!(bench.ends(job), [RunEnd::Interrupted]);
    let live = bench.job(job).live.as_ref().unwrap();
    assert_eq!((live.attempt, live.due_at), (1, bench.now));
}

#[test]
fn jobs_of_a_claim_that_arrives_during_a_shutdown_are_put_back_unstarted() {
    let mut bench = Bench::new();
    let job = bench.spawn(1, Due::Now);
    bench.connected = false;
    bench.pass(Duration::ZERO);
    bench.input(Input::ShutdownRequested);
    assert!(!bench.stopped);
    bench.connected = true;
    bench.answer();
    assert!(bench.stopped);
    assert_eq!(bench.started.len(), 0);
    assert_eq!(bench.ends(job), [RunEnd::Released]);
}

#[test]
fn a_claim_lost_before_a_shutdown_is_recovered_in_it() {
    let mut bench = Bench::new();
    let job = bench.spawn(1, Due::Now);
    bench.connected = false;
    bench.pass(Duration::ZERO);
    bench.fail(true, unknown());
    bench.connected = true;
    bench.input(Input::ShutdownRequested);
    assert!(bench.stopped);
    assert_eq!(bench.ends(job), [RunEnd::Released]);
}

#[test]
fn a_shutdown_ends_even_if_nothing_answers_any_more() {
    let mut bench = Bench::new();
    bench.spawn(1, Due::Now);
    bench.pass(Duration::ZERO);
    bench.connected = false;
    bench.input(Input::ShutdownRequested);
    bench.pass(secs(5) + SETTLE_TIMEOUT);
    assert!(bench.stopped);
    assert_eq!(
        bench.seen.last(),
        Some(&Observation::Drained { unsettled: 1 })
    );
}

#[test]
fn heartbeats_go_on_while_a_shutdown_drains() {
    let mut bench = Bench::with(|config| config.shutdown_timeout = LEASE * 10);
    let job = bench.spawn(1, Due::Now);
    bench.pass(Duration::ZERO);
    bench.input(Input::ShutdownRequested);
    bench.pass(LEASE * 5);
    let lease = bench.job(job).live.as_ref().unwrap().lease.unwrap();
    assert!(lease.expires_at > bench.now);
}

#[test]
fn others_are_told_of_what_a_shutdown_puts_back_and_of_nothing_else() {
    let mut bench = Bench::new();
    bench.spawn_many(1..=2);
    bench.pass(Duration::ZERO);
    bench.end(bench.started[0].run, Ended::Completed);
    bench.end(bench.started[1].run, failed("no route"));
    bench.pass(secs(1));
    assert_eq!(bench.announced, []);
    bench.input(Input::ShutdownRequested);
    bench.end(bench.started[2].run, Ended::Aborted);
    assert_eq!(bench.announced, [BTreeSet::from([TYPE])]);
}
