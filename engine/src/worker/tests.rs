//! The worker against the model store, without any runtime.

mod batches;
mod bench;
mod claims;
mod leases;
mod put_back;
mod ready;
mod shutdown;

use bench::*;

use super::*;
use crate::JobType;
use crate::RetrySettings;
use crate::history::Snapshot;
use crate::ids::{ClaimId, Fence, JobId};
use crate::lifecycle::{RunEnd, State};
use crate::model::ModelStore;
use crate::payload::{ErrorText, Payload};
use crate::store::{
    ClaimedJob, Left, LeftOut, NewJob, Outcome, Quota, Reclaim, Rejection, Written,
};
use crate::time::Due;

#[test]
fn a_due_job_is_claimed_run_and_completed() {
    let mut bench = Bench::new();
    let job = bench.spawn(1, Due::Now);
    bench.pass(Duration::ZERO);
    let run = bench.started[0].run;
    assert_eq!((run.job, run.fence), (job, Fence(1)));
    bench.end(run, Ended::Completed);
    assert_eq!(bench.job(job).state(), State::Completed);
    assert_eq!(bench.ends(job), [RunEnd::Completed]);
}

#[test]
fn a_worker_rests_while_nothing_is_under_way() {
    let mut bench = Bench::with(|config| config.poll_interval_deaf = secs(3600));
    bench.pass(Duration::ZERO);
    assert_eq!(bench.worker.rests(), Some(secs(3600)));
    bench.input(Input::Listening(true));
    assert_eq!(bench.worker.rests(), Some(secs(60)));
    bench.input(Input::Listening(false));
    // It claims.
    bench.connected = false;
    bench.input(Input::Woken(TYPE));
    assert!(matches!(&bench.wire[0], (_, Command::Claim(_))));
    assert_eq!(bench.worker.rests(), None);
    bench.answer();
    assert_eq!(bench.worker.rests(), Some(secs(3600)));
    // It looks for lost jobs.
    bench.pass(LEASE / 2);
    assert!(matches!(&bench.wire[0], (_, Command::Reclaim(_))));
    assert_eq!(bench.worker.rests(), None);
    bench.answer();
    assert_eq!(bench.worker.rests(), Some(secs(3600)));
    // A job runs, and its lease is being renewed when it is lost.
    bench.spawn(1, Due::Now);
    bench.connected = true;
    bench.input(Input::Woken(TYPE));
    assert_eq!(bench.worker.rests(), None);
    bench.connected = false;
    bench.pass(LEASE / 4);
    assert!(matches!(&bench.wire[0], (_, Command::Heartbeat(_))));
    bench.end(bench.started[0].run, Ended::LeaseLost);
    assert_eq!(bench.worker.rests(), None);
    bench.answer();
    assert_eq!(bench.worker.rests(), Some(secs(3600)));
    bench.connected = true;
    bench.input(Input::ShutdownRequested);
    assert_eq!(bench.worker.rests(), None);
}

#[test]
fn a_later_job_starts_at_its_time_and_not_before() {
    let mut bench = Bench::with(|config| config.poll_interval_deaf = secs(3600));
    bench.spawn(1, Due::In(secs(60)));
    bench.pass(secs(60) - Duration::from_micros(1));
    assert!(bench.started.is_empty());
    bench.pass(Duration::from_micros(1));
    assert_eq!(bench.started.len(), 1);
}

#[test]
fn a_full_claim_claims_again_as_soon_as_there_is_room() {
    let mut bench = Bench::with(|config| config.poll_interval_deaf = secs(3600));
    bench.spawn_many(1..=9);
    bench.pass(Duration::ZERO);
    assert_eq!(bench.started.len(), 4);
    for n in 0..9 {
        let run = bench.started[n].run;
        bench.end(run, Ended::Completed);
    }
    assert_eq!(bench.started.len(), 9);
}

#[test]
fn while_many_run_places_are_gathered_for_a_moment_and_no_longer() {
    let mut bench = Bench::with(|config| config.jobs_min = 2);
    bench.spawn_many(1..=6);
    bench.pass(Duration::ZERO);
    for n in 0..2 {
        let run = bench.started[n].run;
        bench.end(run, Ended::Completed);
    }
    bench.pass(GATHER_TIME - Duration::from_micros(1));
    assert_eq!(
        bench.started.len(),
        4,
        "two of four run, and one claim may fill both"
    );
    bench.pass(Duration::from_micros(1));
    assert_eq!(bench.started.len(), 6, "no place is free for longer");
}

