//! Whether some serial order of the calls explains, under the model, what every
//! client was told of a job, and what became of it.
//!
//! Jobs are judged one by one: a store promises an order of the commands for each
//! job, not one for all (a claim passes over what others are taking). A call that
//! returned before another was made comes before it; one whose outcome is unknown
//! happens once, at any time after it was made, or not at all. Wing and Gong,
//! "Testing and verifying concurrent objects" (1993); as Lowe did later, states
//! that were met are not searched again.

use std::collections::BTreeMap;

use job_engine::history::Snapshot;
use job_engine::store::{Claim, Finish, Heartbeat, Spawned, Written};
use job_engine::{Command, JobId, ModelStore, Reply, Timestamp};

use super::history::{Call, Outcome};

/// Explains the calls as far as they are about `job`, which is `end` in the end.
pub fn explain(job: JobId, calls: &[Call], end: Option<&Snapshot>) -> Result<(), String> {
    let mut steps: Vec<Step> = calls.iter().flat_map(|call| steps(job, call)).collect();
    steps.sort_by_key(|step| step.invoked);
    steps.push(Step {
        // After all that returned, and not before what may come at any time.
        invoked: u64::MAX - 1,
        returned: u64::MAX,
        certain: true,
        parts: vec![Part::Is(end.cloned().map(Box::new))],
    });
    let mut search = Search {
        job,
        steps: &steps,
        met: BTreeMap::new(),
        longest: 0,
    };
    let done = vec![false; steps.len()];
    if search.goes_on(&ModelStore::new(), &done) {
        return Ok(());
    }
    let longest = search.longest;
    let steps: Vec<String> = steps.iter().map(|step| format!("{step:#?}")).collect();
    Err(format!(
        "no serial order explains job {job}; the longest explains {longest} of {} steps:\n{}",
        steps.len(),
        steps.join("\n")
    ))
}

/// A call, as far as it is about one job.
#[derive(Debug)]
struct Step {
    invoked: u64,
    returned: u64,
    /// Whether it happened for sure.
    certain: bool,
    /// What happened, all at once.
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    /// A command was carried out, with this reply as far as it is known.
    Done {
        now: Timestamp,
        command: Command,
        reply: Option<Reply>,
    },
    /// There was no such job.
    Absent,
    /// The job did not run by this claim.
    NotBy(Box<Claim>),
    /// The job was this.
    Is(Option<Box<Snapshot>>),
}

