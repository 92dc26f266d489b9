//! The cases, by what they are about. Their names are what they state.

pub mod checkpoint;
pub mod claim;
pub mod clock;
pub mod concurrent;
pub mod data;
pub mod find;
pub mod finish;
pub mod heartbeat;
pub mod limits;
pub mod reclaim;
pub mod script;
pub mod spawn;
