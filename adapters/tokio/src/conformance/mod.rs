//! The suite that every store passes (feature `conformance`).
//!
//! Each case runs every command on the store and on the
//! [`ModelStore`](job_engine::ModelStore) in lockstep, and asserts that both
//! give the same reply; at the end, that both hold the same jobs. What a case is
//! about, it also states in literal values, so that the model is tested too.
//!
//! # For a store of your own
//!
//! [`conformance_tests!`](crate::conformance_tests) makes one test of each case,
//! which shows by its name. It takes an async function that opens a store
//! without jobs, and returns it with whatever has to outlive it: a directory, a
//! database to drop, or `()`.
//!
//! ```
//! use job_engine::Timestamp;
//! use job_tokio::MemoryStore;
//!
//! async fn empty_store() -> (MemoryStore, ()) {
//!     (MemoryStore::new(|| Timestamp::EPOCH), ())
//! }
//!
//! job_tokio::conformance_tests!(empty_store);
//! # fn main() {}
//! ```
//!
//! Put this into a file of `tests/`, with `job-tokio` (feature `conformance`)
//! and `tokio` (features `macros` and `rt-multi-thread`) among the
//! dev-dependencies. Where a store has more than one form, invoke the macro in
//! one module for each.

#[doc(hidden)]
pub mod cases;
mod fixtures;
mod generator;
mod harness;

#[doc(hidden)]
pub use harness::Harness;

use job_engine::{Command, Timestamp};

use crate::store::Store;