#[test]
fn while_few_run_a_place_is_filled_at_once() {
    let mut bench = Bench::with(|config| config.jobs_min = 2);
    bench.spawn_many(1..=6);
    bench.pass(Duration::ZERO);
    for n in 0..3 {
        let run = bench.started[n].run;
        bench.end(run, Ended::Completed);
    }
    assert_eq!(bench.started.len(), 6, "one of four ran");
}

/// Nothing was claimed while as many jobs ran as claims are gathered from.
#[test]
fn long_runs_below_the_maximum_keep_no_due_job_waiting() {
    let mut bench = Bench::with(|config| config.jobs_min = 2);
    bench.spawn_many(1..=2);
    bench.pass(secs(1));
    assert_eq!(bench.started.len(), 2);
    bench.spawn(3, Due::Now);
    bench.input(Input::Woken(TYPE));
    assert_eq!(bench.started.len(), 3);
}

#[test]
fn a_job_that_is_put_back_is_due_here_too() {
    let mut bench = Bench::with(|config| config.poll_interval_deaf = secs(3600));
    let job = bench.spawn(1, Due::Now);
    bench.pass(Duration::ZERO);
    let run = bench.started[0].run;
    bench.end(run, Ended::Aborted);
    assert_eq!(bench.ends(job), [RunEnd::Interrupted]);
    assert_eq!(bench.started.len(), 2);
}

#[test]
fn ends_gather_while_one_batch_is_under_way() {
    let mut bench = Bench::new();
    bench.spawn_many(1..=4);
    bench.pass(Duration::ZERO);
    bench.connected = false;
    for n in 0..4 {
        let run = bench.started[n].run;
        bench.end(run, Ended::Completed);
    }
    let batches = |bench: &Bench| -> Vec<usize> {
        let finishes = bench.wire.iter().filter_map(|(_, command)| match command {
            Command::Finish(batch) => Some(batch.len()),
            _ => None,
        });
        finishes.collect()
    };
    assert_eq!(batches(&bench), [1]);
    bench.answer();
    bench.answer();
    assert_eq!(batches(&bench), [3]);
}

#[test]
fn a_claim_whose_reply_was_lost_is_repeated_and_strands_nothing() {
    let mut bench = Bench::new();
    let job = bench.spawn(1, Due::Now);
    bench.connected = false;
    bench.pass(Duration::ZERO);
    bench.fail(true, unknown());
    assert_eq!(bench.job(job).state(), State::Running);
    bench.connected = true;
    bench.pass(secs(1));
    assert_eq!(bench.started.len(), 1);
    assert_eq!(bench.started[0].run.fence, Fence(1));
}

/// Found by the simulator: the worker ran more jobs than it may.
#[test]
fn a_claim_that_is_carried_out_after_its_repeat_does_not_overfill_the_worker() {
    let mut bench = Bench::with(|config| {
        config.jobs_max = 1;
        config.jobs_min = 1;
    });
    bench.spawn_many(1..=2);
    bench.connected = false;
    bench.pass(Duration::ZERO);
    // The claim and the look for lost jobs are on their way; the claim is late.
    let (op, late) = bench.wire.pop_front().expect("a claim was sent");
    bench.input(Input::Replied {
        op,
        result: Err(unknown()),
    });
    bench.answer();
    bench.pass(secs(1));
    // The repeat takes a job, and its reply is lost; then the first arrives.
    bench.fail(true, unknown());
    bench.model.apply(bench.now, &late).unwrap();
    bench.connected = true;
    bench.pass(secs(1));
    assert_eq!(bench.started.len(), 1, "{:?}", bench.started);
    let first = bench.started[0].run;
    bench.end(first, Ended::Completed);
    let second = bench.started[1].run;
    assert_eq!((second.fence, bench.started[1].attempt), (Fence(2), 1));
    bench.end(second, Ended::Completed);
    assert_eq!(bench.started.len(), 2);
}

