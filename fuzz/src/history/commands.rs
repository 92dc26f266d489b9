//! Any commands to the model store: what it keeps folds to what it says, and
//! nothing that it kept is ever taken back.

use std::collections::{BTreeMap, BTreeSet};

use job_engine::history::{Live, RunRecord, Snapshot};
use job_engine::limits::{COUNT_MAX, HISTORY_LEN_MAX};
use job_engine::store::{Claim, Finish, NewJob, Outcome, Quota, Spawned};
use job_engine::{Command, JobId, ModelStore, Reply, Run, Timestamp};

use super::folded;
use crate::source::Source;

/// Commands that one input can send.
const COMMANDS_MAX: usize = 200;

pub(super) fn run(source: &mut Source<'_>) {
    let mut model = ModelStore::new();
    let mut now = Timestamp::EPOCH;
    for _ in 0..COMMANDS_MAX {
        if source.is_empty() {
            return;
        }
        now = match source.byte() {
            255 => source.timestamp(),
            odd if odd % 2 == 1 => now.saturating_add(source.duration()),
            _ => now,
        };
        let command = source.command();
        let before = jobs(&model);
        match model.apply(now, &command) {
            Ok(reply) => {
                assert_eq!(command.check(), Ok(()));
                fits(&command, &reply);
                follows(&before, &jobs(&model), now, &command);
                repeats(&mut model, now, &command, &reply);
            }
            Err(rejection) => {
                assert_eq!(command.check(), Err(rejection));
                assert_eq!(jobs(&model), before, "refused, and something changed");
            }
        }
    }
}

type Jobs = BTreeMap<JobId, Snapshot>;

fn jobs(model: &ModelStore) -> Jobs {
    model.jobs().map(|job| (job.id, job.clone())).collect()
}

/// The reply belongs to the command, and has an answer for each of its parts.
fn fits(command: &Command, reply: &Reply) {
    let fits = match (command, reply) {
        (Command::Spawn(jobs), Reply::Spawned(spawned)) => jobs.len() == spawned.len(),
        (Command::Claim(claim), Reply::Claimed(claimed)) => {
            let asked: u64 = claim.quotas.iter().map(|q| u64::from(q.jobs_max)).sum();
            let runs: BTreeSet<Run> = claimed.jobs.iter().map(|job| job.run).collect();
            assert_eq!(runs.len(), claimed.jobs.len(), "a job was claimed twice");
            claim.repeat || claimed.jobs.len() as u64 <= asked
        }
        (Command::Finish(ends), Reply::Finished(written)) => ends.len() == written.len(),
        (Command::Heartbeat(of), Reply::Heartbeat(written)) => of.runs.len() == written.len(),
        (Command::Checkpoint(_), Reply::Checkpointed(_)) => true,
        (Command::Reclaim(of), Reply::Reclaimed(jobs)) => jobs.len() <= of.jobs_max as usize,
        (Command::Find(id), Reply::Found(found)) => {
            found.as_ref().is_none_or(|snapshot| snapshot.id == *id)
        }
        (Command::History(of), Reply::History(page)) => {
            assert!(page.runs.is_sorted_by_key(|run| run.fence), "{page:?}");
            page.runs.len() <= HISTORY_LEN_MAX && page.runs.iter().all(|r| r.fence < of.before)
        }
        _ => false,
    };
    assert!(fits, "{command:?} was answered by {reply:?}");
}

/// Nothing vanishes, nothing changes that the command is not about, and histories
/// only grow.
fn follows(before: &Jobs, after: &Jobs, now: Timestamp, command: &Command) {
    for (id, old) in before {
        let new = after.get(id);
        let new = new.unwrap_or_else(|| panic!("{command:?} lost {old:?}"));
        assert!(
            old == new || may_change(old, now, command),
            "at {now} {command:?} made {new:?} of {old:?}"
        );
        let same = (
            &old.job_type,
            old.unique_type,
            &old.config,
            old.spawned_at,
            &old.trace,
        ) == (
            &new.job_type,
            new.unique_type,
            &new.config,
            new.spawned_at,
            &new.trace,
        );
        assert!(same, "{command:?} made {new:?} of {old:?}");
        assert!(
            new.runs.starts_with(&old.runs),
            "{command:?} rewrote the history of {old:?}: {new:?}"
        );
        // At most one run of a job ends at a time, and it was the one that ran.
        let ended = new.runs.get(old.runs.len()..).unwrap_or_default();
        let ran = old.live.as_ref().filter(|live| live.lease.is_some());
        let was_current = |run: &RunRecord| ran.is_some_and(|live| live.fence == run.fence);
        assert!(
            ended.len() <= 1 && ended.iter().all(was_current),
            "{command:?} ended what did not run in {old:?}: {new:?}"
        );
        if let (Some(old), Some(new)) = (&old.live, &new.live) {
            stays(old, new, command);
        }
    }
    for job in after.values() {
        consistent(job);
    }
    let unique: Vec<_> = after.values().filter(|job| job.unique_type).collect();
    let types: BTreeSet<_> = unique.iter().map(|job| &job.job_type).collect();
    assert_eq!(types.len(), unique.len(), "two unique jobs of one type");
}

