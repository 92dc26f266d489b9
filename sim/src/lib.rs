//! The simulator of `job`: any crash of many workers, replayed from a seed.
//!
//! A [`Scenario`] is data: workers, jobs and faults. It runs at three levels,
//! all of them over the same model store and under the same [`check`]s:
//!
//! | level | module | what is real |
//! |---|---|---|
//! | 1 | [`explorer`] | the engine |
//! | 2 | [`paused`] | the engine, the driver and the service, on a paused runtime |
//! | 3 | [`cluster`] | the engine and the driver, in hosts of a simulated network |
//!
//! `SCENARIOS.md` beside this crate's sources says which failure of other job
//! systems is simulated how.
//!
//! ```
//! use job_sim::Keep;
//! use job_sim::level::Level;
//!
//! let scenario = Level::Explorer.scenario(7);
//! let report = Level::Explorer.run(&scenario, Keep::default());
//! assert_eq!(report.violation, None);
//! let again = Level::Explorer.run(&scenario, Keep::default());
//! assert_eq!(report.hash, again.hash);
//! ```

mod application;
pub mod case;
pub mod check;
pub mod cluster;
pub mod event;
pub mod exhaustive;
pub mod explore;
pub mod explorer;
pub mod guide;
pub mod hash;
pub mod level;
pub mod mutants;
pub mod network;
mod observed;
mod panics;
pub mod paused;
pub mod recorder;
pub mod scenario;
pub mod shrink;
pub mod timeline;
pub mod trace;

pub use application::{Failure, Sim, SimulatedTable, Simulation, Unanswered};
pub use paused::backend::{Simulated, SimulatedOptions, SimulatedPool, SimulatedTransaction};
pub use recorder::{Keep, Recorder, Report};
pub use scenario::{Deployment, Scenario};
