//! Events in words.

use job_engine::lifecycle::RunEnd;
use job_engine::store::{Spawned, Written};
use job_engine::worker::{Ended, Observation};
use job_engine::{Command, Due, Reply, Run};

use crate::scenario::job_key;
use crate::scenario::{Direction, Fault, MessageEffect, START, StoreTrouble};

pub(super) fn run_text(run: Run) -> String {
    format!("run {}#{}", job_key(run.job), run.fence)
}

pub(super) fn ended_text(ended: &Ended) -> String {
    match ended {
        Ended::Completed => "completes".to_owned(),
        Ended::Rescheduled(due) => format!("asks for another run {}", due_text(*due)),
        Ended::Snoozed(due) => format!("asks to be run again {}, at this attempt", due_text(*due)),
        Ended::Failed(error) => format!("fails: {error}"),
        Ended::Errored(error) => format!("fails for good: {error}"),
        Ended::Undecodable(error) => format!("cannot decode the config: {error}"),
        Ended::Settled(outcome) => {
            format!("has ended as {:?} in its transaction", outcome.end())
        }
        Ended::LeaseLost => "finds its lease lost, and is rolled back".to_owned(),
        Ended::Aborted => "ends by force".to_owned(),
    }
}

/// What operators are told, and of which run.
pub(super) fn logged_text(observation: &Observation) -> (Option<Run>, String) {
    match observation {
        Observation::RunEnded {
            run, end, retry_in, ..
        } => {
            let again = retry_in.map(|wait| format!(", tried again in {wait:?}"));
            let text = format!(
                "{} ended: {end:?}{}",
                run_text(*run),
                again.unwrap_or_default()
            );
            (Some(*run), text)
        }
        Observation::RunLost { run, .. } => (Some(*run), format!("{} is lost", run_text(*run))),
        Observation::OftenInterrupted {
            run, interruptions, ..
        } => {
            let text = format!(
                "{} is interruption {interruptions} in a row",
                run_text(*run)
            );
            (Some(*run), text)
        }
        Observation::SpecGone { run, .. } => (
            Some(*run),
            format!("{} has no job any more", run_text(*run)),
        ),
        Observation::FinishRefused { run, .. } => (
            Some(*run),
            format!("the end of {} is refused", run_text(*run)),
        ),
        Observation::Reclaimed(reclaimed) => {
            let run = reclaimed.run;
            (
                Some(run),
                format!("{} was lost: {:?}", run_text(run), reclaimed.end),
            )
        }
        Observation::StoreFailed {
            lane,
            failures,
            retry_in,
            ..
        } => {
            let text = format!("{lane:?} failed, {failures} in a row; again in {retry_in:?}");
            (None, text)
        }
        Observation::Draining { executing } => {
            (None, format!("shuts down with {executing} runners at work"))
        }
        Observation::Drained { unsettled } => {
            (None, format!("has shut down; {unsettled} runs are left"))
        }
    }
}

pub(super) fn command_text(command: &Command) -> String {
    let runs = |runs: &mut dyn Iterator<Item = Run>| {
        let runs: Vec<String> = runs
            .map(|run| format!("{}#{}", job_key(run.job), run.fence))
            .collect();
        runs.join(" ")
    };
    match command {
        Command::Spawn(jobs) => {
            let keys: Vec<String> = jobs.iter().map(|job| job_key(job.id).to_string()).collect();
            format!("spawn {}", keys.join(" "))
        }
        Command::Claim(claim) => {
            let quotas: Vec<String> = claim
                .quotas
                .iter()
                .map(|quota| format!("{}x{}", quota.jobs_max, quota.job_type))
                .collect();
            let again = if claim.repeat { " again" } else { "" };
            format!("claim {}{again} {}", claim.id.seq, quotas.join(" "))
        }
        Command::Finish(finishes) => {
            let ends: Vec<String> = finishes
                .iter()
                .map(|f| {
                    format!(
                        "{}#{} {:?}",
                        job_key(f.run.job),
                        f.run.fence,
                        f.outcome.end()
                    )
                })
                .collect();
            format!("finish {}", ends.join(", "))
        }
        Command::Heartbeat(heartbeat) => {
            format!("heartbeat of {}", runs(&mut heartbeat.runs.iter().copied()))
        }
        Command::Checkpoint(checkpoint) => {
            format!("checkpoint {}", runs(&mut [checkpoint.run].into_iter()))
        }
        Command::Hold(run) => format!("hold {}", runs(&mut [*run].into_iter())),
        Command::Reclaim(_) => "reclaim".to_owned(),
        Command::Find(job) => format!("find {}", job_key(*job)),
        Command::History(history) => format!("earlier runs of {}", job_key(history.job)),
    }
}

pub(super) fn reply_text(reply: &Reply) -> String {
    match reply {
        Reply::Spawned(spawned) => list(spawned, |spawned| match spawned {
            Spawned::Created => "created",
            Spawned::DuplicateId => "its id is taken",
            Spawned::DuplicateUniqueType(_) => "its type has its unique job",
        }),
        Reply::Claimed(claimed) if claimed.is_empty() => "claimed nothing".to_owned(),
        Reply::Claimed(claimed) => {
            let jobs: Vec<String> = claimed
                .jobs
                .iter()
                .map(|job| format!("{}#{}", job_key(job.run.job), job.run.fence))
                .collect();
            match claimed.left.len() {
                0 => format!("claimed {}", jobs.join(" ")),
                left => format!("claimed {}, and left {left}", jobs.join(" ")),
            }
        }
        Reply::Finished(written) => list(written, written_text),
        Reply::Heartbeat(written) => list(written, |written| match written {
            Written::Applied => "renewed",
            Written::Stale => "stale",
        }),
        Reply::Checkpointed(written) | Reply::Held(written) => written_text(written).to_owned(),
        Reply::Reclaimed(reclaimed) if reclaimed.is_empty() => "nothing is lost".to_owned(),
        Reply::Reclaimed(reclaimed) => {
            let jobs: Vec<String> = reclaimed
                .iter()
                .map(|r| {
                    let what = if r.end == RunEnd::Abandoned {
                        "gave up"
                    } else {
                        "took back"
                    };
                    format!("{what} {}#{}", job_key(r.run.job), r.run.fence)
                })
                .collect();
            jobs.join(", ")
        }
        Reply::Found(Some(_)) => "found".to_owned(),
        Reply::Found(None) => "not found".to_owned(),
        Reply::History(page) => format!("{} runs", page.runs.len()),
    }
}

