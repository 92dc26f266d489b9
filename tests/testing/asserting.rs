//! Where an assertion fails.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use chrono::DateTime;
use job::testing::{Seen, TestJobs};
use job::{JobId, JobType};
use serde_json::json;

use crate::support::TestInitializer;

thread_local! {
    /// The file in which this thread panicked last.
    static PANICKED_IN: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The text with which an assertion panics.
fn text_of_panic(assertion: impl FnOnce()) -> String {
    let panic = panic::catch_unwind(AssertUnwindSafe(assertion)).expect_err("it does not hold");
    *panic.downcast().expect("a text with what there is")
}

/// The file in which an assertion panics.
fn file_of_panic(assertion: impl FnOnce()) -> Option<String> {
    static HOOK: Once = Once::new();
    // It is that of the process: other tests go on to have theirs.
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let file = info.location().map(|location| location.file().to_owned());
            PANICKED_IN.set(file);
            before(info);
        }));
    });
    PANICKED_IN.take();
    let result = panic::catch_unwind(AssertUnwindSafe(assertion));
    assert!(result.is_err(), "the assertion holds");
    PANICKED_IN.take()
}

#[tokio::test]
async fn an_assertion_fails_where_it_is_made() {
    let mut test = TestJobs::memory().await;
    let any = test.add_initializer(TestInitializer::completing("any"));
    let (id, unknown) = (JobId::new(), JobId::new());
    any.spawn(id, json!(1)).await.unwrap();
    let pending = test.seen().await;
    test.drain().await;
    let ended = test.seen().await;
    let epoch = DateTime::UNIX_EPOCH;
    type Assertion<'a> = &'a dyn Fn(&Seen);
    let assertions: [(&Seen, Assertion<'_>); 13] = [
        (&ended, &|seen| _ = seen.assert_spawned(&any, &json!(2))),
        (&ended, &|seen| {
            seen.assert_spawned_times(&any, &json!(1), 2);
        }),
        (&ended, &|seen| {
            _ = seen.assert_due_at(&any, &json!(1), epoch);
        }),
        (&ended, &|seen| seen.assert_none_spawned(&any)),
        (&pending, &|seen| _ = seen.assert_completed(id)),
        (&pending, &|seen| _ = seen.assert_completed(unknown)),
        (&ended, &|seen| _ = seen.assert_pending(id)),
        (&ended, &|seen| _ = seen.assert_pending(unknown)),
        (&ended, &|seen| _ = seen.assert_errored_with(id, "")),
        (&ended, &|seen| _ = seen.assert_errored_with(unknown, "")),
        (&ended, &|seen| _ = seen.assert_failed_with(id, "")),
        (&ended, &|seen| _ = seen.assert_failed_with(unknown, "")),
        (&pending, &|seen| _ = seen.assert_failed_with(id, "down")),
    ];
    for (n, (seen, assertion)) in assertions.into_iter().enumerate() {
        let file = file_of_panic(|| assertion(seen));
        assert_eq!(file.as_deref(), Some(file!()), "assertion {n}");
    }
}

#[tokio::test]
async fn a_job_that_nothing_runs_is_said_to_be_one() {
    let mut test = TestJobs::memory().await;
    let any = test.add_initializer(TestInitializer::completing("any"));
    let id = JobId::new();
    any.spawn(id, json!(1)).await.unwrap();
    let reports = test.jobs().spawner::<u32>(JobType::new("report"));
    let report = reports.job(1).await.unwrap().id;
    // Before anything has run, and after.
    for drained in [false, true] {
        let seen = test.seen().await;
        for text in [
            text_of_panic(|| _ = seen.assert_completed(report)),
            text_of_panic(|| _ = seen.assert_errored_with(report, "")),
            text_of_panic(|| _ = seen.assert_failed_with(report, "")),
        ] {
            assert!(
                text.contains("no runner of `report` is registered"),
                "{text}"
            );
        }
        let text = text_of_panic(|| _ = seen.assert_failed_with(id, ""));
        assert!(!text.contains("registered"), "{text}");
        assert_eq!(test.drain().await, usize::from(!drained));
    }
}
