//! Jobs that are claimed ahead of their places.

use super::*;

/// A worker with so many places, which it knows to be quick: its first two runs ended
/// during one claim. Every answer of the store took so long.
fn quick_with(jobs_max: u32, answer_takes: Duration) -> Bench {
    let mut bench = Bench::with(|config| {
        (config.jobs_max, config.jobs_min) = (jobs_max, jobs_max);
        config.poll_interval_deaf = secs(3600);
    });
    bench.spawn_many(1..=100);
    bench.pass(Duration::ZERO);
    bench.end_during_a_claim(answer_takes);
    bench
}

/// One with three places. Three runs are at work, four jobs are ready.
fn quick(answer_takes: Duration) -> Bench {
    let bench = quick_with(3, answer_takes);
    assert_eq!((bench.started.len(), bench.ready().len()), (5, 4));
    bench
}

impl Bench {
    /// The jobs that run by the store and were not started.
    fn ready(&self) -> Vec<JobId> {
        let claimed = self.model.jobs();
        let claimed = claimed.filter(|job| job.state() == State::Running);
        let waits = |id: &JobId| self.started.iter().all(|started| started.run.job != *id);
        claimed.map(|job| job.id).filter(waits).collect()
    }

    /// Ends the two first runs, the second while the claim is under way to which the
    /// first led; every answer takes so long.
    fn end_during_a_claim(&mut self, answer_takes: Duration) {
        self.connected = false;
        for nth in 0..2 {
            self.end_started(nth);
        }
        while !self.wire.is_empty() {
            self.pass(answer_takes);
            self.answer();
        }
        self.connected = true;
    }

    fn end_started(&mut self, nth: usize) {
        let run = self.started[nth].run;
        self.end(run, Ended::Completed);
    }
}

#[test]
fn nothing_is_claimed_ahead_while_runs_outlast_the_claims() {
    let mut bench = Bench::new();
    bench.spawn_many(1..=100);
    bench.pass(Duration::ZERO);
    for nth in 0..20 {
        assert_eq!((bench.started.len(), bench.ready().len()), (nth + 4, 0));
        bench.end_started(nth);
    }
}

#[test]
fn a_worker_that_runs_out_of_jobs_claims_more_ahead() {
    let bench = quick_with(2, Duration::ZERO);
    assert_eq!((bench.started.len(), bench.ready().len()), (4, 16));
}

/// Many that are long may end at the same time by chance, and what is claimed ahead
/// then waits while other workers have places.
#[test]
fn a_worker_that_runs_out_of_long_jobs_claims_no_more_ahead_than_else() {
    for (lasted, ready) in [(Duration::from_millis(60), 16), (secs(60), 4)] {
        let mut bench = Bench::with(|config| {
            (config.jobs_max, config.jobs_min) = (2, 2);
            config.poll_interval_deaf = secs(3600);
        });
        bench.spawn_many(1..=100);
        bench.pass(Duration::ZERO);
        bench.pass(lasted);
        bench.end_during_a_claim(Duration::ZERO);
        assert_eq!((bench.started.len(), bench.ready().len()), (4, ready));
    }
}

/// It had asked for more, and there was none.
#[test]
fn a_worker_that_finds_too_few_jobs_claims_no_more_ahead_than_else() {
    let mut bench = Bench::with(|config| {
        (config.jobs_max, config.jobs_min) = (3, 3);
        config.poll_interval_deaf = secs(3600);
    });
    bench.spawn_many(1..=3);
    bench.pass(Duration::ZERO);
    bench.connected = false;
    // The first end leads to a claim, which finds nothing.
    bench.end_started(0);
    bench.end_started(1);
    bench.end_started(2);
    bench.connected = true;
    bench.answer();
    bench.spawn_many(4..=100);
    bench.input(Input::Woken(TYPE));
    let ready = bench.ready().len();
    assert!(ready <= 2 * 4, "{ready}");
}

