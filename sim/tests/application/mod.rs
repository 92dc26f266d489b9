//! Simulations of applications, as their developers see them.

mod documents;
mod failures;
mod faults;
mod processes;
mod property;
mod support;
mod tests;
mod transactions;