/// None if the call says nothing about the job, and cannot have changed it.
fn steps(job: JobId, call: &Call) -> Vec<Step> {
    let reply = match &call.outcome {
        Outcome::Replied(reply) => Some(reply),
        Outcome::Unknown => None,
        Outcome::Unchanged(_) => return Vec::new(),
    };
    let step = |parts: Vec<Part>| Step {
        invoked: call.invoked,
        returned: call.returned,
        certain: reply.is_some(),
        parts,
    };
    let done = |command: Command, reply: Option<Reply>| Part::Done {
        now: call.now,
        command,
        reply,
    };
    let parts: Vec<Part> = match &call.command {
        Command::Spawn(jobs) => {
            let told = match reply {
                Some(Reply::Spawned(told)) => told.iter().copied().map(Some).collect(),
                _ => vec![None; jobs.len()],
            };
            let about = jobs.iter().zip(told).filter(|(new, _)| new.id == job);
            let parts = about.map(|(new, told)| match told {
                Some(Spawned::DuplicateUniqueType(_)) => Part::Absent,
                told => done(
                    Command::Spawn(vec![new.clone()]),
                    told.map(|told| Reply::Spawned(vec![told])),
                ),
            });
            parts.collect()
        }
        Command::Claim(claim) => match reply {
            Some(Reply::Claimed(claimed)) => {
                let mut mine = claimed.clone();
                mine.next_due.clear();
                mine.jobs.retain(|claimed| claimed.run.job == job);
                mine.left.retain(|left| left.run.job == job);
                if !mine.left.is_empty() {
                    // Others had the places: for this job it is as if there were none.
                    let none = Command::Claim(Claim {
                        quotas: Vec::new(),
                        ..claim.clone()
                    });
                    vec![done(none, Some(Reply::Claimed(mine)))]
                } else if !mine.jobs.is_empty() {
                    vec![done(call.command.clone(), Some(Reply::Claimed(mine)))]
                } else if claim.repeat {
                    vec![Part::NotBy(Box::new(claim.clone()))]
                } else {
                    // It may have been full, or have passed over the job.
                    Vec::new()
                }
            }
            _ => vec![done(call.command.clone(), None)],
        },
        Command::Finish(finishes) => {
            let about: Vec<usize> = indexes(finishes, |finish: &Finish| finish.run.job == job);
            let told = about.iter().map(|at| match reply {
                Some(Reply::Finished(told)) => Some(Reply::Finished(vec![told[*at]])),
                _ => None,
            });
            let commands = about
                .iter()
                .map(|at| Command::Finish(vec![finishes[*at].clone()]));
            commands.zip(told).map(|(c, told)| done(c, told)).collect()
        }
        Command::Heartbeat(Heartbeat { runs, lease }) => {
            let about: Vec<usize> = indexes(runs, |run| run.job == job);
            let told = about.iter().map(|at| match reply {
                Some(Reply::Heartbeat(told)) => Some(Reply::Heartbeat(vec![told[*at]])),
                _ => None,
            });
            let commands = about.iter().map(|at| {
                Command::Heartbeat(Heartbeat {
                    runs: vec![runs[*at]],
                    lease: *lease,
                })
            });
            commands.zip(told).map(|(c, told)| done(c, told)).collect()
        }
        Command::Checkpoint(checkpoint) if checkpoint.run.job == job => {
            vec![done(call.command.clone(), reply.cloned())]
        }
        Command::Reclaim(_) => match reply {
            Some(Reply::Reclaimed(reclaimed)) => {
                let mut mine = reclaimed.clone();
                mine.retain(|reclaimed| reclaimed.run.job == job);
                // What it did not take, it may have passed over.
                let taken = !mine.is_empty();
                let part = || done(call.command.clone(), Some(Reply::Reclaimed(mine)));
                taken.then(part).into_iter().collect()
            }
            _ => vec![done(call.command.clone(), None)],
        },
        Command::Find(id) if *id == job => match reply {
            Some(Reply::Found(found)) => vec![Part::Is(found.clone())],
            _ => Vec::new(),
        },
        Command::Hold(run) if run.job == job => {
            vec![done(call.command.clone(), reply.cloned())]
        }
        Command::Checkpoint(_) | Command::Hold(_) | Command::Find(_) | Command::History(_) => {
            Vec::new()
        }
    };
    if parts.is_empty() {
        return Vec::new();
    }
    // Each spawn of a batch is decided for itself. Where an id comes twice, one may
    // be refused at another moment than the other.
    if matches!(call.command, Command::Spawn(_)) && reply.is_some() {
        return parts.into_iter().map(|part| step(vec![part])).collect();
    }
    vec![step(parts)]
}

fn indexes<T>(all: &[T], about: impl Fn(&T) -> bool) -> Vec<usize> {
    let all = all.iter().enumerate();
    all.filter(|(_, one)| about(one))
        .map(|(at, _)| at)
        .collect()
}

struct Search<'s> {
    job: JobId,
    steps: &'s [Step],
    /// Which states were met with which steps done.
    met: BTreeMap<Vec<bool>, Vec<Option<Snapshot>>>,
    longest: usize,
}

impl Search<'_> {
    /// Whether what is not done yet can follow on `state`.
    fn goes_on(&mut self, state: &ModelStore, done: &[bool]) -> bool {
        let count = done.iter().filter(|done| **done).count();
        self.longest = self.longest.max(count);
        let left = self.steps.iter().zip(done);
        let certain = left.filter(|(step, done)| step.certain && !**done);
        let Some(first_return) = certain.map(|(step, _)| step.returned).min() else {
            return true;
        };
        let job = state.find(self.job).cloned();
        let met = self.met.entry(done.to_vec()).or_default();
        if met.contains(&job) {
            return false;
        }
        met.push(job.clone());
        let mut nexts = Vec::new();
        for (at, step) in self.steps.iter().enumerate() {
            if done[at] || step.invoked > first_return {
                continue;
            }
            let after = step.after(self.job, state);
            let changes_nothing = |after: &ModelStore| after.find(self.job) == job.as_ref();
            if step.certain && after.len() == 1 && changes_nothing(&after[0]) {
                // It fits here, and wherever it is put, the rest stays the same.
                nexts = vec![(at, after)];
                break;
            }
            nexts.push((at, after));
        }
        for (at, after) in nexts {
            let mut done = done.to_vec();
            done[at] = true;
            if after.iter().any(|after| self.goes_on(after, &done)) {
                return true;
            }
        }
        false
    }
}

