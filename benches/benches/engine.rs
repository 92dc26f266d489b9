//! The engine alone, in inputs a second: a runner that ended, or a store that answered.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use job_bench::engine::Engine;

/// Inputs before the clock starts, until all that grows has grown.
const WARM_UP: u64 = 100_000;
/// Inputs of one iteration: one would be of the order of reading the clock.
const INPUTS: u64 = 1_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut engine = Engine::new();
    engine.handle(WARM_UP);
    let mut group = criterion.benchmark_group("engine");
    group.throughput(Throughput::Elements(INPUTS));
    group.bench_function("inputs", |bencher| {
        bencher.iter(|| black_box(&mut engine).handle(INPUTS));
    });
    group.finish();
    criterion.final_summary();
}
