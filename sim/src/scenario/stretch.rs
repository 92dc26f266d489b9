//! Longer times for the same scenario.

use super::{DueSpec, EndSpec, Fault, Knobs, Scenario};

/// Makes everything last longer: weeks of backoff instead of minutes.
pub(super) fn stretch(scenario: &mut Scenario, factor: u64) {
    scenario.horizon_ms *= factor;
    scenario.calm_from_ms *= factor;
    for of_type in &mut scenario.types {
        for retry in &mut of_type.retries {
            retry.min_backoff_ms *= factor;
            retry.max_backoff_ms *= factor;
        }
    }
    for worker in &mut scenario.workers {
        worker.start_ms *= factor;
        stretch_knobs(&mut worker.knobs, factor);
    }
    for job in &mut scenario.jobs {
        job.spawn_ms *= factor;
        job.again_ms = job.again_ms.map(|ms| ms * factor);
        job.due = match job.due {
            DueSpec::Now => DueSpec::Now,
            DueSpec::InMs(ms) => DueSpec::InMs(ms * factor),
            DueSpec::AtMs(ms) => DueSpec::AtMs(ms * factor),
        };
        for run in &mut job.runs {
            run.end = match run.end {
                EndSpec::RescheduleMs(ms) => EndSpec::RescheduleMs(ms * factor),
                EndSpec::RescheduleTxMs(ms) => EndSpec::RescheduleTxMs(ms * factor),
                EndSpec::SnoozeMs(ms) => EndSpec::SnoozeMs(ms * factor),
                EndSpec::SnoozeTxMs(ms) => EndSpec::SnoozeTxMs(ms * factor),
                end => end,
            };
        }
    }
    for fault in &mut scenario.faults {
        match fault {
            Fault::Crash { at_ms, back_ms, .. } => {
                *at_ms *= factor;
                *back_ms = back_ms.map(|ms| ms * factor);
            }
            Fault::Restart { at_ms, knobs, .. } => {
                *at_ms *= factor;
                if let Some(knobs) = knobs {
                    stretch_knobs(knobs, factor);
                }
            }
            Fault::CrashAt { back_ms, .. } => *back_ms *= factor,
            Fault::Pause { at_ms, for_ms, .. }
            | Fault::Lag { at_ms, for_ms, .. }
            | Fault::Net { at_ms, for_ms, .. }
            | Fault::Partition { at_ms, for_ms, .. }
            | Fault::Store { at_ms, for_ms, .. }
            | Fault::StoreRestart { at_ms, for_ms }
            | Fault::Deaf { at_ms, for_ms, .. }
            | Fault::Announcements { at_ms, for_ms, .. } => {
                *at_ms *= factor;
                *for_ms *= factor;
            }
            Fault::ClockJump { at_ms, .. } | Fault::StoreClockJump { at_ms, .. } => {
                *at_ms *= factor;
            }
            Fault::Message { .. } => {}
        }
    }
}

fn stretch_knobs(knobs: &mut Knobs, factor: u64) {
    knobs.lease_ms *= factor;
    knobs.poll_ms *= factor;
    knobs.poll_deaf_ms *= factor;
}
