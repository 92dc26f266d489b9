//! The manual clock under loom: each model runs in all orders in which its threads can
//! take turns; the larger ones in those with at most two turns cut short.
//!
//! What is modelled is the code of the clock itself: its files are built here once more,
//! beside a [`sync`](clock::sync) that loom controls, so that neither a feature nor a
//! flag of the compiler is needed. A wake-up that is lost in some order leaves a thread
//! that waits for ever, which loom reports as a deadlock. Timers, and the runtime of
//! tokio with its tasks, are left out: each thread stands for one task.

#[path = "../../src/time.rs"]
mod time;

mod clock {
    #[allow(dead_code, reason = "the models need some of it")]
    #[path = "../../../src/clock/activity.rs"]
    mod activity;
    #[allow(dead_code, reason = "the models need some of it")]
    #[path = "../../../src/clock/attended.rs"]
    mod attended;
    #[allow(dead_code, reason = "the models need none of it")]
    #[path = "../../../src/clock/id.rs"]
    mod id;
    #[allow(dead_code, reason = "the models need some of it")]
    #[path = "../../../src/clock/manual.rs"]
    mod manual;
    #[path = "../../../src/clock/participant.rs"]
    mod participant;
    #[allow(dead_code, reason = "the models need some of it")]
    #[path = "../../../src/clock/sleepers.rs"]
    mod sleepers;

    mod models;
    mod net;
    mod patience;
    pub(super) mod sync;
}
