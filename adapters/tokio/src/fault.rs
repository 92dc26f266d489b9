//! Named places in the code at which a simulated process can die.
//!
//! Without the feature `sim` a fault point is an empty function. With it, a
//! simulator is asked at each of them, through a hook of its thread, whether the
//! process dies there. It is for runtimes of a single thread: tasks on other
//! threads do not see the hook.

#[cfg(feature = "sim")]
use std::cell::RefCell;
#[cfg(feature = "sim")]
use std::rc::Rc;

use job_engine::WorkerId;

/// All of them.
///
/// - `after_claim`, `after_finish`, `after_heartbeat`, `after_reclaim`: the
///   reply to such a command arrived, and the engine has not been told.
/// - `before_start`: the engine took a claimed job in, and its runner is not
///   started.
/// - `after_run`: a runner ended, and the engine has not been told.
/// - `before_release`: the ends of runs are about to be sent to the store, and
///   one of them gives its job back.
/// - `before_commit`: the end of a run is written in the runner's transaction,
///   which is not committed.
/// - `after_commit`: that transaction is committed, and nobody has been told.
/// - `after_spawn`: the reply to a spawn arrived, and the caller has not been
///   told.
pub const POINTS: [&str; 10] = [
    "after_claim",
    "after_finish",
    "after_heartbeat",
    "after_reclaim",
    "before_start",
    "after_run",
    "before_release",
    "before_commit",
    "after_commit",
    "after_spawn",
];

/// Says whether the process of this worker dies at this point.
#[cfg(feature = "sim")]
pub type Hook = Rc<dyn Fn(WorkerId, &'static str) -> bool>;

#[cfg(feature = "sim")]
thread_local! {
    static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

/// Sets the hook of this thread, or takes it away.
///
/// Where it says that the process dies, the task that asked never goes on. The
/// other tasks of that process do, until the simulator kills the driver
/// ([`DriverHandle::kill`](crate::DriverHandle::kill)), which it should do at
/// once, but not from within the hook.
#[cfg(feature = "sim")]
pub fn set_hook(hook: Option<Hook>) {
    HOOK.set(hook);
}

/// A place at which the process of `worker` can die; `point` is one of
/// [`POINTS`].
#[cfg(feature = "sim")]
pub async fn fault_point(worker: WorkerId, point: &'static str) {
    if dies_at(worker, point) {
        std::future::pending().await
    }
}

#[cfg(feature = "sim")]
fn dies_at(worker: WorkerId, point: &'static str) -> bool {
    debug_assert!(POINTS.contains(&point), "{point} is in the list of points");
    // Not borrowed during the call, so that a hook may replace itself.
    let hook = HOOK.with_borrow(Option::clone);
    hook.is_some_and(|hook| hook(worker, point))
}

/// Nothing.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub async fn fault_point(_: WorkerId, _: &'static str) {}
