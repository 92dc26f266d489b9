//! When claims are sent, and what they ask for.

use super::*;

#[test]
fn a_claim_that_took_less_than_it_might_is_not_followed_by_another() {
    let mut bench = Bench::new();
    bench.spawn(1, Due::Now);
    bench.pass(Duration::ZERO);
    assert_eq!((bench.started.len(), bench.claims.1), (1, 1));
}

/// What it finds again is what was due before.
#[test]
fn a_repeat_that_finds_its_jobs_is_followed_by_a_look_for_others() {
    let mut bench = Bench::with(|config| config.poll_interval_deaf = secs(3600));
    bench.spawn(1, Due::Now);
    bench.connected = false;
    bench.pass(Duration::ZERO);
    bench.fail(true, unknown());
    bench.spawn(2, Due::Now);
    bench.connected = true;
    bench.pass(secs(1));
    assert_eq!((bench.started.len(), bench.claims.1), (2, 3));
}

#[test]
fn a_claim_whose_fate_is_unknown_during_a_shutdown_is_repeated_to_put_its_jobs_back() {
    let mut bench = Bench::new();
    let job = bench.spawn(1, Due::Now);
    bench.connected = false;
    bench.pass(Duration::ZERO);
    bench.input(Input::ShutdownRequested);
    bench.fail(true, unknown());
    bench.connected = true;
    bench.answer();
    bench.pass(secs(1));
    assert!(bench.stopped);
    assert_eq!(bench.ends(job), [RunEnd::Released]);
}

#[test]
fn a_claim_that_failed_during_a_shutdown_is_forgotten() {
    let mut bench = Bench::new();
    bench.connected = false;
    bench.pass(Duration::ZERO);
    bench.input(Input::ShutdownRequested);
    bench.fail(false, StoreError::Failed("away".into()));
    assert!(bench.stopped);
}

#[test]
fn a_command_that_waits_to_be_sent_again_does_not_go_with_another_timer() {
    let mut bench = Bench::new();
    bench.connected = false;
    bench.pass(Duration::ZERO);
    bench.fail(false, StoreError::Failed("away".into()));
    bench.wire.clear();
    bench.input(Input::TimerFired);
    assert!(bench.wire.is_empty(), "{:?}", bench.wire);
    bench.pass(secs(1));
    assert!(!bench.wire.is_empty());
}

#[test]
fn a_worker_gathers_places_only_while_some_are_free_and_jobs_may_be_due() {
    let sleeps = |jobs: u128| {
        let mut bench = Bench::with(|config| config.jobs_min = 2);
        bench.spawn_many(1..=jobs);
        bench.pass(Duration::ZERO);
        let timer = bench.worker.poll_timeout().expect("it polls");
        timer.saturating_since(bench.now)
    };
    // Two run and nothing else is due; four run and more are due.
    for jobs in [2, 9] {
        assert!(sleeps(jobs) > GATHER_TIME, "{jobs}");
    }
}

/// Their runs hold no place, but what is kept of them is not to grow without a limit while
/// the store takes no ends.
#[test]
fn nothing_is_claimed_while_two_thousand_ends_wait_to_be_recorded() {
    let mut bench = Bench::with(|config| {
        (config.jobs_max, config.jobs_min) = (1_000, 1);
        config.poll_interval_deaf = secs(3600);
    });
    bench.spawn_many(1..=3_500);
    bench.pass(Duration::ZERO);
    bench.refused = Some(StoreError::Failed("away".into()));
    let end = |bench: &mut Bench, range: std::ops::Range<usize>| {
        for nth in range {
            let run = bench.started[nth].run;
            bench.end(run, Ended::Completed);
        }
    };
    end(&mut bench, 0..1_000);
    end(&mut bench, 1_000..1_999);
    bench.pass(GATHER_TIME);
    assert!(bench.started.len() >= 2_999);
    end(&mut bench, 1_999..2_000);
    let claims = bench.claims;
    bench.pass(GATHER_TIME * 10);
    end(&mut bench, 2_000..2_100);
    assert_eq!(bench.claims, claims);
    // Once they are recorded it goes on, as often as it takes.
    bench.refused = None;
    for nth in 2_100..3_500 {
        if nth >= bench.started.len() {
            bench.pass(secs(20));
        }
        end(&mut bench, nth..nth + 1);
    }
    bench.pass(secs(20));
    let completed = bench.model.jobs();
    let completed = completed.filter(|job| job.state() == State::Completed);
    assert_eq!(completed.count(), 3_500);
}

#[test]
fn a_claim_is_shortened_from_its_end() {
    let quotas = |quotas: &[(&'static str, u32)]| -> Vec<Quota> {
        let quotas = quotas.iter().map(|(name, jobs_max)| Quota {
            job_type: JobType::new(name),
            jobs_max: *jobs_max,
        });
        quotas.collect()
    };
    for (jobs_max, left) in [
        (20, &[("a", 10), ("b", 5), ("c", 1)][..]),
        (12, &[("a", 10), ("b", 2)]),
        (10, &[("a", 10)]),
        (3, &[("a", 3)]),
    ] {
        let mut shortened = quotas(&[("a", 10), ("b", 5), ("c", 1)]);
        claiming::shorten(&mut shortened, jobs_max);
        assert_eq!(shortened, quotas(left), "{jobs_max}");
    }
}
