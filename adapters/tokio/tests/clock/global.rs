//! The clock of the process. One test, since it can be installed only once.

use std::future::pending;

use job_tokio::{ArtificialClockConfig, Clock, ClockHandle};

use crate::support::{after, secs, start};

#[tokio::test]
async fn the_global_clock_is_the_one_that_was_installed_first() {
    let controller = Clock::install_artificial(ArtificialClockConfig::manual_at(start()));
    let again = Clock::install_artificial(ArtificialClockConfig::auto(5.0));
    assert!(Clock::is_artificial() && Clock::is_manual());
    let task = tokio::spawn(Clock::handle().participate(async {
        Clock::sleep(secs(5)).await;
        let slept = Clock::now();
        let limited = Clock::timeout(secs(5), pending::<()>()).await;
        Clock::sleep_until(after(20)).await;
        (slept, limited.is_err())
    }));
    assert_eq!(again.advance(secs(20)).await, 3);
    assert_eq!(task.await.unwrap(), (after(5), true));
    assert_eq!(controller.now(), after(20));
    assert_eq!(Clock::manual_now(), Some(after(20)));
    assert_eq!(Clock::today(), after(20).date_naive());
    // Clocks of one's own are not affected.
    assert!(!ClockHandle::realtime().is_artificial());
}
