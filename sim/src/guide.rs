//! Simulating an application: how its code is written for that, and worked examples.
//!
//! # What a simulation is
//!
//! A [`Simulation`](crate::Simulation) starts workers in one thread: the service, the
//! driver and the engine that run in production, over a model of the database, at the far
//! end of a network that delays, loses and repeats what goes through it. Time is that of
//! a paused tokio runtime: it stands still while anything has something to do, and jumps
//! to the next timer when nothing has.
//!
//! For each seed it first simulates the test in peace, to learn when there is something
//! to disturb. Then it simulates it again, and things go wrong at such moments: processes
//! crash and come back, or crash at a certain point of the protocol; stand still and go
//! on, unaware that they lost their leases; are cut off; lose requests and replies; are
//! deployed anew. The database fails, hangs, restarts, and has its clock set. The clocks
//! of workers are wrong. After [`Simulation::lasting`](crate::Simulation::lasting)
//! nothing goes wrong any more, so that [`Sim::settle`](crate::Sim::settle) can ask that
//! every job ends.
//!
//! It is for tests alone. In what is built together with them, `job` has points at which
//! processes can die and switches for planted mistakes; so it belongs into the
//! `[dev-dependencies]`, and what ships is built by `cargo build` without tests, not with
//! `--all-targets`.
//!
//! # What it asks of the code
//!
//! - **Runners are generic over the backend**: `impl<B: Backend> JobRunner<B> for ...`. A
//!   [`Task`](job::Task) runs on every backend as it is. What they do with the application's own tables is behind a trait of the application,
//!   as in the [second example](#simulations-in-ci): SQL is not simulated. What is
//!   written in a [`SimulatedTransaction`](crate::SimulatedTransaction) takes effect with
//!   its commit, or not at all.
//! - **Other services are reached through a trait** of the application, too. What stands
//!   in for one calls [`Sim::call`](crate::Sim::call), so that calls take time and get
//!   lost. Without it, what stands in for a service is a perfect one.
//! - **Nothing is left to chance**, or a seed means nothing:
//!
//! | instead of | use |
//! |---|---|
//! | `Utc::now`, `SystemTime`, std's `Instant` | the clock of the job ([`CurrentJob::clock`](job::CurrentJob::clock)), or tokio's `Instant` |
//! | `rand`, `Uuid::new_v4` | a draw of [`Sim::draw`](crate::Sim::draw) behind a trait, or ids made of what they are about; [`JobId::new`](job::JobId::new) is safe |
//! | going through a `HashMap` or `HashSet` of std | a `BTreeMap`, or sorted keys |
//! | threads, `spawn_blocking`, sockets, files | a trait, and something simple in its place |
//! | `tokio::select!` | the same, `biased` |
//! | statics that change | what the test makes anew for each simulation |
//! | `tokio::spawn` or a `JoinSet` in a runner | futures that the runner itself awaits: a task of its own outlives the crash of its process, and nothing befalls it. Calls of other services in one are refused |
//!
//! tokio's timers and channels, `futures`, and everything that is computed are fine. A
//! panic anywhere fails the simulation, also where something catches it.
//!
//! Every tenth seed is simulated twice, and the two are compared event by event. Where
//! they differ, the failure says in what first, and whose doing it is: the runner, or
//! one of those at work in that process at that time.
//!
//! # What it does not find
//!
//! - What happens within Postgres or SQLite, such as deadlocks of the application's own
//!   statements, and what sqlx does.
//! - Races between threads: a process is one thread here. A crash comes where something
//!   is awaited, not between two statements.
//! - Two processes that are built differently.
//!
//! A hundred seeds are not a proof. To choose how many to run, plant a mistake and see at
//! which seed it is found.
//!
//! # A payment that is captured once
//!
//! A charge whose process dies before it has told anybody is charged again, unless the
//! bank is given a key that stays the same. The test is first run with one that does not,
//! and prints what the simulation finds: a crash between the charge and the end of the
//! job.
//!
#![doc = "```no_run"]
#![doc = include_str!("../../examples/payment_once.rs")]
#![doc = "```"]
//!
//! # Simulations in CI
//!
//! An order is paid, then shipped: each step is written in the transaction that ends its
//! job and that spawns the next one.
//!
#![doc = "```no_run"]
#![doc = include_str!("../../examples/simulation_in_ci/main.rs")]
#![doc = "```"]
//!
//! What must hold, in `tests.rs`:
//!
#![doc = "```text"]
#![doc = include_str!("../../examples/simulation_in_ci/tests.rs")]
#![doc = "```"]
//!
//! A hundred seeds for each change are enough to find what is common. Each night, other
//! ones look for what is rare:
//!
#![doc = "```yaml"]
#![doc = include_str!("../../examples/simulation_in_ci/simulations.yml")]
#![doc = "```"]
//!
//! A seed that failed is seen again with `JOB_SIM_SEEDS=` and its number, and is kept as
//! a test of its own by the scenario that the failure prints.
//!
//! # Properties
//!
//! [`Scenario`](crate::Scenario) is `Arbitrary`, so that `proptest` can choose what goes
//! wrong together with what there is to do, and makes both smaller: see its
//! [implementation](crate::Scenario#impl-Arbitrary-for-Scenario).
