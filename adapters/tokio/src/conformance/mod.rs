//! The suite that every store passes.
//!
//! Each case sends commands to the store and to the model, which is what says
//! what a command does ([`job_engine::ModelStore`]), and compares every reply;
//! at its end it compares every job with its history. What a case is about is
//! asserted besides, so that the model is tested, too.
//!
//! A new store runs the suite with a few lines. They give a test for each case,
//! each on a store of its own:
//!
//! ```
//! use job_engine::Timestamp;
//! use job_tokio::MemoryStore;
//!
//! mod conformance {
//!     # use super::*;
//!     /// An empty store, and what must live as long as it (a directory, say).
//!     async fn open() -> (MemoryStore, ()) {
//!         (MemoryStore::new(|| Timestamp::EPOCH), ())
//!     }
//!
//!     job_tokio::conformance_tests!(open);
//! }
//! # fn main() {}
//! ```

mod bench;
pub mod claim;
pub mod data;
pub mod finish;
pub mod lease;
pub mod reclaim;
pub mod script;
pub mod spawn;

pub use bench::Bench;

/// Makes a test of each case. The argument names an async function that
/// returns an empty store and whatever must live as long as it.
#[macro_export]
macro_rules! conformance_tests {
    ($open:path) => {
        $crate::conformance_tests! { @ $open,
            spawn: [
                a_job_is_created_pending_at_its_time,
                a_second_job_with_the_id_is_refused,
                a_repeated_spawn_is_no_duplicate,
                a_repeated_spawn_does_not_bring_an_ended_job_back,
                a_unique_type_has_one_job_for_ever,
                a_repeated_unique_spawn_is_no_duplicate,
                one_conflict_leaves_the_rest_of_the_batch_in,
                an_id_twice_in_a_batch_creates_the_first,
            ],
            claim: [
                a_job_is_taken_when_it_is_due_and_not_before,
                jobs_are_taken_in_the_order_of_due_time_and_id,
                quotas_limit_each_type_for_itself,
                types_that_are_not_named_are_left_alone,
                the_next_due_time_is_told_where_nothing_more_is_due,
                every_claim_has_a_new_fence,
                a_claim_brings_all_that_the_run_needs,
                a_repeated_claim_returns_the_same_jobs_and_takes_no_more,
                a_repeated_claim_that_took_nothing_takes_now,
                a_repeated_claim_leaves_out_what_has_ended,
                a_repeat_without_quotas_only_looks,
                concurrent_claims_take_no_job_twice,
            ],
            finish: [
                a_completed_job_is_over,
                an_errored_job_is_over_and_keeps_its_error,
                a_retried_job_is_due_after_its_delay,
                a_rescheduled_job_starts_again_at_attempt_one,
                a_reschedule_can_be_due_now_later_or_at_a_time,
                a_released_job_is_due_at_once_at_the_same_attempt,
                a_repeated_end_changes_nothing,
                a_different_end_after_the_first_is_stale,
                a_stale_fence_ends_nothing,
                an_unknown_job_cannot_end,
                a_pending_job_cannot_end,
                one_stale_end_leaves_the_rest_of_the_batch_in,
                a_large_batch_ends_at_once,
            ],
            lease: [
                a_heartbeat_renews_the_lease,
                a_heartbeat_renews_a_lapsed_lease_that_nobody_took,
                a_heartbeat_tells_which_runs_are_stale,
                a_heartbeat_of_an_old_run_does_not_renew_the_new_one,
                a_checkpoint_is_kept_until_the_job_ends,
                a_later_checkpoint_replaces_the_earlier,
                a_stale_checkpoint_changes_nothing,
            ],
            reclaim: [
                a_lease_lapses_exactly_at_its_end,
                a_lost_job_is_due_at_once_one_attempt_later,
                types_without_a_policy_are_left_alone_and_hide_no_others,
                lost_jobs_are_taken_back_in_pages,
                crashes_are_counted_apart_and_end_the_job,
                any_other_end_starts_the_count_of_crashes_again,
                a_long_healthy_run_starts_both_counts_again,
                the_last_attempt_can_be_lost,
                what_ended_is_not_reclaimed,
                the_loser_can_write_nothing,
                the_loser_can_write_nothing_when_it_runs_the_job_again,
            ],
            data: [
                an_unknown_job_is_not_found,
                a_job_is_found_with_its_whole_history,
                texts_come_back_to_the_letter,
                a_config_of_ten_megabytes_comes_back,
                times_and_durations_stay_in_range,
                what_is_not_allowed_is_refused_and_changes_nothing,
            ],
            script: [
                a_long_random_script_has_the_same_replies_as_the_model,
                a_second_random_script_has_the_same_replies_as_the_model,
                a_third_random_script_has_the_same_replies_as_the_model,
            ],
        }
    };
    (@ $open:path, $($module:ident: [$($case:ident),* $(,)?],)*) => {
        $(
            mod $module {
                $(
                    #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $case() {
                        use super::*;
                        let (store, _place) = $open().await;
                        let mut bench = $crate::conformance::Bench::new(store);
                        $crate::conformance::$module::$case(&mut bench).await;
                        bench.agree().await;
                    }
                )*
            }
        )*
    };
}