#[test]
fn an_end_whose_reply_was_lost_is_recorded_once() {
    let mut bench = Bench::new();
    let job = bench.spawn(1, Due::Now);
    bench.pass(Duration::ZERO);
    bench.connected = false;
    let run = bench.started[0].run;
    bench.end(run, failed("no route"));
    let claims = bench.wire.len() - 1;
    for _ in 0..claims {
        bench.answer();
    }
    bench.fail(true, unknown());
    bench.connected = true;
    bench.pass(Duration::from_millis(200));
    assert_eq!(bench.ends(job), [RunEnd::Retried]);
    let lost = |seen: &Observation| matches!(seen, Observation::RunLost { .. });
    assert!(!bench.seen.iter().any(lost));
}

#[test]
fn failures_back_off_and_end_the_job_after_the_last_attempt() {
    let mut bench = Bench::with(|config| {
        config.types[0].retry = RetrySettings {
            n_attempts: Some(3),
            backoff_jitter_pct: 0,
            ..RetrySettings::default()
        };
    });
    let job = bench.spawn(1, Due::Now);
    for attempt in 1..=3 {
        bench.pass(secs(2));
        let started = bench.started.last().unwrap().clone();
        assert_eq!(started.attempt, attempt);
        bench.end(started.run, failed("no route"));
    }
    let runs = &bench.job(job).runs;
    let waits = runs.iter().filter_map(|run| {
        let due_at = run.next_due_at?;
        Some(due_at.saturating_since(run.ended_at).as_secs())
    });
    assert_eq!(waits.collect::<Vec<_>>(), [1, 2]);
    assert_eq!(bench.job(job).state(), State::Errored);
    assert_eq!(runs[2].error.as_ref().unwrap().as_str(), "no route");
}

#[test]
fn waiting_for_a_worker_does_not_count_as_a_healthy_run() {
    let mut bench = Bench::with(|config| {
        config.types[0].retry.n_attempts = Some(2);
    });
    let job = bench.spawn(1, Due::Now);
    bench.pass(Duration::ZERO);
    let run = bench.started[0].run;
    bench.end(run, failed("no route"));
    // No worker looks for an hour; then the job fails at once.
    bench.now = bench.now.saturating_add(secs(3600));
    bench.pass(Duration::ZERO);
    let run = bench.started[1].run;
    bench.end(run, failed("no route"));
    assert_eq!(bench.ends(job), [RunEnd::Retried, RunEnd::Errored]);
}

/// Found by the simulator: while the store was slow, a job that failed at once was
/// retried for ever.
#[test]
fn the_time_that_a_claim_takes_does_not_count_as_a_healthy_run() {
    let mut bench = Bench::new();
    let job = bench.spawn(1, Due::Now);
    bench.pass(Duration::ZERO);
    bench.end(bench.started[0].run, failed("no"));
    bench.connected = false;
    bench.pass(secs(2));
    bench.pass(secs(8));
    bench.connected = true;
    bench.answer();
    assert_eq!(bench.started[1].attempt, 2);
    bench.end(bench.started[1].run, failed("no"));
    let attempts: Vec<u32> = bench.job(job).runs.iter().map(|run| run.attempt).collect();
    assert_eq!(attempts, [1, 2]);
    assert_eq!(
        bench.job(job).live.as_ref().map(|live| live.attempt),
        Some(3)
    );
}

#[test]
fn store_errors_are_retried_ever_more_slowly() {
    let mut bench = Bench::new();
    bench.connected = false;
    bench.pass(Duration::ZERO);
    let mut waits = Vec::new();
    while waits.len() < 12 {
        while let Some((_, command)) = bench.wire.front() {
            let is_claim = matches!(command, Command::Claim(_));
            bench.fail(false, StoreError::Failed("away".into()));
            if let Some(Observation::StoreFailed { retry_in, .. }) = bench.seen.last()
                && is_claim
            {
                waits.push(*retry_in);
            }
        }
        let next = bench.worker.poll_timeout().unwrap();
        let wait = next.saturating_since(bench.now);
        bench.pass(wait);
    }
    assert!(waits[0] < Duration::from_millis(126));
    assert!(waits.windows(2).take(6).all(|w| w[0] < w[1]), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait < secs(19)));
    // They grow no more, and are not alike: workers do not come back as a herd.
    let longest: BTreeSet<_> = waits[8..].iter().collect();
    assert_eq!(longest.len(), waits[8..].len(), "{waits:?}");
}

