//! The engine without a store or runners that would take time.

use std::time::Instant;

use crate::engine::Engine;
use crate::ours::rate;
use crate::round::OURS;
use crate::{Result, Round};

/// Until all that grows has grown.
const WARM_UP: u64 = 100_000;

/// Inputs a second, on one core.
pub fn alone(round: &mut Round) -> Result<()> {
    let inputs = round.sizes.engine;
    let mut engine = Engine::new();
    engine.handle(WARM_UP);
    let start = Instant::now();
    engine.handle(inputs);
    let rate = rate(usize::try_from(inputs)?, start);
    round.record("engine alone", OURS, "inputs/s", rate);
    Ok(())
}
