//! Leases that are kept, and those that are lost.

use super::*;

#[test]
fn a_run_keeps_its_lease_for_as_long_as_it_takes() {
    let mut bench = Bench::new();
    let job = bench.spawn(1, Due::Now);
    bench.pass(LEASE * 20);
    assert_eq!(bench.started.len(), 1);
    let lease = bench.job(job).live.as_ref().unwrap().lease.unwrap();
    assert!(lease.expires_at > bench.now);
    assert_eq!(bench.stops, []);
}

#[test]
fn more_runs_than_a_batch_are_renewed_in_turn() {
    let mut bench = Bench::with(|config| {
        config.jobs_max = 1_000;
        config.jobs_min = 1_000;
    });
    bench.spawn_many(1..=2_000);
    bench.pass(Duration::ZERO);
    // The ends of the first thousand cannot be recorded, so that the leases of
    // twice as many runs as a heartbeat can name have to be kept.
    bench.refused = Some(StoreError::Failed("away".into()));
    for n in 0..1_000 {
        let run = bench.started[n].run;
        bench.end(run, Ended::Completed);
    }
    assert_eq!(bench.started.len(), 2_000);
    bench.pass(LEASE * 4);
    assert_eq!(bench.stops, [], "every lease was renewed in time");
}

#[test]
fn a_runner_is_told_and_then_aborted_when_its_lease_is_lost() {
    let mut bench = Bench::new();
    let job = bench.spawn(1, Due::Now);
    bench.pass(Duration::ZERO);
    let run = bench.started[0].run;
    // Another worker takes the job back, and this one hears of it at its next
    // heartbeat.
    let reclaim = Command::Reclaim(Reclaim {
        policies: bench
            .worker
            .config
            .types
            .iter()
            .map(TypeConfig::policy)
            .collect(),
        jobs_max: 10,
    });
    let later = bench.now.saturating_add(LEASE);
    bench.model.apply(later, &reclaim).unwrap();
    bench.pass(LEASE / 3);
    assert_eq!(bench.stops, [(run, StopReason::LeaseLost)]);
    bench.pass(secs(5));
    assert_eq!(bench.aborts, [run]);
    bench.end(run, Ended::Aborted);
    assert_eq!(bench.ends(job)[0], RunEnd::Lost);
    let lost = |seen: &Observation| matches!(seen, Observation::RunLost { .. });
    assert!(bench.seen.iter().any(lost));
}

#[test]
fn a_runner_is_told_when_its_lease_could_not_be_renewed() {
    let mut bench = Bench::new();
    bench.spawn(1, Due::Now);
    bench.pass(Duration::ZERO);
    bench.connected = false;
    bench.pass(LEASE - Duration::from_micros(1));
    assert_eq!(bench.stops, []);
    bench.pass(Duration::from_micros(1));
    let run = bench.started[0].run;
    assert_eq!(bench.stops, [(run, StopReason::LeaseLost)]);
    assert_eq!(bench.aborts, [], "the lease may be good still");
}

#[test]
fn a_lost_job_is_taken_back_and_run_again_at_the_next_attempt() {
    let mut bench = Bench::new();
    let job = bench.spawn(1, Due::Now);
    bench.model.apply(bench.now, &stolen_claim()).unwrap();
    bench.pass(LEASE * 2);
    assert_eq!(bench.ends(job), [RunEnd::Lost]);
    assert_eq!(bench.started[0].attempt, 2);
    assert_eq!(bench.started[0].run.fence, Fence(2));
}

#[test]
fn a_lost_job_is_found_within_one_and_a_half_times_its_lease() {
    for seed in 0..200 {
        let mut bench = Bench::new();
        bench.worker.entropy = Entropy::from_seed([seed; 32]);
        let job = bench.spawn(1, Due::Now);
        bench.model.apply(bench.now, &stolen_claim()).unwrap();
        bench.pass(LEASE * 3 / 2);
        assert_eq!(bench.ends(job), [RunEnd::Lost], "seed {seed}");
    }
}

/// A store may answer for fewer runs than it was asked for.
#[test]
fn a_heartbeat_that_is_answered_in_part_counts_as_failed_and_is_sent_again_in_time() {
    let mut bench = Bench::new();
    bench.spawn(1, Due::Now);
    bench.pass(Duration::ZERO);
    bench.connected = false;
    let mut waits = Vec::new();
    while waits.len() < 12 {
        bench.pass(Duration::from_millis(100));
        while let Some((op, command)) = bench.wire.pop_front() {
            let result = match command {
                Command::Heartbeat(_) => Ok(Reply::Heartbeat(Vec::new())),
                _ => Err(StoreError::Failed("away".into())),
            };
            bench.input(Input::Replied { op, result });
            if let Some(Observation::StoreFailed {
                lane: LaneKind::Heartbeat,
                retry_in,
                ..
            }) = bench.seen.last()
            {
                waits.push(*retry_in);
            }
        }
    }
    assert!(waits.iter().all(|wait| *wait <= LEASE / 8), "{waits:?}");
}

#[test]
fn a_run_that_has_ended_is_told_nothing_when_its_lease_is_lost() {
    let mut bench = Bench::new();
    bench.spawn(1, Due::Now);
    bench.pass(Duration::ZERO);
    bench.connected = false;
    bench.pass(LEASE / 4);
    let op = bench.take(|command| matches!(command, Command::Heartbeat(_)));
    bench.end(bench.started[0].run, Ended::Completed);
    bench.input(Input::Replied {
        op,
        result: Ok(Reply::Heartbeat(vec![Written::Stale])),
    });
    bench.pass(secs(10));
    assert_eq!((bench.stops.len(), bench.aborts.len()), (0, 0));
}
