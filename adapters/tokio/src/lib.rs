//! Drives the engine of `job` on tokio, over any [`Store`].

pub mod store;

pub use store::{Store, Wake};
