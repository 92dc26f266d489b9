//! The simulator as its users see it.

mod cases;
mod cluster;
mod failures;
mod paused;
mod support;