/// Makes one `#[tokio::test]` of each case of the suite. See
/// [`conformance`](crate::conformance).
#[macro_export]
macro_rules! conformance_tests {
    ($empty_store:expr) => {
        $crate::conformance_tests! { @cases $empty_store, spawn:
            a_job_that_is_spawned_is_pending_as_its_first_attempt,
            a_job_is_due_now_or_after_a_delay_or_at_a_time,
            a_job_that_was_due_in_the_past_is_claimed_at_once,
            another_job_with_the_same_id_is_refused_and_changes_nothing,
            a_repeat_of_a_spawn_is_created_and_changes_nothing,
            a_repeat_of_a_spawn_is_created_even_when_the_job_is_over,
            a_type_has_one_unique_job_ever,
            a_repeat_of_a_unique_spawn_is_created,
            a_unique_job_and_ordinary_ones_of_its_type_live_side_by_side,
            the_id_is_looked_at_before_the_unique_type,
            one_conflict_does_not_keep_the_rest_of_a_batch_out,
            the_jobs_of_one_batch_conflict_with_each_other,
            a_conflict_frees_its_id_for_the_rest_of_the_batch,
            an_empty_batch_creates_nothing,
            a_full_batch_is_created,
        }
        $crate::conformance_tests! { @cases $empty_store, claim:
            a_job_is_claimed_when_it_is_due_and_not_a_microsecond_before,
            a_claim_grants_a_lease_from_the_stores_now,
            a_claimed_job_brings_all_that_its_runner_needs,
            the_longest_due_job_is_first_and_ties_go_by_id,
            the_jobs_of_all_types_come_in_one_order,
            ids_are_ordered_by_their_bytes,
            each_type_has_a_quota_of_its_own,
            a_quota_of_zero_takes_nothing_and_hints_nothing,
            types_that_are_not_named_are_left_alone,
            types_are_told_apart_to_the_letter,
            a_type_without_jobs_gives_nothing,
            a_claim_without_types_takes_nothing,
            a_running_job_is_not_claimed_again,
            the_fence_rises_with_every_claim_and_is_never_used_twice,
            the_next_due_time_is_told_for_each_type_in_the_order_of_the_quotas,
            the_next_due_time_is_told_also_when_some_jobs_were_due,
            a_used_up_quota_tells_no_next_due_time,
            a_running_job_is_no_reason_to_claim_again,
            a_repeat_returns_the_same_jobs_with_their_lease_renewed,
            a_repeat_that_asks_for_fewer_names_the_others,
            a_repeat_leaves_out_what_ended_meanwhile,
            a_repeat_whose_jobs_have_all_ended_claims,
            a_repeat_of_a_claim_that_took_nothing_claims,
            a_repeat_does_not_return_the_jobs_of_another_claim,
            a_repeat_does_not_return_a_job_that_another_claim_has_taken_since,
            a_repeat_extends_a_lease_that_has_lapsed,
            a_repeat_without_types_only_looks,
            a_full_batch_is_claimed,
            many_types_are_claimed_at_once,
        }
        $crate::conformance_tests! { @cases $empty_store, finish:
            a_completed_job_is_over,
            an_errored_job_is_over_and_keeps_its_error,
            a_rescheduled_job_starts_again_at_its_first_attempt,
            a_snoozed_job_waits_at_its_attempt_and_keeps_its_state,
            a_rescheduled_job_is_due_now_or_after_a_delay_or_at_a_time,
            a_retried_job_waits_for_its_delay_from_the_stores_now,
            a_released_job_is_due_at_once_at_the_same_attempt,
            a_run_can_end_after_its_lease_lapsed_if_nobody_took_it_back,
            a_stale_fence_changes_nothing,
            a_fence_that_was_never_given_changes_nothing,
            an_unknown_job_is_stale,
            a_job_that_was_never_claimed_cannot_be_finished,
            a_repeat_of_an_end_is_applied_and_changes_nothing,
            a_repeat_of_an_end_is_applied_even_when_the_job_runs_again,
            another_end_of_a_run_that_is_over_is_stale,
            each_end_of_a_batch_is_decided_for_itself,
            a_run_that_ends_resets_the_crashes,
            interruptions_are_counted_until_a_run_ends_otherwise,
            an_undecodable_job_waits_at_its_attempt_and_says_since_when,
            a_run_is_told_from_one_with_its_fence_by_its_claim,
            a_run_is_held_while_it_runs_and_nothing_changes,
            every_end_is_in_the_history_in_its_order,
            an_empty_batch_finishes_nothing,
            a_full_batch_is_finished,
        }
        $crate::conformance_tests! { @cases $empty_store, heartbeat:
            a_heartbeat_renews_the_lease_from_the_stores_now,
            a_heartbeat_can_shorten_a_lease,
            a_stale_heartbeat_changes_nothing,
            an_unknown_job_has_no_lease,
            a_lease_that_lapsed_is_renewed_if_nobody_took_the_job_back,
            each_run_of_a_heartbeat_is_decided_for_itself,
            an_empty_heartbeat_renews_nothing,
        }
        $crate::conformance_tests! { @cases $empty_store, checkpoint:
            a_checkpoint_is_kept_and_overwritten,
            a_checkpoint_survives_every_end_that_is_not_final,
            a_checkpoint_survives_a_crash,
            a_checkpoint_does_not_outlive_its_job,
            a_checkpoint_leaves_the_lease_alone,
            a_stale_checkpoint_changes_nothing,
            a_repeat_of_a_checkpoint_is_applied,
        }
        $crate::conformance_tests! { @cases $empty_store, reclaim:
            a_job_is_taken_back_when_its_lease_ends_and_not_before,
            a_heartbeat_puts_the_reclaim_off,
            a_job_that_was_taken_back_is_due_at_once_as_the_next_attempt,
            crashes_in_a_row_are_counted,
            a_job_that_crashes_too_often_is_abandoned,
            a_job_without_an_attempt_left_is_abandoned,
            a_limit_of_none_is_no_limit,
            a_limit_of_zero_is_a_limit_of_one,
            a_run_that_lived_long_enough_starts_the_counts_again,
            a_reclaim_looks_at_the_life_of_the_run_not_at_the_clock,
            types_that_are_not_named_are_left_alone,
            types_that_are_not_named_do_not_hide_the_others,
            the_smallest_ids_are_taken_back_first,
            each_type_has_a_policy_of_its_own,
            a_first_attempt_counts_however_long_it_lived,
            a_reclaim_of_nothing_does_nothing,
            a_job_that_was_finished_is_not_taken_back,
            a_pending_job_is_not_taken_back,
            the_loser_of_a_lease_can_write_nothing,
            an_old_run_cannot_end_a_new_one_of_the_same_worker,
            a_repeat_of_a_reclaim_takes_nothing_more,
        }
        $crate::conformance_tests! { @cases $empty_store, find:
            an_unknown_job_is_not_found,
            a_pending_job_is_found_with_all_its_parts,
            a_running_job_is_found_with_its_lease,
            a_job_that_is_over_is_found_with_its_whole_history,
            the_history_folds_to_the_state_at_every_step,
            a_long_history_is_read_page_by_page_from_its_end,
            a_job_that_does_not_exist_has_no_history,
            reading_changes_nothing,
        }
        $crate::conformance_tests! { @cases $empty_store, limits:
            a_job_type_that_is_not_allowed_is_refused_by_every_command,
            the_longest_job_type_is_accepted,
            too_long_a_text_is_refused,
            the_longest_trace_context_is_accepted,
            too_many_entries_are_refused,
            a_batch_with_one_refused_job_creates_none,
        }
        $crate::conformance_tests! { @cases $empty_store, data:
            a_config_of_ten_megabytes_is_kept,
            a_state_of_ten_megabytes_is_kept,
            json_comes_back_to_the_letter,
            an_error_comes_back_to_the_letter,
            a_job_type_can_hold_any_character_but_nul,
            an_empty_trace_context_is_not_a_missing_one,
            the_ends_of_time_can_be_due,
            the_ends_of_time_can_be_now,
            the_longest_durations_are_capped_at_the_end_of_time,
            a_fraction_of_a_microsecond_is_rounded_up,
            attempts_are_counted_to_the_end_of_31_bits,
            tokens_and_claim_numbers_use_all_their_bits,
            all_uuids_are_ids,
        }
        $crate::conformance_tests! { @cases $empty_store, clock:
            a_store_has_a_clock_of_its_own,
        }
        $crate::conformance_tests! { @cases $empty_store, script:
            a_random_script_of_seed_1_gives_what_the_model_gives,
            a_random_script_of_seed_2_gives_what_the_model_gives,
            a_random_script_of_seed_3_gives_what_the_model_gives,
            a_random_script_of_seed_4_gives_what_the_model_gives,
            a_random_script_of_seed_5_gives_what_the_model_gives,
            a_random_script_of_seed_6_gives_what_the_model_gives,
        }
        $crate::conformance_tests! { @cases $empty_store, concurrent:
            concurrent_claims_take_no_job_twice,
            concurrent_spawns_of_a_unique_job_create_one,
            concurrent_repeats_of_a_spawn_create_one_job,
            of_concurrent_ends_of_a_run_one_counts,
            of_concurrent_reclaims_one_takes_a_job,
            workers_drain_a_queue_and_run_each_job_once,
        }
    };
    (@cases $empty_store:expr, $module:ident: $($case:ident,)*) => {
        mod $module {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    $crate::conformance::check(
                        $empty_store,
                        $crate::conformance::cases::$module::$case,
                    )
                    .await;
                }
            )*
        }
    };
}