impl Step {
    /// The states that can follow on `state`; none if it does not fit.
    fn after(&self, job: JobId, state: &ModelStore) -> Vec<ModelStore> {
        let mut states = vec![state.clone()];
        for part in &self.parts {
            states = states
                .iter()
                .flat_map(|state| part.after(job, state))
                .collect();
        }
        states
    }
}

impl Part {
    fn after(&self, job: JobId, state: &ModelStore) -> Vec<ModelStore> {
        let fits = match self {
            Part::Done {
                now,
                command,
                reply,
            } => {
                let mut after = state.clone();
                let given = after.apply(*now, command).expect("it was accepted before");
                if reply.as_ref().is_some_and(|told| !same(told, given)) {
                    return Vec::new();
                }
                let mut states = vec![after];
                let goes_on = Reply::Heartbeat(vec![Written::Applied]);
                if reply.as_ref() == Some(&goes_on) {
                    // One that meets a locked row says that the run goes on, and
                    // leaves the lease to the next.
                    states.push(state.clone());
                }
                return states;
            }
            Part::Absent => state.find(job).is_none(),
            Part::NotBy(claim) => {
                let live = state.find(job).and_then(|job| job.live.as_ref());
                let lease = live.and_then(|live| live.lease);
                lease.is_none_or(|lease| {
                    (lease.worker, lease.claim_seq) != (claim.id.worker, claim.id.seq)
                })
            }
            Part::Is(found) => state.find(job) == found.as_deref(),
        };
        if fits {
            vec![state.clone()]
        } else {
            Vec::new()
        }
    }
}

