//! Batches that are too long to arrive in time.

use super::*;

/// The same claim was sent again and again, and no job of any type ever ran.
#[test]
fn a_claim_that_brings_more_than_arrives_in_time_asks_for_half_down_to_one() {
    let mut bench = Bench::with(|config| {
        config.jobs_max = 50;
        config.poll_interval_deaf = secs(3600);
    });
    bench.spawn_many(1..=50);
    // A reply with more than three configs takes too long.
    bench.connected = false;
    let mut asked = Vec::new();
    for _ in 0..200 {
        bench.pass(secs(1));
        while let Some((_, command)) = bench.wire.front() {
            let Command::Claim(claim) = command else {
                bench.answer();
                continue;
            };
            asked.push(claim.quotas.iter().map(|quota| quota.jobs_max).sum::<u32>());
            let reply = bench.model.clone().apply(bench.now, command).unwrap();
            match reply {
                Reply::Claimed(claimed) if claimed.jobs.len() > 3 => bench.fail(true, unknown()),
                _ => bench.answer(),
            }
        }
        for job in std::mem::take(&mut bench.started) {
            bench.end(job.run, Ended::Completed);
        }
    }
    assert_eq!(asked[..6], [50, 50, 25, 12, 6, 3]);
    let left = bench
        .model
        .jobs()
        .filter(|job| job.state() != State::Completed);
    assert_eq!(left.count(), 0, "{asked:?}");
    let attempts = bench
        .model
        .jobs()
        .flat_map(|job| &job.runs)
        .map(|run| run.attempt);
    assert_eq!(attempts.max(), Some(1), "what was put back lost no attempt");
}

#[test]
fn a_batch_of_ends_that_takes_too_long_is_sent_in_parts() {
    let mut bench = Bench::new();
    bench.spawn_many(1..=4);
    bench.pass(Duration::ZERO);
    bench.connected = false;
    bench.end(bench.started[0].run, failed("long text"));
    for n in 1..4 {
        bench.end(bench.started[n].run, failed("long text"));
    }
    bench.answer();
    let sent = |bench: &Bench| match bench.wire.front() {
        Some((_, Command::Finish(batch))) => batch.len(),
        other => panic!("{other:?}"),
    };
    while !matches!(bench.wire.front(), Some((_, Command::Finish(_)))) {
        bench.answer();
    }
    assert_eq!(sent(&bench), 3);
    bench.fail(false, unknown());
    bench.wire.clear();
    bench.pass(secs(1));
    assert_eq!(sent(&bench), 1);
}
