//! Jobs that their worker cannot run, or run to the end.

use super::*;

#[test]
fn a_config_that_cannot_be_decoded_costs_no_attempt_until_a_deploy_is_long_over() {
    let mut bench = Bench::new();
    let job = bench.spawn(1, Due::Now);
    let undecodable = || Ended::Undecodable(ErrorText::new("unknown variant"));
    let mut waits = Vec::new();
    while bench.job(job).state() != State::Errored {
        bench.pass(secs(90));
        for started in std::mem::take(&mut bench.started) {
            assert_eq!(started.attempt, 1);
            bench.end(started.run, undecodable());
        }
        waits.extend(bench.seen.drain(..).filter_map(|seen| match seen {
            Observation::RunEnded { retry_in, .. } => retry_in,
            _ => None,
        }));
    }
    assert!(waits.is_sorted() && waits[0] == secs(1) && waits.last() == Some(&secs(60)));
    let runs = &bench.job(job).runs;
    let lasted = runs
        .last()
        .unwrap()
        .ended_at
        .saturating_since(runs[0].ended_at);
    assert!(
        lasted >= secs(3600) && lasted < secs(3600 + 180),
        "{lasted:?}"
    );
    assert_eq!(
        runs.last().unwrap().error,
        Some(ErrorText::new("unknown variant"))
    );
    assert_eq!(runs.last().unwrap().end, RunEnd::Errored);
}

#[test]
fn a_job_that_one_program_can_decode_forgets_that_another_could_not() {
    let mut bench = Bench::new();
    let job = bench.spawn(1, Due::Now);
    bench.pass(Duration::ZERO);
    let error = ErrorText::new("unknown variant");
    bench.end(bench.started[0].run, Ended::Undecodable(error));
    assert!(
        bench
            .job(job)
            .live
            .as_ref()
            .unwrap()
            .undecodable_since
            .is_some()
    );
    bench.pass(secs(2));
    bench.end(bench.started[1].run, failed("no"));
    assert_eq!(
        bench.job(job).live.as_ref().unwrap().undecodable_since,
        None
    );
    assert_eq!(bench.ends(job), [RunEnd::Undecodable, RunEnd::Retried]);
}

#[test]
fn a_job_that_is_interrupted_again_and_again_is_told_of() {
    let mut bench = Bench::with(|config| config.poll_interval_deaf = secs(3600));
    let job = bench.spawn(1, Due::Now);
    bench.pass(Duration::ZERO);
    for n in 1..=INTERRUPTIONS_WARN {
        let claimed = bench.started.pop().expect("it is started again");
        assert_eq!((claimed.attempt, claimed.interruptions), (1, n - 1));
        bench.end(claimed.run, Ended::Aborted);
    }
    let told = bench.seen.iter().filter_map(|seen| match seen {
        Observation::OftenInterrupted { interruptions, .. } => Some(*interruptions),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [INTERRUPTIONS_WARN]);
    bench.end(bench.started[0].run, failed("no"));
    assert_eq!(bench.job(job).live.as_ref().unwrap().interruptions, 0);
}

#[test]
fn a_job_whose_spec_is_gone_ends_at_once_and_others_go_on() {
    let mut bench = Bench::new();
    let (gone, other) = (bench.spawn(1, Due::Now), bench.spawn(2, Due::Now));
    bench.connected = false;
    bench.pass(Duration::ZERO);
    let (op, command) = bench.wire.pop_front().unwrap();
    let Ok(Reply::Claimed(mut claimed)) = bench.model.apply(bench.now, &command) else {
        panic!("{command:?}");
    };
    let job = claimed.jobs.remove(0);
    assert_eq!(job.run.job, gone);
    claimed.left.push(Left {
        run: job.run,
        job_type: job.job_type,
        why: LeftOut::SpecGone,
    });
    bench.connected = true;
    let result = Ok(Reply::Claimed(claimed));
    bench.input(Input::Replied { op, result });
    assert_eq!(bench.ends(gone), [RunEnd::Errored]);
    let error = bench.job(gone).runs[0].error.clone().unwrap();
    assert!(error.as_str().contains("job_specs"), "{error}");
    assert_eq!(bench.started[0].run.job, other);
}
