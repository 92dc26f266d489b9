//! Mistakes that can be switched on, to measure what a simulator finds.
//!
//! Most are made from outside: [`ModelStore`] and [`Worker`] stand around those that are
//! meant to be right, which know nothing of it, and alter what goes in and what comes out.
//! A few cannot be told from outside, and have a small branch where they are. The feature
//! `planted` makes the switch, and puts these two into the place of the right ones; without
//! it [`planted`] is a constant and nothing of the bugs is in the code. No application turns
//! the feature on.
//!
//! The switch belongs to the thread, so it is for runtimes of a single thread.

#[cfg(feature = "planted")]
mod store;
#[cfg(feature = "planted")]
mod worker;

#[cfg(feature = "planted")]
use std::cell::Cell;

#[cfg(feature = "planted")]
use serde::{Deserialize, Serialize};

#[cfg(feature = "planted")]
pub use store::ModelStore;
#[cfg(feature = "planted")]
pub use worker::Worker;

macro_rules! bugs {
    ($($bug:ident, $name:literal, $part:ident, $failure:expr, $what:literal;)*) => {
        /// A mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[cfg_attr(feature = "planted", derive(Serialize, Deserialize))]
        #[cfg_attr(feature = "planted", serde(rename_all = "snake_case"))]
        pub enum Bug {
            $(
                #[doc = concat!("In the ", stringify!($part), ": ", $what, ".")]
                $bug,
            )*
        }

        #[cfg(feature = "planted")]
        impl Bug {
            /// All of them.
            pub const ALL: [Self; [$(Self::$bug),*].len()] = [$(Self::$bug),*];

            /// What it is called on command lines and in reports.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$bug => $name,)*
                }
            }

            /// The mistake, as a reviewer would describe it.
            pub const fn what(self) -> &'static str {
                match self {
                    $(Self::$bug => $what,)*
                }
            }

            /// Its number in the list of how job systems fail in production, if
            /// it is there.
            pub const fn failure(self) -> Option<u8> {
                match self {
                    $(Self::$bug => $failure,)*
                }
            }

            /// Where it is.
            pub const fn part(self) -> Part {
                match self {
                    $(Self::$bug => Part::$part,)*
                }
            }
        }
    };
}

