//! Whether a target holds for an input.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use job_fuzz::{TARGETS, Target};

pub(crate) fn target(name: &str) -> Target {
    let target = TARGETS.into_iter().find(|target| target.name == name);
    target.unwrap_or_else(|| panic!("there is no target {name}"))
}

thread_local! {
    static WATCHES: Cell<bool> = const { Cell::new(false) };
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The first panic of a target on this input; `None` if its properties hold.
///
/// One in a task counts, which the runtime catches, but for its own thread. It
/// is not printed.
pub(crate) fn violation(target: Target, data: &[u8]) -> Option<String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let default = take_hook();
        set_hook(Box::new(move |info| {
            if WATCHES.get() {
                FIRST
                    .with_borrow_mut(|first| first.get_or_insert(info.to_string()).truncate(4_000));
            } else {
                default(info);
            }
        }));
    });
    WATCHES.set(true);
    let ended = catch_unwind(AssertUnwindSafe(|| (target.run)(data)));
    WATCHES.set(false);
    let first = FIRST.take();
    assert!(ended.is_ok() || first.is_some(), "a panic without a word");
    first
}