/// Whether the command can have an effect on a job.
fn may_change(job: &Snapshot, now: Timestamp, command: &Command) -> bool {
    let Some(live) = &job.live else {
        return false;
    };
    let names = |run: &Run| live.run(job.id) == Some(*run);
    match (command, &live.lease) {
        (Command::Claim(claim), None) => {
            let asked = |quota: &Quota| quota.job_type == job.job_type && quota.jobs_max > 0;
            live.due_at <= now && claim.quotas.iter().any(asked)
        }
        (Command::Claim(claim), Some(lease)) => {
            claim.repeat && (lease.worker, lease.claim_seq) == (claim.id.worker, claim.id.seq)
        }
        (Command::Finish(ends), _) => ends.iter().any(|finish| names(&finish.run)),
        (Command::Heartbeat(heartbeat), _) => heartbeat.runs.iter().any(names),
        (Command::Checkpoint(checkpoint), _) => names(&checkpoint.run),
        (Command::Reclaim(reclaim), Some(lease)) => {
            let mut types = reclaim.policies.iter().map(|policy| &policy.job_type);
            lease.expires_at <= now && types.any(|of| *of == job.job_type)
        }
        (Command::Reclaim(_), None)
        | (Command::Spawn(_) | Command::Hold(_) | Command::Find(_) | Command::History(_), _) => {
            false
        }
    }
}

/// What a command leaves alone in a job that goes on.
fn stays(old: &Live, new: &Live, command: &Command) {
    let ended = old.lease.is_some() && new.lease.is_none();
    if !matches!(command, Command::Checkpoint(_)) {
        assert_eq!(new.state, old.state, "{command:?} changed the state");
    }
    match command {
        // A crash counts, alone or as one more; most other ends end the row.
        Command::Reclaim(_) if ended => {
            let more = old.crashes.saturating_add(1).min(COUNT_MAX);
            assert!(
                [1, more].contains(&new.crashes),
                "{command:?} made {new:?} of {old:?}"
            );
        }
        // What is put back says nothing about the job.
        Command::Finish(finishes) if ended => {
            let counts = |finish: &Finish| match finish.outcome {
                Outcome::Released | Outcome::Undecodable { .. } => (old.crashes, old.interruptions),
                Outcome::Interrupted => {
                    let more = old.interruptions.saturating_add(1).min(COUNT_MAX);
                    (old.crashes, more)
                }
                _ => (0, 0),
            };
            let mut of_run = finishes.iter().filter(|f| f.run.fence == old.fence);
            assert!(
                of_run.any(|finish| (new.crashes, new.interruptions) == counts(finish)),
                "{command:?} made {new:?} of {old:?}"
            );
        }
        _ => assert_eq!(
            (new.attempt, new.crashes, new.due_at),
            (old.attempt, old.crashes, old.due_at),
            "{command:?} made {new:?} of {old:?}"
        ),
    }
}

fn consistent(job: &Snapshot) {
    let state = job.state();
    assert_eq!(job.fold(), Some(state), "{job:?}");
    assert_eq!(folded(job), Some(state), "{job:?}");
    assert_eq!(state.is_final(), job.live.is_none(), "{job:?}");
    // Every claim has the next fence, and its run is kept.
    let fences = job.runs.iter().map(|run| run.fence.0);
    assert!(fences.eq(1..=job.runs.len() as i64), "{job:?}");
    if let Some(live) = &job.live {
        let claims = job.runs.len() + usize::from(live.lease.is_some());
        assert_eq!(live.fence.0, claims as i64, "{job:?}");
        assert!(live.attempt <= COUNT_MAX, "{job:?}");
        assert!(live.crashes <= COUNT_MAX, "{job:?}");
    }
    for run in &job.runs {
        assert_eq!(run.next_due_at.is_none(), run.end.is_final(), "{job:?}");
    }
}

/// The same command again gives the same answer and changes nothing.
fn repeats(model: &mut ModelStore, now: Timestamp, command: &Command, reply: &Reply) {
    let before = jobs(model);
    match (command, reply) {
        (Command::Claim(claim), Reply::Claimed(first)) if !first.jobs.is_empty() => {
            let again = Command::Claim(Claim {
                repeat: true,
                ..claim.clone()
            });
            let Ok(Reply::Claimed(again)) = model.apply(now, &again) else {
                panic!("a claim that is repeated is refused");
            };
            let found = |job| again.jobs.contains(job);
            assert!(first.jobs.iter().all(found), "{again:?} after {first:?}");
        }
        // Two jobs with one id and token are one spawn to the store.
        (Command::Spawn(new), Reply::Spawned(first)) if distinct(new) => {
            let Ok(Reply::Spawned(again)) = model.apply(now, command) else {
                panic!("a spawn that is repeated is refused");
            };
            // Why a job was not created may differ: its id may be that of one
            // that was created after it.
            let created = |of: &[Spawned]| -> Vec<bool> {
                of.iter().map(|of| *of == Spawned::Created).collect()
            };
            assert_eq!(created(&again), created(first), "{command:?} again");
            assert_eq!(jobs(model), before, "{command:?} again changed something");
        }
        (
            Command::Finish(_)
            | Command::Heartbeat(_)
            | Command::Checkpoint(_)
            | Command::Hold(_)
            | Command::Find(_)
            | Command::History(_),
            _,
        ) => {
            let again = model.apply(now, command);
            assert_eq!(again.as_ref(), Ok(reply), "{command:?} again");
            assert_eq!(jobs(model), before, "{command:?} again changed something");
        }
        (Command::Spawn(_) | Command::Claim(_) | Command::Reclaim(_), _) => {}
    }
}

fn distinct(jobs: &[NewJob]) -> bool {
    let names: BTreeSet<_> = jobs.iter().map(|job| (job.id, job.token)).collect();
    names.len() == jobs.len()
}