bugs! {
    ReclaimUnguarded, "reclaim_unguarded", Model, Some(1),
        "a reclaim ends the jobs that the reclaim before it saw lapsed, without looking at them again";
    ReclaimPageHidesOthers, "reclaim_page_hides_others", Model, Some(9),
        "a reclaim cuts its page before it leaves out the types that it does not know";
    ReclaimByClaimTime, "reclaim_by_claim_time", Model, Some(11),
        "a reclaim judges a lease by when the job was claimed, not by when it was renewed";
    ReclaimsEarly, "reclaims_early", Model, Some(11),
        "a reclaim takes leases that have a quarter of their time left";
    LostRunLosesState, "lost_run_loses_state", Model, None,
        "a job that is taken back loses its execution state";
    LostRunNotRecorded, "lost_run_not_recorded", Model, None,
        "the history leaves out runs whose lease ran out";
    CrashesNeverCounted, "crashes_never_counted", Model, Some(49),
        "a lost lease counts neither as a crash nor as an attempt";
    AbandonedJobVanishes, "abandoned_job_vanishes", Model, None,
        "a job that is given up after its crashes is deleted with its history";
    AbandonedJobGoesBack, "abandoned_job_goes_back", Model, Some(49),
        "a job that is given up after its crashes is pending again";
    FinishIgnoresFence, "finish_ignores_fence", Model, Some(14),
        "the end of a stale run ends the run that is current";
    FinishByWorkerOnly, "finish_by_worker_only", Model, Some(16),
        "the end of a stale run ends the current one if the same worker holds the lease";
    LateFinishRefused, "late_finish_refused", Model, None,
        "the end of a run is refused once its lease has run out, though nobody took the job";
    RepeatedFinishIsStale, "repeated_finish_is_stale", Model, Some(53),
        "the end of a run that is recorded already is called stale when it is sent again";
    HeartbeatRenewsAllOwned, "heartbeat_renews_all_owned", Model, Some(17),
        "a heartbeat renews every lease of its worker, also of runs that it does not name";
    StaleHeartbeatApplied, "stale_heartbeat_applied", Model, Some(2),
        "a heartbeat of a stale run is answered as if it had renewed the lease";
    CheckpointIgnoresFence, "checkpoint_ignores_fence", Model, Some(14),
        "a stale run overwrites the execution state";
    ClaimsEarly, "claims_early", Model, Some(37),
        "a claim takes jobs that are due within the next second";
    ClaimReusesFence, "claim_reuses_fence", Model, Some(16),
        "the fence does not rise at a claim after a release or a reschedule";
    RepeatedClaimTakesMore, "repeated_claim_takes_more", Model, Some(17),
        "a claim that is sent again takes other jobs instead of finding its own";
    ClaimOverQuota, "claim_over_quota", Model, None,
        "a claim takes one job of a type more than it was asked for";
    ClaimNewestFirst, "claim_newest_first", Model, Some(25),
        "a claim takes the newest of the due jobs first";
    ReleaseCountsAttempt, "release_counts_attempt", Model, None,
        "a job that a shutdown puts back loses an attempt";
    RescheduleKeepsAttempt, "reschedule_keeps_attempt", Model, None,
        "a rescheduled job does not start again at the first attempt";
    SnoozeCountsAttempt, "snooze_counts_attempt", Model, None,
        "a job that is snoozed loses an attempt";
    SnoozeForgetsState, "snooze_forgets_state", Model, None,
        "a job that is snoozed loses what its runner kept";
    RetryIgnoresDelay, "retry_ignores_delay", Model, None,
        "a failed job is due again at once";
    DelayFromDueTime, "delay_from_due_time", Model, Some(38),
        "delays count from when the job was due, not from when its run ended";
    HistoryWrongEnd, "history_wrong_end", Model, None,
        "the history calls a failed run that is retried a rescheduled one";
    UniqueFreedAtEnd, "unique_freed_at_end", Model, None,
        "a unique job can be spawned again after it ended";
    RepeatedSpawnIsDuplicate, "repeated_spawn_is_duplicate", Model, Some(53),
        "a spawn that is sent again finds its own job and calls it a duplicate";
    SpawnOverwrites, "spawn_overwrites", Model, None,
        "a spawn replaces a pending job that has the same id";
    UndecodableCountsAttempt, "undecodable_counts_attempt", Model, Some(50),
        "a job whose config cannot be decoded loses an attempt, and does not wait";
    DelayByWorkerClock, "delay_by_worker_clock", Engine, Some(35),
        "a reschedule after a delay is sent as a time of the worker's clock";
    NextDueByWorkerClock, "next_due_by_worker_clock", Engine, Some(35),
        "the store's time of the next due job is waited for on the worker's clock";
    LimitTruncatesThenSleeps, "limit_truncates_then_sleeps", Engine, Some(24),
        "a claim that took all it might is not followed by another until the next poll";
    TypesDoNotTakeTurns, "types_do_not_take_turns", Engine, Some(25),
        "when there are fewer places than types, the same types are always served";
    MinimumIsABan, "minimum_is_a_ban", Engine, None,
        "while the least number of jobs run that claims are gathered from, none is claimed";
    ClaimNeverShrinks, "claim_never_shrinks", Engine, Some(24),
        "a claim that brought more than arrives in time asks for as much again";
    WakeDuringClaimLost, "wake_during_claim_lost", Engine, Some(23),
        "a wake-up that crosses the reply to a claim is forgotten";
    CapIgnoresRunning, "cap_ignores_running", Engine, None,
        "a claim asks for as many jobs as may run, whatever runs already";
    UnknownClaimForgotten, "unknown_claim_forgotten", Engine, Some(53),
        "a claim whose outcome is unknown counts as failed and is not sent again";
    LateClaimNotReleased, "late_claim_not_released", Engine, Some(4),
        "jobs of a claim that is answered during a shutdown are dropped and not put back";
    RunCountsFromClaim, "run_counts_from_claim", Engine, None,
        "how long a run lasted counts from when its claim was sent, so that a slow store makes failures look healthy";
    LateClaimOverfills, "late_claim_overfills", Engine, None,
        "a repeated claim that finds more jobs than there is room for starts them all";
    AheadWithoutNeed, "ahead_without_need", Engine, None,
        "jobs are claimed ahead of their places though no run ends soon";
    AlwaysDry, "always_dry", Engine, None,
        "jobs are claimed ahead as if the worker had run out of jobs, also where it has not";
    ReadyKept, "ready_kept", Engine, Some(25),
        "a job that was claimed ahead is kept however long it finds no place";
    DrainStillStarts, "drain_still_starts", Engine, Some(15),
        "jobs of a claim that is answered during a shutdown are started";
    StopForgetsClaim, "stop_forgets_claim", Engine, Some(4),
        "a shutdown does not wait for the claim that is under way";
    NoJitter, "no_jitter", Engine, Some(33),
        "periods have no jitter";
    ListeningStopsPolling, "listening_stops_polling", Engine, Some(18),
        "a worker that hears announcements never polls";
    StoreErrorHammers, "store_error_hammers", Engine, Some(31),
        "there is next to no wait after a store error";
    HeartbeatTooLate, "heartbeat_too_late", Engine, Some(29),
        "heartbeats are sent after the lease has run out";
    HeartbeatsStopAtDrain, "heartbeats_stop_at_drain", Engine, Some(52),
        "no heartbeats are sent during a shutdown";
    HeartbeatsSkipEnded, "heartbeats_skip_ended", Engine, Some(52),
        "the lease of a run that has ended is not renewed until its end is recorded";
    HeartbeatFailureFreesPlaces, "heartbeat_failure_frees_places", Engine, Some(2),
        "a failed heartbeat makes the worker forget the runs that it named";
    LapseNotTold, "lapse_not_told", Engine, Some(13),
        "a runner is not told that its lease could not be renewed in time";
    LostNotAborted, "lost_not_aborted", Engine, Some(3),
        "a runner whose lease is lost is told, and never aborted";
    ReclaimDiesOnError, "reclaim_dies_on_error", Engine, Some(27),
        "after a reclaim that failed none is sent ever again";
    ShutdownNeverAborts, "shutdown_never_aborts", Engine, None,
        "a shutdown does not abort the runners that do not end by themselves";
    UnknownFinishDropped, "unknown_finish_dropped", Engine, Some(53),
        "ends of runs whose outcome is unknown count as recorded";
    RefusedBatchDropped, "refused_batch_dropped", Engine, Some(20),
        "one end that is refused takes the other ends of its batch along";
    FailureForGoodIsRetried, "failure_for_good_is_retried", Engine, None,
        "a failure that its runner says is final is tried again like any other";
    AbortCountsAsFailure, "abort_counts_as_failure", Engine, None,
        "a run that a shutdown aborts counts as a failed attempt";
    HealthySoon, "healthy_soon", Engine, Some(50),
        "a failed run counts as healthy once it lasted for a few times the wait before it";
    UndecodableForEver, "undecodable_for_ever", Engine, Some(50),
        "a job whose config nobody can decode is put back for ever";
    RetryKeepsAttempt, "retry_keeps_attempt", Engine, Some(50),
        "a failed run is retried at the same attempt, for ever";
    AttemptCapOffByOne, "attempt_cap_off_by_one", Engine, None,
        "a job is given one attempt more than it is allowed";
    BackoffIgnoresMax, "backoff_ignores_max", Engine, Some(47),
        "the backoff doubles beyond its maximum";
    BackoffOffByOne, "backoff_off_by_one", Engine, None,
        "the first backoff is doubled already";
    EndNotLogged, "end_not_logged", Engine, None,
        "operators are not told how runs end";
    StoreErrorNotLogged, "store_error_not_logged", Engine, None,
        "operators are not told that the store fails";
    StoreCallsNeverTimeOut, "store_calls_never_time_out", Driver, Some(26),
        "the driver waits for ever for the answer of the store";
    TimeoutIsFailure, "timeout_is_failure", Driver, Some(53),
        "a store call that takes too long counts as one that changed nothing";
    StopNotDelivered, "stop_not_delivered", Driver, None,
        "runners are not asked to stop";
    AbortNotDone, "abort_not_done", Driver, None,
        "runners are not aborted";
    PanicKillsReport, "panic_kills_report", Driver, Some(7),
        "the end of a run that panicked is never reported";
    DeafListener, "deaf_listener", Driver, Some(19),
        "the driver does not notice that announcements no longer arrive";
    WakesLostWhileBusy, "wakes_lost_while_busy", Driver, Some(23),
        "a wake-up from within the process is dropped while the store is being called";
    CompleterDiesWithCaller, "completer_dies_with_caller", Driver, Some(51),
        "a shutdown drops the store calls that are under way, and nobody hears of them again";
    CommitWithStaleLease, "commit_with_stale_lease", Driver, Some(14),
        "the transaction of a run whose lease is lost is committed";
    UnknownCommitIsSettled, "unknown_commit_is_settled", Driver, Some(53),
        "a commit that failed, or was not answered, counts as done";
    SpawnRetriesUnderNewToken, "spawn_retries_under_new_token", Driver, Some(53),
        "each try of a spawn whose outcome is unknown has a token of its own";
    UndecodableLoops, "undecodable_loops", Driver, Some(50),
        "a run for which no runner can be made is rescheduled instead of failed";
    StaleCheckpointHidden, "stale_checkpoint_hidden", Driver, Some(14),
        "a runner is not told that its checkpoint came too late";
    PanicEndsDriver, "panic_ends_driver", Driver, Some(7),
        "a run that panicked ends its driver, and nobody hears of it";
}

