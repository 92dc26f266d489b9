//! The clocks: what they show, whom they wake and when.

mod attended;
mod auto;
#[cfg(feature = "es-entity")]
mod es_entity;
mod forgotten;
mod global;
mod identity;
mod manual;
mod participants;
mod real;
mod support;
mod timeouts;