/// Carries out commands, each at its time, on a store without jobs and on the
/// model: for sequences that were found elsewhere, such as by a simulation.
///
/// # Panics
///
/// When the store gives another reply than the model, or holds other jobs at the
/// end; and when the model refuses a command.
pub async fn replay<S: Store>(
    empty_store: S,
    commands: impl IntoIterator<Item = (Timestamp, Command)>,
) {
    let mut harness = Harness::new(empty_store);
    for (at, command) in commands {
        harness.set_now(at);
        harness.run(command).await;
    }
    harness.compare_jobs().await;
}

/// Runs one case on a store that `empty_store` opens, then compares the jobs.
#[doc(hidden)]
pub async fn check<S: Store, G>(
    empty_store: impl AsyncFnOnce() -> (S, G),
    case: impl AsyncFnOnce(&mut Harness<S>),
) {
    let (store, _outlives_the_case) = empty_store().await;
    let mut harness = Harness::new(store);
    case(&mut harness).await;
    harness.compare_jobs().await;
}

#[cfg(test)]
mod tests {
    /// A case that is in no list would never run.
    #[test]
    fn every_case_is_in_the_list_of_its_module() {
        let (list, _) = include_str!("mod.rs").split_once("(@cases").unwrap();
        let files = [
            ("spawn", include_str!("cases/spawn.rs")),
            ("claim", include_str!("cases/claim.rs")),
            ("finish", include_str!("cases/finish.rs")),
            ("heartbeat", include_str!("cases/heartbeat.rs")),
            ("checkpoint", include_str!("cases/checkpoint.rs")),
            ("reclaim", include_str!("cases/reclaim.rs")),
            ("find", include_str!("cases/find.rs")),
            ("limits", include_str!("cases/limits.rs")),
            ("data", include_str!("cases/data.rs")),
            ("clock", include_str!("cases/clock.rs")),
            ("script", include_str!("cases/script.rs")),
            ("concurrent", include_str!("cases/concurrent.rs")),
        ];
        for (module, source) in files {
            let (_, listed) = list
                .split_once(&format!("@cases $empty_store, {module}:"))
                .unwrap();
            let (listed, _) = listed.split_once('}').unwrap();
            let listed: Vec<_> = listed
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .collect();
            let written: Vec<_> = source
                .split("pub async fn ")
                .skip(1)
                .map(|rest| rest.split_once('<').unwrap().0)
                .collect();
            assert_eq!(listed, written, "in {module}");
        }
    }
}
