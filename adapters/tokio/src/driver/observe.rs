//! What the engine observes, as `tracing` spans and events.

use job_engine::lifecycle::RunEnd;
use job_engine::worker::{LaneKind, Observation};
use job_engine::{Command, WorkerId};
use tracing::{Span, debug, error, field, info, info_span, warn};

/// The span around a store command of a worker.
pub(super) fn command_span(worker: WorkerId, command: &Command) -> Span {
    match command {
        Command::Claim(claim) => {
            let jobs_max: u32 = claim.quotas.iter().map(|quota| quota.jobs_max).sum();
            tracing::debug_span!("job.poll_jobs", poller_id = %worker, jobs_max)
        }
        Command::Heartbeat(heartbeat) => {
            let jobs = heartbeat.runs.len();
            tracing::debug_span!("job.keep_alive", poller_id = %worker, jobs)
        }
        Command::Reclaim(_) => {
            tracing::debug_span!("job.detect_lost_jobs", poller_id = %worker)
        }
        Command::Finish(finishes) => {
            tracing::debug_span!("job.finish_jobs", poller_id = %worker, jobs = finishes.len())
        }
        Command::Spawn(_)
        | Command::Checkpoint(_)
        | Command::Hold(_)
        | Command::Find(_)
        | Command::History(_) => Span::none(),
    }
}

pub(super) fn observe(worker: WorkerId, observation: &Observation) {
    match observation {
        Observation::RunEnded { end, .. } if end.is_failure() => run_failed(observation),
        Observation::RunEnded {
            run,
            job_type,
            end: RunEnd::Undecodable,
            error: Some(message),
            retry_in,
            ..
        } => warn!(
            job_id = %run.job, %job_type, error = %message, retry_in = retry_in.map(field::debug),
            "this program cannot decode the config of the job: it is put back for one that can"
        ),
        Observation::RunEnded {
            run,
            job_type,
            attempt,
            end,
            ..
        } => {
            let span = match end {
                RunEnd::Completed => info_span!("job.complete_job", job_id = %run.job, %job_type),
                RunEnd::Rescheduled | RunEnd::Snoozed => {
                    info_span!("job.reschedule_job", job_id = %run.job, %job_type)
                }
                _ => info_span!("job.abort_job", job_id = %run.job, %job_type),
            };
            span.in_scope(|| debug!(attempt, ?end, "run ended"));
        }
        Observation::OftenInterrupted {
            run,
            job_type,
            interruptions,
        } => warn!(
            job_id = %run.job, %job_type, interruptions,
            "the job was interrupted once more, and none of its runs has ended otherwise \
             meanwhile: it may be longer than the time between two deploys; let it keep how \
             far it came (update_execution_state), or reschedule it in between"
        ),
        Observation::SpecGone { run, job_type } => {
            error!(job_id = %run.job, %job_type, "{}", job_engine::store::SPEC_GONE);
        }
        Observation::RunLost { run, job_type } => warn!(
            job_id = %run.job, fence = %run.fence, %job_type,
            "the run ended after its lease was lost: its end is not recorded"
        ),
        Observation::Reclaimed(reclaimed) => {
            let (job, job_type) = (reclaimed.run.job, &reclaimed.job_type);
            let attempt = reclaimed.attempt;
            info_span!("job.detect_lost_jobs", poller_id = %worker).in_scope(|| {
                if reclaimed.end == RunEnd::Abandoned {
                    error!(job_id = %job, %job_type, attempt, "lost job ended as errored");
                } else {
                    warn!(job_id = %job, %job_type, attempt, "lost job goes back to pending");
                }
            });
        }
        Observation::StoreFailed {
            lane,
            error,
            failures,
            retry_in,
        } => {
            let doing = match lane {
                LaneKind::Claim => "claim jobs",
                LaneKind::Finish => "record the ends of runs",
                LaneKind::Heartbeat => "renew leases",
                LaneKind::Reclaim => "look for lost jobs",
            };
            warn!(%error, failures, ?retry_in, "could not {doing}; trying again");
        }
        Observation::FinishRefused { run, error } => error!(
            job_id = %run.job, fence = %run.fence, %error,
            "the store refuses to record the end of the run; its lease will run out"
        ),
        Observation::Draining { executing } => {
            info!(poller_id = %worker, executing, "shutting down");
        }
        Observation::Drained { unsettled: 0 } => info!(poller_id = %worker, "shut down"),
        Observation::Drained { unsettled } => warn!(
            poller_id = %worker, unsettled,
            "shut down with unsettled runs; other workers take them over when their leases run out"
        ),
    }
}

