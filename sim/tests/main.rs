//! The simulator as its users see it.

mod application;
mod cases;
mod cluster;
mod failures;
mod kept;
mod paused;
mod support;
