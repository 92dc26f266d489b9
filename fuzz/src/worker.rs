//! The engine's worker: any inputs, in any order, at any times.
//!
//! The store at its other end is the model behind a lossy wire, unless the input
//! makes it say what no store says. In the end all comes to rest: then nothing
//! may be left over.

use std::collections::BTreeSet;
use std::time::Duration;

use job_engine::store::{
    Claim, Claimed, Finish, NewJob, Outcome, Quota, Reclaim, Reclaimed, TypePolicy, Written,
};
use job_engine::worker::{Ended, Input, TypeConfig, WorkerConfig};
use job_engine::{
    ClaimId, Command, JobId, JobType, ModelStore, Reply, Run, StoreError, Timestamp, WorkerId,
};
use uuid::Uuid;

use crate::source::Source;
use crate::values::TYPES;
use crate::watched::{Call, Watched};

/// Steps that one input can make. More of the same finds nothing new.
const STEPS_MAX: usize = 600;
/// Jobs that are spawned in one input.
const JOBS_MAX: u128 = 1_500;
/// Rounds after which all has come to rest: some for each job.
const ROUNDS_MAX: usize = 10_000;
/// Time in which all comes to rest.
const REST_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Longer than any wait after an error: 15 s and its jitter.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// Answers that are kept to be given again.
const KEPT_MAX: usize = 8;

/// Drives one worker through whatever the bytes say.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let mut bench = Bench::new(&mut source);
    for _ in 0..STEPS_MAX {
        if source.is_empty() {
            break;
        }
        bench.step(&mut source);
    }
    bench.come_to_rest();
}

fn config(source: &mut Source<'_>) -> WorkerConfig {
    let names: BTreeSet<_> = source.several(4, Source::job_type).into_iter().collect();
    let names = names.into_iter().filter(|name| name.check().is_ok());
    let types = names.map(|job_type| TypeConfig {
        job_type,
        retry: source.retry(),
        crashes_max: source.maybe(Source::u32),
        undecodable_max: source.duration(),
    });
    WorkerConfig {
        types: types.collect(),
        jobs_max: source.u32(),
        jobs_min: source.u32(),
        lease: source.duration(),
        poll_interval: source.duration(),
        poll_interval_deaf: source.duration(),
        shutdown_timeout: source.duration(),
    }
}

struct Bench {
    worker: Watched,
    model: ModelStore,
    /// The time that the worker is told next.
    now: Timestamp,
    /// What the store's clock shows.
    store_now: Timestamp,
    /// Commands that the worker has given up and the store has yet to carry out.
    late: Vec<Command>,
    kept: Vec<(Call, Result<Reply, StoreError>)>,
    spawned: u128,
    /// What the worker runs.
    types: BTreeSet<JobType>,
    /// Something happened that may leave any job in the hands of the worker.
    strands: bool,
    /// The worker was told what is not so, and may believe it.
    misled: bool,
    /// Jobs that it may be left with, since it was told that they are over.
    stranded: BTreeSet<JobId>,
    /// Another worker, of which nobody hears any more.
    claims_of_other: i64,
}

impl Bench {
    fn new(source: &mut Source<'_>) -> Self {
        let seed = source.byte();
        let now = match source.byte() {
            0 => source.timestamp(),
            _ => Timestamp::EPOCH,
        };
        let config = config(source);
        Self {
            types: config.types.iter().map(|of| of.job_type.clone()).collect(),
            worker: Watched::new(now, config, seed),
            model: ModelStore::new(),
            now,
            store_now: now,
            late: Vec::new(),
            kept: Vec::new(),
            spawned: 0,
            strands: false,
            misled: false,
            stranded: BTreeSet::new(),
            claims_of_other: 0,
        }
    }