/// When the next jobs are due is a hint, and not of the same moment.
fn same(told: &Reply, mut given: Reply) -> bool {
    if let Reply::Claimed(claimed) = &mut given {
        claimed.next_due.clear();
    }
    *told == given
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use job_engine::store::{Claim, Finish, NewJob, Outcome as End, Quota, Reclaim, TypePolicy};
    use job_engine::{ClaimId, Due, Fence, JobType, Payload, Run, WorkerId};
    use uuid::Uuid;

    use super::*;

    const JOB: JobId = JobId(Uuid::from_u128(7));
    const TYPE: JobType = JobType::new("a");
    const RUN: Run = Run {
        job: JOB,
        fence: Fence(1),
        claim: ClaimId {
            worker: WorkerId(Uuid::from_u128(1)),
            seq: 0,
        },
    };

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_micros(secs * 1_000_000)
    }

    fn spawn(unique_type: bool) -> Command {
        Command::Spawn(vec![NewJob {
            id: JOB,
            job_type: TYPE,
            unique_type,
            due: Due::Now,
            config: Payload::from_json("null"),
            trace: None,
            token: 1,
        }])
    }

    fn claim(worker: u128) -> Command {
        Command::Claim(Claim {
            id: ClaimId {
                worker: WorkerId(Uuid::from_u128(worker)),
                seq: 0,
            },
            repeat: false,
            quotas: vec![Quota {
                job_type: TYPE,
                jobs_max: 1,
            }],
            lease: Duration::from_secs(10),
        })
    }

    fn finish(outcome: End) -> Command {
        Command::Finish(vec![Finish { run: RUN, outcome }])
    }

    fn reclaim() -> Command {
        let policy = TypePolicy {
            job_type: TYPE,
            attempts_max: None,
            crashes_max: None,
            healthy_after: Duration::MAX,
        };
        Command::Reclaim(Reclaim {
            policies: vec![policy],
            jobs_max: 1,
        })
    }

    /// Calls that were carried out in this order, each at the second of its place,
    /// all at once as far as their clients can tell; and what the job is then.
    fn carried_out(commands: &[Command]) -> (Vec<Call>, Option<Snapshot>) {
        let mut model = ModelStore::new();
        let calls = (0..).zip(commands).map(|(n, command)| Call {
            invoked: 0,
            returned: 1_000,
            now: at(n),
            command: command.clone(),
            outcome: Outcome::Replied(model.apply(at(n), command).unwrap()),
        });
        let calls = calls.collect();
        (calls, model.find(JOB).cloned())
    }

    fn one_after_the_other(calls: &mut [Call]) {
        for (n, call) in (0..).zip(calls) {
            (call.invoked, call.returned) = (2 * n, 2 * n + 1);
        }
    }

    #[test]
    fn what_the_model_did_is_explained_in_whatever_order_it_is_told() {
        let (mut calls, end) = carried_out(&[
            spawn(false),
            claim(1),
            Command::Find(JOB),
            finish(End::Released),
            claim(2),
        ]);
        for _ in 0..calls.len() {
            calls.rotate_left(1);
            assert_eq!(explain(JOB, &calls, end.as_ref()), Ok(()));
        }
        one_after_the_other(&mut calls);
        assert_eq!(explain(JOB, &calls, end.as_ref()), Ok(()));
        calls.reverse();
        one_after_the_other(&mut calls);
        assert!(explain(JOB, &calls, end.as_ref()).is_err());
    }

    #[test]
    fn a_job_that_two_claims_took_with_one_fence_is_not_explained() {
        let (mut calls, end) = carried_out(&[spawn(false), claim(1)]);
        let (others, _) = carried_out(&[spawn(false), claim(2)]);
        calls.push(others[1].clone());
        assert!(explain(JOB, &calls, end.as_ref()).is_err());
    }

    #[test]
    fn an_end_and_a_lost_lease_of_the_same_run_are_not_explained() {
        let mut lapse = claim(1);
        if let Command::Claim(claim) = &mut lapse {
            claim.lease = Duration::ZERO;
        }
        let (mut calls, end) = carried_out(&[spawn(false), lapse.clone(), reclaim()]);
        assert_eq!(explain(JOB, &calls, end.as_ref()), Ok(()));
        let (others, _) = carried_out(&[spawn(false), lapse, finish(End::Completed)]);
        calls.push(others[2].clone());
        assert!(explain(JOB, &calls, end.as_ref()).is_err());
    }

    #[test]
    fn an_end_that_was_told_and_left_no_trace_is_not_explained() {
        let (calls, _) = carried_out(&[spawn(false), claim(1), finish(End::Completed)]);
        let (_, lost) = carried_out(&[spawn(false), claim(1)]);
        assert!(explain(JOB, &calls, lost.as_ref()).is_err());
    }

    #[test]
    fn what_nobody_heard_of_happened_once_or_not_at_all() {
        let (mut calls, completed) = carried_out(&[spawn(false), claim(1), finish(End::Completed)]);
        calls[2].outcome = Outcome::Unknown;
        calls[2].returned = u64::MAX;
        let (_, running) = carried_out(&[spawn(false), claim(1)]);
        for end in [&completed, &running] {
            assert_eq!(explain(JOB, &calls, end.as_ref()), Ok(()));
        }
        let (_, pending) = carried_out(&[spawn(false)]);
        for end in [&pending, &None] {
            assert!(explain(JOB, &calls, end.as_ref()).is_err());
        }
    }

    #[test]
    fn a_spawn_that_was_refused_for_its_type_is_no_trace_of_the_job() {
        let (mut calls, _) = carried_out(&[spawn(true)]);
        calls[0].outcome =
            Outcome::Replied(Reply::Spawned(vec![Spawned::DuplicateUniqueType(JOB)]));
        assert_eq!(explain(JOB, &calls, None), Ok(()));
        let (created, job) = carried_out(&[spawn(true)]);
        assert!(explain(JOB, &calls, job.as_ref()).is_err());
        // Afterwards another spawn created it; before that there was none.
        calls.extend(created);
        assert_eq!(explain(JOB, &calls, job.as_ref()), Ok(()));
        calls.reverse();
        one_after_the_other(&mut calls);
        assert!(explain(JOB, &calls, job.as_ref()).is_err());
    }
}
