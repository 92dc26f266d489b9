//! Simulations of applications, as their developers see them.

mod ci_file;
mod failures;
mod faults;
mod property;
mod support;
mod tests;