    fn step(&mut self, source: &mut Source<'_>) {
        match source.byte() % 24 {
            0..=3 => self.next_timer(),
            4 => {
                let time = source.duration();
                self.pass(time);
            }
            // The clock is set back, or shows anything at all for once.
            5 => self.now = source.timestamp(),
            6 => self.store_now = source.timestamp(),
            7 => self.worker.fire_timer(self.now),
            8..=11 => self.answer(source, Manner::Served),
            12 => {
                let error = source.store_error();
                let manner = match (error, source.byte() % 3) {
                    (StoreError::Unknown(text), 0) => Manner::Done(StoreError::Unknown(text)),
                    (StoreError::Unknown(text), 1) => Manner::Late(StoreError::Unknown(text)),
                    (error, _) => Manner::Undone(error),
                };
                self.answer(source, manner);
            }
            13 => self.answer(source, Manner::Made),
            14 => self.answer_again(source),
            15 | 16 => self.spawn(source),
            17 | 18 => self.end(source),
            19 => {
                // A run that nobody knows, or that has ended, or not even begun.
                let (run, ended) = (source.run(), ended(source));
                self.stranded.insert(run.job);
                self.worker.end(self.now, run, ended);
            }
            20 => {
                let job_type = source.job_type();
                self.worker.input(self.now, Input::Woken(job_type));
            }
            21 => {
                let listening = source.flag();
                self.worker.input(self.now, Input::Listening(listening));
            }
            22 => self.others(source),
            _ => match source.byte() % 4 {
                0 => self.worker.shut_down(self.now),
                // Several things in one moment.
                1 => self.carry_out_late(),
                2 => self.pass(Duration::from_micros(1)),
                _ => self.worker.fire_timer(self.now),
            },
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.worker.now().saturating_add(time);
        self.store_now = self.store_now.saturating_add(time);
    }

    /// Lets time pass until the worker wants to be woken.
    fn next_timer(&mut self) {
        if let Some(at) = self.worker.poll_timeout() {
            self.pass(at.saturating_since(self.worker.now()));
            self.worker.fire_timer(self.now);
        }
    }

    fn answer(&mut self, source: &mut Source<'_>, manner: Manner) {
        let calls = self.worker.calls();
        if calls.is_empty() {
            return;
        }
        let call = source.pick(calls).clone();
        let result = match manner {
            Manner::Served => self.apply(&call.command),
            Manner::Done(error) => {
                // Whatever it says: the worker will not hear of it.
                let _ = self.apply(&call.command);
                Err(error)
            }
            Manner::Late(error) => {
                self.late.push(call.command.clone());
                self.strands = true;
                Err(error)
            }
            Manner::Undone(error) => {
                // An end that is refused is given up, and the lease runs out.
                if let (StoreError::Rejected(_), Command::Finish(batch)) = (&error, &call.command) {
                    let jobs = batch.iter().map(|finish| finish.run.job);
                    self.stranded.extend(jobs);
                }
                Err(error)
            }
            Manner::Made => {
                self.worker.misled();
                self.strands = true;
                self.misled = true;
                Ok(self.make_reply(source, &call.command))
            }
        };
        if self.kept.len() == KEPT_MAX {
            let _oldest = self.kept.remove(0);
        }
        self.kept.push((call.clone(), result.clone()));
        self.worker.reply(self.now, &call, result);
    }

    fn apply(&mut self, command: &Command) -> Result<Reply, StoreError> {
        let reply = self.model.apply(self.store_now, command);
        reply.map_err(StoreError::from)
    }

    /// The wire delivers an answer twice, or an operation that never was.
    fn answer_again(&mut self, source: &mut Source<'_>) {
        if self.kept.is_empty() {
            return;
        }
        let (call, result) = source.pick(&self.kept).clone();
        self.worker.reply(self.now, &call, result);
    }

    /// A reply of a store that has lost its mind.
    fn make_reply(&mut self, source: &mut Source<'_>, command: &Command) -> Reply {
        let written = |source: &mut Source<'_>, len: usize| {
            let len = match source.byte() {
                255 => source.below(8),
                _ => len,
            };
            let one = |source: &mut Source<'_>| match source.flag() {
                true => Written::Applied,
                false => Written::Stale,
            };
            (0..len).map(|_| one(source)).collect()
        };
        // Now and then one that belongs to another command.
        let kind = match (source.byte(), command) {
            (kind @ 240.., _) => kind % 7,
            (_, Command::Claim(_)) => 0,
            (_, Command::Finish(_)) => 1,
            (_, Command::Heartbeat(_)) => 2,
            (..) => 3,
        };
        match kind {
            0 => Reply::Claimed(Claimed {
                now: source.timestamp(),
                jobs: source.several(8, Source::claimed_job),
                left: source.several(3, Source::left),
                next_due: source.several(4, |source| (source.job_type(), source.timestamp())),
            }),
            1 => {
                let len = match command {
                    Command::Finish(batch) => batch.len(),
                    _ => 1,
                };
                Reply::Finished(written(source, len))
            }
            2 => {
                let len = match command {
                    Command::Heartbeat(heartbeat) => heartbeat.runs.len(),
                    _ => 1,
                };
                Reply::Heartbeat(written(source, len))
            }
            3 => {
                let mut reclaimed = source.several(4, |source| Reclaimed {
                    run: source.run(),
                    job_type: source.job_type(),
                    attempt: source.u32(),
                    end: source.run_end(),
                });
                if let Some(last) = reclaimed.last().cloned()
                    && source.byte() == 255
                {
                    // As many as a reclaim can ask for, so that it goes on.
                    reclaimed.resize(1_000, last);
                }
                Reply::Reclaimed(reclaimed)
            }
            4 => Reply::Spawned(Vec::new()),
            5 => Reply::Checkpointed(Written::Applied),
            _ => Reply::Found(None),
        }
    }

    fn spawn(&mut self, source: &mut Source<'_>) {
        let count = match source.byte() {
            // More than a claim can take.
            255 => 1_000,
            other => usize::from(other % 4) + 1,
        };
        if self.spawned + count as u128 > JOBS_MAX {
            return;
        }
        let job_type = source.job_type();
        let due = source.due();
        let jobs = (0..count).map(|_| {
            self.spawned += 1;
            NewJob {
                id: JobId(Uuid::from_u128(self.spawned)),
                job_type: job_type.clone(),
                unique_type: false,
                due,
                config: job_engine::Payload::from_json("null"),
                trace: None,
                token: 1,
            }
        });
        let command = Command::Spawn(jobs.collect());
        // A name that is not allowed is refused, and nothing is spawned.
        let _ = self.apply(&command);
    }

    fn end(&mut self, source: &mut Source<'_>) {
        let executing = self.worker.executing();
        if executing.is_empty() {
            return;
        }
        let place = source.below(executing.len().min(256));
        let run = *executing.iter().nth(place).expect("there are more");
        let ended = match ended(source) {
            Ended::Settled(outcome) => self.settle(run, outcome),
            Ended::Aborted if !self.worker.is_aborted(run) => Ended::Completed,
            ended => ended,
        };
        if ended == Ended::LeaseLost {
            self.stranded.insert(run.job);
        }
        self.worker.end(self.now, run, ended);
    }

    /// The runner's own transaction records its end.
    fn settle(&mut self, run: Run, outcome: Outcome) -> Ended {
        let settled = Ended::Settled(outcome.clone());
        match self.apply(&Command::Finish(vec![Finish { run, outcome }])) {
            Ok(Reply::Finished(written)) if written == [Written::Applied] => settled,
            _ => Ended::LeaseLost,
        }
    }

    fn carry_out_late(&mut self) {
        if let Some(command) = self.late.pop() {
            let _ = self.apply(&command);
        }
    }

    /// What other workers do meanwhile.
    fn others(&mut self, source: &mut Source<'_>) {
        let command = if source.flag() {
            let policies = TYPES.map(|name| TypePolicy {
                job_type: JobType::new(name),
                attempts_max: None,
                crashes_max: None,
                healthy_after: Duration::MAX,
            });
            Command::Reclaim(Reclaim {
                policies: policies.to_vec(),
                jobs_max: 1_000,
            })
        } else {
            self.claims_of_other += 1;
            Command::Claim(Claim {
                id: ClaimId {
                    worker: WorkerId(Uuid::nil()),
                    seq: self.claims_of_other,
                },
                repeat: false,
                quotas: vec![Quota {
                    job_type: JobType::new(TYPES[source.below(TYPES.len())]),
                    jobs_max: 2,
                }],
                lease: source.duration(),
            })
        };
        let _ = self.apply(&command);
    }

    /// From here on the store answers, and runners end.
    fn come_to_rest(mut self) {
        let now = self.worker.now();
        // At the end of time no wait ever ends.
        if self.worker.is_stopped() || now.saturating_add(REST_MAX) == Timestamp::MAX {
            return;
        }
        let in_order = self.worker.has_time(WAIT_MAX);
        self.now = now;
        for job_type in self.types.clone() {
            self.worker.input(now, Input::Woken(job_type));
        }
        let mut rounds = 0;
        while !self.worker.is_stopped() && rounds < ROUNDS_MAX {
            rounds += 1;
            if let Some(call) = self.worker.calls().first().cloned() {
                let result = self.apply(&call.command);
                self.worker.reply(self.now, &call, result);
            } else if let Some(run) = self.worker.executing().first().copied() {
                let ended = match self.worker.is_aborted(run) {
                    true => Ended::Aborted,
                    false => Ended::Completed,
                };
                self.worker.end(self.now, run, ended);
            } else if self.worker.is_draining() || self.worker.has_runs() {
                self.next_timer();
            } else if self.owes_a_claim() && !self.misled {
                assert!(rounds < ROUNDS_MAX / 2, "it leaves jobs that are due");
                self.next_timer();
            } else {
                self.worker.shut_down(self.now);
            }
        }
        assert!(self.worker.is_stopped(), "it does not come to rest");
        if !in_order {
            return;
        }
        assert_eq!(self.worker.unsettled(), Some(0), "all answered, all ended");
        let id = self.worker.id();
        let left = self.model.jobs().find(|job| {
            let lease = job.live.as_ref().and_then(|live| live.lease);
            lease.is_some_and(|lease| lease.worker == id) && !self.stranded.contains(&job.id)
        });
        assert!(self.strands || left.is_none(), "it left {left:?}");
    }
}