#[test]
fn one_end_that_is_refused_does_not_keep_the_others_from_being_recorded() {
    let mut bench = Bench::new();
    let jobs: Vec<_> = (1..=3).map(|n| bench.spawn(n, Due::Now)).collect();
    bench.pass(Duration::ZERO);
    bench.connected = false;
    for n in 0..3 {
        let run = bench.started[n].run;
        bench.end(run, Ended::Completed);
    }
    let refused = || StoreError::Rejected(Rejection::Data("bad".into()));
    bench.answer();
    let mut refusals = 0;
    while let Some((_, command)) = bench.wire.front() {
        match command {
            Command::Finish(batch) if batch.iter().any(|finish| finish.run.job == jobs[2]) => {
                refusals += 1;
                bench.fail(false, refused());
            }
            _ => bench.answer(),
        }
    }
    assert_eq!(refusals, 2, "in its batch, and alone");
    assert_eq!(bench.job(jobs[1]).state(), State::Completed);
    assert_eq!(bench.job(jobs[2]).state(), State::Running);
    let alone = |seen: &Observation| matches!(seen, Observation::FinishRefused { .. });
    assert!(bench.seen.iter().any(alone));
}

#[test]
fn the_poll_interval_follows_whether_announcements_arrive() {
    let mut bench = Bench::new();
    bench.pass(secs(1));
    let wait = |bench: &Bench| {
        bench
            .worker
            .poll_timeout()
            .unwrap()
            .saturating_since(bench.now)
    };
    assert!(wait(&bench) <= Duration::from_millis(1_100));
    bench.input(Input::Listening(true));
    bench.worker.reclaim_at = Timestamp::MAX;
    assert!(wait(&bench) >= secs(54));
}

#[test]
fn a_run_that_the_caller_settled_is_not_finished_again() {
    let mut bench = Bench::new();
    let job = bench.spawn(1, Due::Now);
    bench.pass(Duration::ZERO);
    let run = bench.started[0].run;
    let finish = Command::Finish(vec![Finish {
        run,
        outcome: Outcome::Completed,
    }]);
    bench.model.apply(bench.now, &finish).unwrap();
    // A heartbeat crosses the commit and finds the run over.
    bench.pass(LEASE / 3);
    bench.end(run, Ended::Settled(Outcome::Completed));
    assert_eq!(bench.ends(job), [RunEnd::Completed]);
    let lost = |seen: &Observation| matches!(seen, Observation::RunLost { .. });
    assert!(!bench.seen.iter().any(lost));
}

/// Found by fuzzing: the ends that the reply left out were forgotten, and the
/// leases of their runs renewed for ever.
#[test]
fn an_end_that_a_reply_leaves_out_is_sent_again() {
    let mut bench = Bench::new();
    let job = bench.spawn(1, Due::Now);
    bench.pass(Duration::ZERO);
    bench.connected = false;
    bench.end(bench.started[0].run, Ended::Completed);
    let op = bench.take(|command| matches!(command, Command::Finish(_)));
    bench.connected = true;
    bench.input(Input::Replied {
        op,
        result: Ok(Reply::Finished(Vec::new())),
    });
    bench.pass(secs(1));
    assert_eq!(bench.ends(job), [RunEnd::Completed]);
}

/// Found by fuzzing: the worker panicked when such a job failed.
#[test]
fn a_job_of_a_type_that_was_not_asked_for_is_put_back_unstarted() {
    let mut bench = Bench::new();
    let job = bench.spawn(1, Due::Now);
    bench.connected = false;
    bench.pass(Duration::ZERO);
    let (op, command) = bench.wire.pop_front().expect("a claim was sent");
    let mut reply = bench.model.apply(bench.now, &command).unwrap();
    let Reply::Claimed(claimed) = &mut reply else {
        panic!("{reply:?} to {command:?}");
    };
    claimed.jobs[0].job_type = JobType::new("other");
    bench.connected = true;
    bench.input(Input::Replied {
        op,
        result: Ok(reply),
    });
    assert_eq!(bench.ends(job)[0], RunEnd::Released);
    let others = bench.started.iter().filter(|job| job.job_type != TYPE);
    assert_eq!(others.count(), 0);
}

