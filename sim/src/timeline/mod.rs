//! A simulation that a person can read: lanes of workers, with what led to the
//! violation.
//!
//! [`terminal`](terminal()) prints it, [`html`](html()) makes one page of it
//! that can be zoomed and searched. Both need a [`Report`](crate::Report) that
//! kept its trace ([`Keep::trace`](crate::Keep)); of one that did not they show
//! the result alone.

mod html;
mod process;
mod spans;
#[cfg(test)]
mod synthetic;
mod terminal;

pub use html::html;
pub use terminal::{Show, TerminalOptions, terminal};

/// Minutes, seconds and milliseconds; hours if there are any.
fn clock(us: u64) -> String {
    let (s, ms) = (us / 1_000_000, us / 1_000 % 1_000);
    let (h, m, s) = (s / 3_600, s / 60 % 60, s % 60);
    match h {
        0 => format!("{m:02}:{s:02}.{ms:03}"),
        _ => format!("{h}:{m:02}:{s:02}.{ms:03}"),
    }
}

#[cfg(test)]
mod tests {
    use super::clock;

    #[test]
    fn hours_are_shown_if_there_are_any() {
        assert_eq!(clock(61_002_999), "01:01.002");
        assert_eq!(clock(3_600_000_000 * 11 + 1_000), "11:00:00.001");
    }
}