/// Once if all are the same.
fn list<T: PartialEq>(items: &[T], text: impl Fn(&T) -> &'static str) -> String {
    match items {
        [first, rest @ ..] if rest.iter().all(|item| item == first) => text(first).to_owned(),
        items => items.iter().map(text).collect::<Vec<_>>().join(", "),
    }
}

fn written_text(written: &Written) -> &'static str {
    match written {
        Written::Applied => "done",
        Written::Stale => "stale",
    }
}

fn due_text(due: Due) -> String {
    match due {
        Due::Now => "now".to_owned(),
        Due::In(delay) => format!("in {} ms", delay.as_millis()),
        Due::At(at) => format!("at {} ms", at.saturating_since(START).as_millis()),
    }
}

/// A fault in words, without its times.
pub(crate) fn fault_text(fault: &Fault) -> String {
    let all = |worker: &Option<u32>| match worker {
        Some(worker) => format!("w{worker}"),
        None => "all workers".to_owned(),
    };
    match fault {
        Fault::Crash { worker, .. } => format!("crash of w{worker}"),
        Fault::CrashAt {
            worker, point, nth, ..
        } => format!("crash of w{worker} at {point}, time {nth}"),
        Fault::Pause { worker, .. } => format!("pause of w{worker}"),
        Fault::Lag { worker, lag_ms, .. } => format!("lag of w{worker} by {lag_ms} ms"),
        Fault::Net {
            worker,
            lose_request_pct,
            lose_reply_pct,
            duplicate_pct,
            delay_pct,
            delay_ms,
            ..
        } => {
            let how = [
                (*lose_request_pct, "of requests lost".to_owned()),
                (*lose_reply_pct, "of replies lost".to_owned()),
                (*duplicate_pct, "of requests doubled".to_owned()),
                (
                    *delay_pct,
                    format!("of messages late by up to {delay_ms} ms"),
                ),
            ];
            let how = how.iter().filter(|(pct, _)| *pct > 0);
            let how: Vec<String> = how.map(|(pct, what)| format!("{pct}% {what}")).collect();
            format!("bad network of {}: {}", all(worker), how.join(", "))
        }
        Fault::Partition {
            worker,
            direction,
            hold,
            ..
        } => {
            let what = match direction {
                Direction::Both => "no message",
                Direction::ToStore => "no request",
                Direction::FromStore => "no reply",
            };
            let hold = if *hold { ", until it is over" } else { "" };
            format!("partition of w{worker}: {what} arrives{hold}")
        }
        Fault::Message {
            worker,
            incarnation,
            op,
            effect,
        } => {
            let what = match effect {
                MessageEffect::LoseRequest => "the request is lost".to_owned(),
                MessageEffect::LoseReply => "the reply is lost".to_owned(),
                MessageEffect::DelayRequestMs(ms) => format!("the request is late by {ms} ms"),
                MessageEffect::DelayReplyMs(ms) => format!("the reply is late by {ms} ms"),
                MessageEffect::DuplicateMs(ms) => format!("it arrives again {ms} ms later"),
                MessageEffect::Refuse => "is refused".to_owned(),
                MessageEffect::Fail => "it fails".to_owned(),
                MessageEffect::UnknownDone => "unknown outcome, but done".to_owned(),
                MessageEffect::UnknownUndone => "unknown outcome, and not done".to_owned(),
            };
            format!("message {op} of w{worker}.{incarnation}: {what}")
        }
        Fault::Store { trouble, .. } => match trouble {
            StoreTrouble::Refuses => "the store refuses".to_owned(),
            StoreTrouble::Hangs => "the store hangs".to_owned(),
            StoreTrouble::SlowMs(ms) => format!("the store is slower by {ms} ms"),
            StoreTrouble::RejectsPct(pct) => format!("the store refuses {pct}% of commands"),
            StoreTrouble::ErrorsPct(pct) => format!("the store fails {pct}% of commands"),
        },
        Fault::StoreRestart { .. } => "restart of the store".to_owned(),
        Fault::ClockJump { worker, by_ms, .. } => {
            format!("clock of w{worker} jumps by {by_ms:+} ms")
        }
        Fault::StoreClockJump { by_ms, .. } => format!("clock of the store jumps by {by_ms:+} ms"),
        Fault::Deaf { worker, silent, .. } => {
            let silent = if *silent { ", unnoticed" } else { "" };
            format!("w{worker} hears no announcements{silent}")
        }
        Fault::Announcements {
            lose_pct,
            double_pct,
            ..
        } => format!("announcements: {lose_pct}% lost, {double_pct}% doubled"),
        Fault::Restart { worker, knobs, .. } => {
            let other = if knobs.is_some() {
                ", configured otherwise"
            } else {
                ""
            };
            format!("restart of w{worker}{other}")
        }
    }
}
