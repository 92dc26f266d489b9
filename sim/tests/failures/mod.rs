//! How other job systems failed, by hand: one small scenario each.
//!
//! The number above a test is that of a row in `SCENARIOS.md`, beside the sources
//! of this crate, which says what it is about. A test wants that nothing is
//! violated, that what it is about really happened, and, where there is a planted
//! bug of that kind, that the bug is found by the check that is named.

mod blocked;
mod ends;
mod stale;
mod support;
mod time;