/// Found by fuzzing: at the end of time every timer was due again at once, and the
/// driver did nothing else than to fire it.
#[test]
fn a_timer_at_the_end_of_time_is_never_due() {
    let mut bench = Bench::new();
    bench.now = Timestamp::MAX;
    bench.input(Input::TimerFired);
    assert_eq!(bench.worker.poll_timeout(), None);
    bench.input(Input::ShutdownRequested);
    assert!(bench.stopped);
}

#[test]
fn a_lease_and_periods_of_zero_are_lengthened() {
    let mut bench = Bench::with(|config| {
        config.lease = Duration::ZERO;
        (config.poll_interval, config.poll_interval_deaf) = (Duration::ZERO, Duration::ZERO);
    });
    bench.connected = false;
    bench.pass(Duration::ZERO);
    let Some((_, Command::Claim(claim))) = bench.wire.front() else {
        panic!("{:?}", bench.wire);
    };
    assert_eq!(claim.lease, Duration::from_millis(40));
    assert_eq!(bench.worker.config.poll_interval, Duration::from_millis(10));
    assert_eq!(bench.worker.poll_interval(), Duration::from_millis(10));
}

#[test]
fn a_config_that_nobody_can_decode_waits_for_half_as_long_as_it_has_waited() {
    for (since, wait) in [(0, 1), (2, 1), (60, 30), (120, 60), (3600, 60)] {
        assert_eq!(undecodable_wait(secs(since)), secs(wait));
    }
}

#[test]
fn ends_are_recorded_together_again_after_one_was_refused() {
    let mut bench = Bench::new();
    bench.spawn_many(1..=8);
    bench.pass(Duration::ZERO);
    bench.refused = Some(StoreError::Rejected(Rejection::Data("bad".into())));
    bench.connected = false;
    for nth in 0..3 {
        bench.end(bench.started[nth].run, Ended::Completed);
    }
    while !bench.wire.is_empty() {
        bench.answer();
    }
    bench.refused = None;
    let mut batches = Vec::new();
    for nth in 3..7 {
        bench.end(bench.started[nth].run, Ended::Completed);
    }
    while let Some((_, command)) = bench.wire.front() {
        if let Command::Finish(batch) = command {
            batches.push(batch.len());
        }
        bench.answer();
    }
    assert_eq!(batches, [1, 3]);
}

#[test]
fn a_runner_says_what_becomes_of_its_job() {
    let error = || ErrorText::new("the card has expired");
    let due = Due::In(secs(3));
    for (ended, outcome) in [
        (Ended::Snoozed(due), Outcome::Snoozed { due }),
        (Ended::Errored(error()), Outcome::Errored { error: error() }),
    ] {
        let mut bench = Bench::with(|config| config.poll_interval_deaf = secs(3600));
        bench.spawn(1, Due::Now);
        bench.pass(Duration::ZERO);
        let run = bench.started[0].run;
        bench.end(run, ended);
        assert_eq!(bench.ends(run.job), [outcome.end()]);
        // It is wanted when it is due, and not before the next poll if it is over.
        bench.pass(secs(3));
        let again = usize::from(!outcome.end().is_final());
        assert_eq!(bench.started.len(), 1 + again, "{outcome:?}");
    }
}

#[test]
fn a_job_that_was_rescheduled_in_its_transaction_runs_again_when_it_is_due() {
    let mut bench = Bench::with(|config| config.poll_interval_deaf = secs(3600));
    bench.spawn(1, Due::Now);
    bench.pass(Duration::ZERO);
    let run = bench.started[0].run;
    let outcome = Outcome::Rescheduled {
        due: Due::In(secs(3)),
    };
    let finish = Command::Finish(vec![Finish {
        run,
        outcome: outcome.clone(),
    }]);
    bench.model.apply(bench.now, &finish).unwrap();
    bench.end(run, Ended::Settled(outcome));
    bench.pass(secs(3));
    assert_eq!(bench.started.len(), 2);
}