#[test]
fn what_is_ready_starts_without_a_round_trip() {
    let mut bench = quick(Duration::ZERO);
    bench.connected = false;
    for nth in 2..6 {
        bench.end_started(nth);
        assert_eq!(bench.started.len(), nth + 4);
    }
    let order: Vec<u128> = bench
        .started
        .iter()
        .map(|job| job.run.job.0.as_u128())
        .collect();
    assert_eq!(order, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn what_finds_no_place_in_time_is_put_back() {
    let mut bench = quick(Duration::ZERO);
    let ready = bench.ready();
    bench.pass(secs(1) - Duration::from_micros(1));
    assert_eq!(bench.ready(), ready);
    bench.pass(Duration::from_micros(1));
    assert!(bench.ready().is_empty());
    for job in ready {
        assert_eq!(bench.ends(job), [RunEnd::Released]);
        assert_eq!(bench.job(job).state(), State::Pending);
    }
    // What runs goes on, and there is no place for more.
    assert_eq!((bench.started.len(), bench.stops.len()), (5, 0));
}

#[test]
fn where_claims_are_slow_what_is_ready_waits_for_longer() {
    let mut bench = quick(secs(2));
    bench.pass(secs(5) - Duration::from_micros(1));
    assert_eq!(bench.ready().len(), 4);
    bench.pass(Duration::from_micros(1));
    assert!(bench.ready().is_empty());
}

#[test]
fn the_leases_of_what_is_ready_are_renewed() {
    let mut bench = quick(secs(2));
    bench.connected = false;
    bench.pass(secs(4));
    let renewed = bench.wire.iter().find_map(|(_, command)| match command {
        Command::Heartbeat(heartbeat) => Some(heartbeat.runs.len()),
        _ => None,
    });
    assert_eq!(renewed, Some(7));
}

#[test]
fn what_is_ready_is_not_started_once_its_lease_may_have_run_out() {
    let mut bench = quick(Duration::ZERO);
    let ready = bench.ready();
    // The worker stands still, and does not see the timer.
    bench.connected = false;
    bench.now = bench.now.saturating_add(LEASE);
    bench.end_started(2);
    assert_eq!(bench.started.len(), 5);
    bench.connected = true;
    bench.answer();
    for job in ready {
        assert_eq!(bench.ends(job), [RunEnd::Released]);
    }
}

#[test]
fn a_shutdown_puts_back_at_once_what_is_ready() {
    let mut bench = quick(Duration::ZERO);
    let ready = bench.ready();
    bench.input(Input::ShutdownRequested);
    for job in ready {
        assert_eq!(bench.ends(job), [RunEnd::Released]);
    }
    assert_eq!(bench.stops.len(), 3);
    for nth in 2..5 {
        bench.end_started(nth);
    }
    assert!(bench.stopped);
}

/// A crash that is not its own costs a job one attempt at most.
#[test]
fn a_job_that_was_tried_before_does_not_wait_in_a_worker() {
    let mut bench = Bench::with(|config| {
        config.jobs_max = 2;
        config.jobs_min = 2;
        config.poll_interval_deaf = secs(3600);
    });
    bench.spawn_many(1..=100);
    // Somebody else held them all, and died.
    let mut stolen = stolen_claim();
    if let Command::Claim(claim) = &mut stolen {
        claim.quotas[0].jobs_max = 100;
    }
    bench.model.apply(bench.now, &stolen).unwrap();
    bench.now = bench.now.saturating_add(LEASE);
    bench.pass(Duration::ZERO);
    assert_eq!(bench.started.len(), 2);
    bench.end_during_a_claim(Duration::ZERO);
    assert!(bench.started.len() > 2);
    assert!(bench.ready().is_empty());
    // It does not ask for such jobs again and again.
    let released = |bench: &Bench| {
        let runs = bench.model.jobs().flat_map(|job| &job.runs);
        let released = runs.filter(|run| run.end == RunEnd::Released);
        released.count()
    };
    let before = released(&bench);
    for nth in 2..10 {
        bench.end_started(nth);
    }
    assert!(before > 0);
    assert_eq!(released(&bench), before);
}

#[test]
fn a_claim_is_wanted_while_less_than_half_of_what_may_be_claimed_ahead_is_there() {
    let mut ready = Ready::default();
    assert!(!ready.runs_low(), "nothing may be");
    ready.run_ended(Duration::ZERO);
    ready.run_ended(Duration::ZERO);
    ready.claim_took(Duration::ZERO, LEASE, false);
    assert_eq!(ready.ahead(), 8);
    let low = (1..=5).map(|_| {
        ready.push(Timestamp::EPOCH, ready_job());
        ready.runs_low()
    });
    assert_eq!(low.collect::<Vec<_>>(), [true, true, true, false, false]);
}

#[test]
fn what_is_ready_waits_for_half_a_lease_at_most() {
    let mut ready = Ready::default();
    ready.claim_took(secs(60), secs(4), false);
    ready.push(Timestamp::EPOCH, ready_job());
    let overdue_at = ready.overdue_at().expect("a job waits");
    assert_eq!(overdue_at.saturating_since(Timestamp::EPOCH), secs(2));
}

#[test]
fn no_more_than_two_batches_are_claimed_ahead() {
    let mut ready = Ready::default();
    for _ in 0..100_000 {
        ready.run_ended(Duration::ZERO);
    }
    ready.claim_took(Duration::ZERO, LEASE, false);
    assert_eq!(ready.ahead(), 2_000);
}

fn ready_job() -> ClaimedJob {
    let mut bench = Bench::new();
    bench.spawn(1, Due::Now);
    bench.pass(Duration::ZERO);
    bench.started.remove(0)
}

#[test]
fn nothing_is_claimed_ahead_of_a_type_for_which_one_crash_is_the_last() {
    for fragile in [(Some(1), None), (None, Some(1))] {
        let mut bench = Bench::with(|config| {
            (config.jobs_max, config.jobs_min) = (2, 2);
            (
                config.types[0].retry.n_attempts,
                config.types[0].crashes_max,
            ) = fragile;
            config.poll_interval_deaf = secs(3600);
        });
        bench.spawn_many(1..=100);
        bench.pass(Duration::ZERO);
        bench.end_during_a_claim(Duration::ZERO);
        assert!(bench.started.len() > 2);
        assert!(bench.ready().is_empty());
        let released = bench.model.jobs().flat_map(|job| &job.runs);
        assert!(released.into_iter().all(|run| run.end == RunEnd::Completed));
    }
}

/// What may not wait is put back; the runners, or their jobs, may have become slow.
#[test]
fn only_a_claim_that_is_mostly_put_back_is_a_reason_to_claim_for_places_alone() {
    for (put_back, goes_on) in [(0, true), (1, true), (4, true), (5, false), (8, false)] {
        let mut bench = quick_with(2, Duration::ZERO);
        bench.connected = false;
        let claims = |(_, command): &(_, _)| matches!(command, Command::Claim(_));
        let mut running = bench.started.len() - 2..;
        while !bench.wire.iter().any(claims) {
            bench.end_started(running.next().unwrap());
        }
        let place = bench.wire.iter().position(claims).unwrap();
        let (op, command) = bench.wire.remove(place).unwrap();
        let mut reply = bench.model.apply(bench.now, &command).unwrap();
        let Reply::Claimed(claimed) = &mut reply else {
            panic!("{reply:?} to {command:?}");
        };
        assert!(claimed.jobs.len() >= 8, "{}", claimed.jobs.len());
        claimed.jobs.truncate(8);
        for job in claimed.jobs.iter_mut().take(put_back) {
            job.attempt = 2;
        }
        let result = Ok(reply);
        bench.input(Input::Replied { op, result });
        assert_eq!(bench.worker.ready.ahead() > 0, goes_on, "{put_back}");
    }
}