impl Bench {
    /// Whether there are due jobs of its types that nobody has.
    fn owes_a_claim(&self) -> bool {
        let now = self.store_now;
        self.model.jobs().any(|job| {
            let live = job.live.as_ref();
            let due = live.is_some_and(|live| live.lease.is_none() && live.due_at <= now);
            due && self.types.contains(&job.job_type)
        })
    }
}

/// What becomes of a command.
enum Manner {
    Served,
    /// It is carried out, and the answer is this.
    Done(StoreError),
    /// It is carried out some time later, or never.
    Late(StoreError),
    /// It is not carried out.
    Undone(StoreError),
    /// It is not carried out, and the answer is made up.
    Made,
}

fn ended(source: &mut Source<'_>) -> Ended {
    match source.byte() % 11 {
        0 | 1 => Ended::Completed,
        2 => Ended::Rescheduled(source.due()),
        3 | 4 => Ended::Failed(source.error_text()),
        5 => Ended::Settled(settled(source)),
        9 => Ended::Snoozed(source.due()),
        10 => Ended::Errored(source.error_text()),
        6 => Ended::LeaseLost,
        7 => Ended::Undecodable(source.error_text()),
        _ => Ended::Aborted,
    }
}

/// What a runner may end its run as in a transaction of its own.
fn settled(source: &mut Source<'_>) -> Outcome {
    match source.byte() % 4 {
        0 => Outcome::Completed,
        1 => Outcome::Rescheduled { due: source.due() },
        2 => Outcome::Snoozed { due: source.due() },
        _ => Outcome::Errored {
            error: source.error_text(),
        },
    }
}
