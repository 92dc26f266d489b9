//! The artificial clock: what a wake-up costs among many sleepers, and what it costs
//! to cancel them all.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput};
use futures_util::future::join_all;
use job_tokio::ClockHandle;
use tokio::runtime::Builder;

const SLEEPERS: u32 = 10_000;
const CANCELLED: u32 = 30_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = Builder::new_current_thread()
        .build()
        .expect("a runtime can be made");
    let mut group = criterion.benchmark_group("clock");
    group.sample_size(20);
    group.throughput(Throughput::Elements(u64::from(SLEEPERS)));
    group.bench_function("wakes", |bencher| {
        bencher.iter_custom(|rounds| runtime.block_on(wakes(rounds)));
    });
    group.throughput(Throughput::Elements(u64::from(CANCELLED)));
    group.bench_function("cancels", |bencher| {
        let (clock, _controller) = ClockHandle::manual();
        let sleeps = || {
            let secs = (1..=CANCELLED).map(u64::from);
            secs.map(|secs| clock.sleep(Duration::from_secs(secs)))
                .collect::<Vec<_>>()
        };
        bencher.iter_batched(
            sleeps,
            |sleeps| drop(black_box(sleeps)),
            BatchSize::LargeInput,
        );
    });
    group.finish();
    criterion.final_summary();
}

/// How long it takes that each of many tasks is woken so many times, at times of its own.
async fn wakes(rounds: u64) -> Duration {
    let (clock, controller) = ClockHandle::manual();
    let tasks = (1..=SLEEPERS).map(|n| {
        let clock = clock.clone();
        tokio::spawn(clock.participate({
            let clock = clock.clone();
            async move {
                clock.sleep(Duration::from_millis(n.into())).await;
                for _ in 1..rounds {
                    clock.sleep(Duration::from_millis(SLEEPERS.into())).await;
                }
            }
        }))
    });
    let tasks: Vec<_> = tasks.collect();
    // They have all begun to sleep then.
    controller.advance(Duration::ZERO).await;
    let begun = Instant::now();
    let woken = controller
        .advance(Duration::from_millis(u64::from(SLEEPERS) * rounds))
        .await;
    let took = begun.elapsed();
    assert_eq!(woken as u64, u64::from(SLEEPERS) * rounds);
    join_all(tasks).await;
    took
}
