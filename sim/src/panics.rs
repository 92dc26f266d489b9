//! Panics that nobody planned. In tasks, tokio and the driver catch them; here
//! they are found all the same.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::panic::PanicHookInfo;
use std::rc::Rc;
use std::sync::Once;

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static KEPT: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// While it lives, panics of this thread are kept instead of printed. The panics
/// of runners that a scenario asks for are not among them: those go around the
/// hook.
pub(crate) struct Watch {
    _of_this_thread: PhantomData<Rc<()>>,
}

impl Watch {
    pub(crate) fn new() -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let otherwise = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                if WATCHED.get() {
                    keep(info);
                } else {
                    otherwise(info);
                }
            }));
        });
        KEPT.set(Vec::new());
        WATCHED.set(true);
        Self {
            _of_this_thread: PhantomData,
        }
    }

    /// The first panic, if there was any. None is kept from then on.
    pub(crate) fn first(&self) -> Option<String> {
        KEPT.take().into_iter().next()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHED.set(false);
    }
}

fn keep(info: &PanicHookInfo<'_>) {
    KEPT.with_borrow_mut(|kept| kept.push(info.to_string()));
}

/// The last panic of this thread that was kept: where it happened, and what it says.
pub(crate) fn last() -> Option<(String, String)> {
    let last = KEPT.with_borrow(|kept| kept.last().cloned())?;
    let (place, text) = last.split_once('\n').unwrap_or((&last, ""));
    let place = place.trim_start_matches("panicked at ");
    Some((place.trim_end_matches(':').to_owned(), text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::panic::{catch_unwind, resume_unwind};

    use super::*;

    #[test]
    fn a_panic_is_kept_unless_it_was_planned() {
        let watch = Watch::new();
        let planned = catch_unwind(|| resume_unwind(Box::new("planned")));
        assert!(planned.is_err());
        assert_eq!(watch.first(), None);
        let unplanned = catch_unwind(|| panic!("nobody planned this"));
        assert!(unplanned.is_err());
        let first = watch.first().expect("it is kept");
        assert!(first.contains("nobody planned this"), "{first}");
        assert_eq!(watch.first(), None);
    }
}