/// Where a bug is: what a simulation must contain to meet it.
#[cfg(feature = "planted")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Part {
    /// The commands of a store.
    Model,
    /// The decisions of a worker.
    Engine,
    /// The driver, and the service around it.
    Driver,
}

/// There is no bug with this name.
#[cfg(feature = "planted")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no planted bug {0:?}")]
pub struct UnknownBug(pub String);

#[cfg(feature = "planted")]
impl std::str::FromStr for Bug {
    type Err = UnknownBug;

    fn from_str(name: &str) -> Result<Self, UnknownBug> {
        let bug = Self::ALL.into_iter().find(|bug| bug.name() == name);
        bug.ok_or_else(|| UnknownBug(name.to_owned()))
    }
}

#[cfg(feature = "planted")]
impl std::fmt::Display for Bug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.name().fmt(f)
    }
}

#[cfg(feature = "planted")]
thread_local! {
    static SWITCH: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// The bug that is switched on in this thread.
#[cfg(feature = "planted")]
#[inline]
fn active() -> Option<Bug> {
    SWITCH.get()
}

/// Whether this bug is switched on in this thread.
#[cfg(feature = "planted")]
#[inline]
pub fn planted(bug: Bug) -> bool {
    SWITCH.get() == Some(bug)
}

/// Whether this bug is switched on: never, without the feature.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn planted(_: Bug) -> bool {
    false
}

