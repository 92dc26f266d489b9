//! The history equals what happened: claims in order, attempts and crashes as
//! documented, due times kept, and every end one that its runner meant, or one
//! that its process explains.

use job_engine::lifecycle::RunEnd;
use job_engine::store::{AfterCrash, TypePolicy};

use super::case::{Case, JobCase, RunCase};
use super::{End, Findings};
use crate::processes::books::{Meant, Micros};
use crate::processes::workload::AS_ORDERED;

/// What a job must be like when it is claimed next.
struct Next {
    attempt: u32,
    crashes: u32,
    due_at: Micros,
}

pub fn judge(case: &Case<'_>, job: &JobCase<'_>, due_at: Option<Micros>, findings: &mut Findings) {
    let mut next = Next {
        attempt: 1,
        crashes: 0,
        due_at: due_at.unwrap_or(job.spec.spawned_at),
    };
    for (place, run) in (1_i64..).zip(&job.runs) {
        let end = run.end;
        let name = format!("job {} ({:?}), fence {}", end.job, job.kind, end.fence);
        let mut demand = |kept, rule, text: &dyn Fn() -> String| {
            findings.demand(kept, rule, || format!("{name}: {}", text()));
        };
        demand(end.fence == place, "history.fences", &|| {
            format!("{place} would be next")
        });
        demand(end.attempt == next.attempt, "history.attempt", &|| {
            format!("attempt {}, {} would be next", end.attempt, next.attempt)
        });
        demand(end.claimed_at >= next.due_at, "history.early", &|| {
            format!("claimed at {}, due at {}", end.claimed_at, next.due_at)
        });
        demand(end.ended_at >= end.claimed_at, "history.time", &|| {
            format!("claimed at {}, ended at {}", end.claimed_at, end.ended_at)
        });
        let alive = case.processes.get(&end.worker).is_some_and(|process| {
            let ended_at = process.ended_at.1 + case.terms.slack;
            (process.started_at..=ended_at).contains(&end.claimed_at)
        });
        demand(alive, "history.worker", &|| {
            let process = case.processes.get(&end.worker);
            format!("claimed at {} by {process:?}", end.claimed_at)
        });
        let last = place as usize == job.runs.len();
        demand(
            end.end.is_final() == (last && !job.spec.live),
            "history.order",
            &|| format!("{:?} as end {place} of {}", end.end, job.runs.len()),
        );
        demand(
            end.end.is_final() == end.next_due_at.is_none(),
            "history.due",
            &|| format!("{:?}, due again at {:?}", end.end, end.next_due_at),
        );
        let meant = run.seen.as_ref().and_then(|seen| seen.ending);
        let meant = meant.map(|(_, how)| how);
        demand(explained(case, run, meant), "history.unmeant", &|| {
            format!("{:?} ({:?}), its run: {:?}", end.end, end.error, run.seen)
        });
        if let Some(at) = end.next_due_at {
            demand(due_again(job, end, meant, at), "history.due", &|| {
                let after = at - end.ended_at;
                format!("{:?} ({meant:?}), due {after} µs after its end", end.end)
            });
        }
        let policy = policy(job);
        if matches!(end.end, RunEnd::Lost | RunEnd::Abandoned) {
            let after = policy.after_crash(end.attempt, next.crashes, std::time::Duration::ZERO);
            let fits = match after {
                AfterCrash::Retry { .. } => end.end == RunEnd::Lost,
                AfterCrash::Abandon(reason) => {
                    end.end == RunEnd::Abandoned && end.error.as_deref() == Some(reason)
                }
            };
            demand(fits, "cap.crashes", &|| {
                let crashes = next.crashes;
                format!("{:?} ({:?}) after {crashes} crashes", end.end, end.error)
            });
        }
        if end.end.is_failure() {
            let given_up = policy.attempts_max.is_some_and(|max| end.attempt >= max);
            demand(
                given_up == (end.end == RunEnd::Errored),
                "cap.attempts",
                &|| format!("{:?} at attempt {}", end.end, end.attempt),
            );
        }
        next = Next {
            attempt: match end.end {
                RunEnd::Lost | RunEnd::Retried => end.attempt + 1,
                RunEnd::Released | RunEnd::Interrupted | RunEnd::Undecodable | RunEnd::Snoozed => {
                    end.attempt
                }
                RunEnd::Rescheduled | RunEnd::Completed | RunEnd::Errored | RunEnd::Abandoned => 1,
            },
            crashes: match end.end {
                RunEnd::Lost => next.crashes + 1,
                RunEnd::Released | RunEnd::Interrupted | RunEnd::Undecodable => next.crashes,
                _ => 0,
            },
            due_at: end.next_due_at.unwrap_or(Micros::MAX),
        };
    }
}

fn policy(job: &JobCase<'_>) -> TypePolicy {
    TypePolicy {
        job_type: job.spec.job_type.clone().into(),
        attempts_max: job.kind.attempts_max(),
        crashes_max: job.kind.crashes_max(),
        healthy_after: job.kind.retry().healthy_after(),
    }
}

/// Whether a run ended as its runner meant, or was ended by what befell its
/// process.
fn explained(case: &Case<'_>, run: &RunCase<'_>, meant: Option<Meant>) -> bool {
    let end = run.end;
    match end.end {
        RunEnd::Completed => meant == Some(Meant::Complete),
        RunEnd::Rescheduled => matches!(
            meant,
            Some(Meant::RescheduleNow | Meant::RescheduleIn { .. } | Meant::RescheduleAt { .. })
        ),
        RunEnd::Snoozed => matches!(meant, Some(Meant::SnoozeIn { .. })),
        RunEnd::Retried | RunEnd::Errored => {
            meant == Some(Meant::Fail) && end.error.as_deref() == Some(AS_ORDERED)
        }
        // A worker without room, or one that is asked to shut down, puts back what it
        // has claimed and not begun.
        RunEnd::Released => run.seen.is_none(),
        RunEnd::Interrupted => {
            let process = case.processes.get(&end.worker);
            let asked = process.and_then(|process| process.asked_at);
            asked.is_some_and(|at| at <= end.ended_at) || case.was_left(end)
        }
        RunEnd::Undecodable => false,
        // `leases` asks for more.
        RunEnd::Lost | RunEnd::Abandoned => true,
    }
}

/// Whether a job was due again when it should be.
fn due_again(job: &JobCase<'_>, end: &End, meant: Option<Meant>, at: Micros) -> bool {
    let after = at - end.ended_at;
    match (end.end, meant) {
        (RunEnd::Lost | RunEnd::Released | RunEnd::Interrupted, _) => after == 0,
        (RunEnd::Rescheduled, Some(Meant::RescheduleNow)) => after == 0,
        (RunEnd::Rescheduled, Some(Meant::RescheduleIn { micros }))
        | (RunEnd::Snoozed, Some(Meant::SnoozeIn { micros })) => after == micros.cast_signed(),
        (RunEnd::Rescheduled, Some(Meant::RescheduleAt { at: wanted })) => at == wanted,
        (RunEnd::Retried, _) => {
            let retry = job.kind.retry();
            // The engine's own sum, with the least and the greatest draw.
            let least = retry.jittered_backoff(end.attempt, 0).as_micros();
            let most = retry.jittered_backoff(end.attempt, u64::MAX).as_micros();
            u128::try_from(after).is_ok_and(|after| (least..=most).contains(&after))
        }
        // Not meant, or over: other rules object.
        (RunEnd::Rescheduled | RunEnd::Snoozed, _) => true,
        (RunEnd::Completed | RunEnd::Errored | RunEnd::Abandoned | RunEnd::Undecodable, _) => false,
    }
}