fn run_failed(observation: &Observation) {
    let Observation::RunEnded {
        run,
        job_type,
        attempt,
        error: Some(message),
        retry_in,
        warning,
        ..
    } = observation
    else {
        return;
    };
    let (will_retry, retry_in) = (retry_in.is_some(), retry_in.map(field::debug));
    let span = info_span!("job.fail_job", job_id = %run.job, %job_type, attempt, will_retry);
    span.in_scope(|| match (will_retry, warning) {
        (false, _) => error!(error = %message, "job failed for the last time"),
        (true, true) => warn!(error = %message, retry_in, "job failed"),
        (true, false) => error!(error = %message, retry_in, "job failed"),
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use job_engine::store::Reclaimed;
    use job_engine::{ClaimId, ErrorText, Fence, JobId, JobType, Run};
    use uuid::Uuid;

    use super::*;
    use crate::log::Log;

    const WORKER: WorkerId = WorkerId(Uuid::nil());
    const RUN: Run = Run {
        job: JobId(Uuid::nil()),
        fence: Fence(3),
        claim: ClaimId {
            worker: WORKER,
            seq: 1,
        },
    };
    const TYPE: JobType = JobType::new("mail");
    const AGAIN: Option<Duration> = Some(Duration::from_secs(5));

    fn ended(end: RunEnd, retry_in: Option<Duration>, warning: bool) -> Observation {
        Observation::RunEnded {
            run: RUN,
            job_type: TYPE,
            attempt: 2,
            end,
            error: (end.is_failure() || end == RunEnd::Undecodable).then(|| ErrorText::new("oops")),
            retry_in,
            warning,
        }
    }

    fn reclaimed(end: RunEnd) -> Observation {
        Observation::Reclaimed(Reclaimed {
            run: RUN,
            job_type: TYPE,
            attempt: 2,
            end,
        })
    }

    #[test]
    fn each_end_is_told_with_its_span_and_as_loud_as_it_is_bad() {
        let log = Log::begin();
        for (observation, level, span, text) in [
            (
                ended(RunEnd::Completed, None, false),
                "DEBUG",
                "job.complete_job",
                "run ended",
            ),
            (
                ended(RunEnd::Rescheduled, None, false),
                "DEBUG",
                "job.reschedule_job",
                "run ended",
            ),
            (
                ended(RunEnd::Released, None, false),
                "DEBUG",
                "job.abort_job",
                "run ended",
            ),
            (
                ended(RunEnd::Retried, AGAIN, true),
                "WARN",
                "job.fail_job",
                "will_retry=true}: job failed error=oops retry_in=5s",
            ),
            (
                ended(RunEnd::Retried, AGAIN, false),
                "ERROR",
                "job.fail_job",
                "will_retry=true}: job failed error=oops retry_in=5s",
            ),
            (
                ended(RunEnd::Errored, None, false),
                "ERROR",
                "job.fail_job",
                "will_retry=false}: job failed for the last time error=oops",
            ),
            (
                ended(RunEnd::Undecodable, AGAIN, true),
                "WARN",
                "this program cannot decode",
                "error=oops retry_in=5s",
            ),
            (
                reclaimed(RunEnd::Lost),
                "WARN",
                "job.detect_lost_jobs",
                "lost job goes back to pending",
            ),
            (
                reclaimed(RunEnd::Abandoned),
                "ERROR",
                "job.detect_lost_jobs",
                "lost job ended as errored",
            ),
            (
                Observation::Drained { unsettled: 0 },
                "INFO",
                "shut down",
                "",
            ),
            (
                Observation::Drained { unsettled: 2 },
                "WARN",
                "unsettled runs",
                "unsettled=2",
            ),
        ] {
            observe(WORKER, &observation);
            let lines = log.lines();
            let [line] = &lines[..] else {
                panic!(
                    "{observation:?} is told in {} lines: {lines:?}",
                    lines.len()
                );
            };
            assert!(line.starts_with(level), "{observation:?}: {line}");
            assert!(
                line.contains(span) && line.contains(text),
                "{observation:?}: {line}"
            );
        }
    }
}