/// Switches this bug on in this thread, and any other off. Returns the one that
/// was on.
#[cfg(feature = "planted")]
pub fn set(bug: Option<Bug>) -> Option<Bug> {
    SWITCH.replace(bug)
}

/// Calls `f` with this bug switched on; afterwards all is as before.
#[cfg(feature = "planted")]
pub fn with<T>(bug: Bug, f: impl FnOnce() -> T) -> T {
    struct Restore(Option<Bug>);
    impl Drop for Restore {
        fn drop(&mut self) {
            set(self.0);
        }
    }
    let _restore = Restore(set(Some(bug)));
    f()
}

#[cfg(all(test, feature = "planted"))]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_bug_is_found_by_its_name_and_no_two_share_one() {
        for bug in Bug::ALL {
            assert_eq!(bug.name().parse(), Ok(bug));
            assert!(!bug.what().is_empty());
        }
        let names: BTreeSet<_> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        assert_eq!(names.len(), Bug::ALL.len());
        let unknown = "no_such_bug".parse::<Bug>().unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "there is no planted bug \"no_such_bug\""
        );
    }

    #[test]
    fn nothing_is_planted_unless_it_is_switched_on() {
        let on = || Bug::ALL.into_iter().filter(|bug| planted(*bug)).count();
        assert_eq!(on(), 0);
        for bug in Bug::ALL {
            with(bug, || assert!(planted(bug) && on() == 1));
        }
        let panicked = std::panic::catch_unwind(|| with(Bug::NoJitter, || panic!("inside")));
        assert!(panicked.is_err());
        assert_eq!(on(), 0);
    }
}
