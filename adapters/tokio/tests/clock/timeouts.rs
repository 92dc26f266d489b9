//! Time limits on a manual clock.

use std::future::{pending, ready};
use std::time::Duration;

use job_tokio::Elapsed;

use crate::support::{after, manual, on_each_runtime, secs};

#[test]
fn a_future_that_takes_too_long_is_cut_off_at_its_time_limit() {
    on_each_runtime(|| async {
        let (clock, controller) = manual();
        let sees = clock.clone();
        let task = tokio::spawn(clock.participate(async move {
            let result = sees.timeout(secs(5), pending::<()>()).await;
            (result, sees.now())
        }));
        assert_eq!(controller.advance(secs(9)).await, 1);
        assert_eq!(task.await.unwrap(), (Err(Elapsed), after(5)));
        assert_eq!(Elapsed.to_string(), "the time limit was reached");
    });
}

#[test]
fn a_future_that_is_done_in_time_keeps_its_output_and_frees_the_limit() {
    on_each_runtime(|| async {
        let (clock, controller) = manual();
        let sees = clock.clone();
        let task = tokio::spawn(clock.participate(async move {
            let mut timeout = sees.timeout(secs(5), sees.sleep(secs(4)));
            let result = (&mut timeout).await;
            (result, sees.now(), timeout)
        }));
        assert_eq!(controller.advance(secs(4)).await, 1);
        let (result, done_at, _timeout) = task.await.unwrap();
        assert_eq!((result, done_at), (Ok(()), after(4)));
        assert_eq!(controller.pending_wake_count(), 0);
    });
}

#[tokio::test]
async fn a_future_that_is_done_at_its_time_limit_counts_as_done() {
    let (clock, controller) = manual();
    let timeout = clock.timeout(secs(4), clock.sleep(secs(4)));
    let (result, _) = tokio::join!(timeout, controller.advance(secs(4)));
    assert_eq!(result, Ok(()));
    assert_eq!(clock.timeout(Duration::ZERO, ready(1)).await, Ok(1));
    assert_eq!(
        clock.timeout(Duration::ZERO, pending::<()>()).await,
        Err(Elapsed)
    );
}
