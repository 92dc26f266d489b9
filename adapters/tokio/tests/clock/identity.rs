//! Which artificial clock it is.

use std::collections::BTreeSet;
use std::thread;

use job_tokio::{ArtificialClockConfig, ClockHandle, ClockId};

use crate::support::start;

fn ids_of_new_clocks() -> Vec<ClockId> {
    let configs = [
        ArtificialClockConfig::manual_at(start()),
        ArtificialClockConfig::auto_at(start(), 1.0),
    ];
    let ids = configs.into_iter().cycle().take(20).map(|config| {
        let (clock, _controller) = ClockHandle::artificial(config);
        clock.artificial_id().unwrap()
    });
    ids.collect()
}

#[tokio::test]
async fn clones_are_one_clock_and_it_stays_the_same_when_it_is_moved() {
    for config in [
        ArtificialClockConfig::manual(),
        ArtificialClockConfig::auto(2.0),
    ] {
        let (clock, controller) = ClockHandle::artificial(config);
        let id = clock.artificial_id();
        assert!(id.is_some());
        controller.advance(std::time::Duration::from_secs(60)).await;
        assert_eq!(clock.clone().artificial_id(), id);
    }
}

#[test]
fn no_two_clocks_are_the_same_whatever_they_show() {
    let others = thread::spawn(ids_of_new_clocks);
    let ids = [ids_of_new_clocks(), others.join().unwrap()].concat();
    let distinct: BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len());
}

#[tokio::test]
async fn a_clock_that_cannot_be_told_from_others_has_no_identity() {
    assert_eq!(ClockHandle::realtime().artificial_id(), None);
    assert_eq!(ClockHandle::tokio_time(start()).artificial_id(), None);
}
