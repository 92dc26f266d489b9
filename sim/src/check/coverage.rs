//! Rare situations that a set of seeds must reach at least once.

use std::fmt;

use job_engine::lifecycle::{RunEnd, State};
use job_engine::store::{Outcome, Spawned, Written};
use job_engine::worker::{Ended, StopReason};
use job_engine::{Reply, Run, StoreError};
use serde::{Deserialize, Serialize};

use super::books::{Books, Life};
use super::transition::{Change, Transition};
use crate::event::Event;
use crate::level::Level;
use crate::scenario::OnStop;

/// How often each point was reached, and in how many simulations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    counts: [u64; Point::COUNT],
    seeds: [u64; Point::COUNT],
}

impl Default for Coverage {
    fn default() -> Self {
        Self {
            counts: [0; Point::COUNT],
            seeds: [0; Point::COUNT],
        }
    }
}

impl Coverage {
    /// How often this point was reached.
    pub fn count(&self, point: Point) -> u64 {
        self.counts[point as usize]
    }

    /// In how many simulations this point was reached.
    pub fn seeds(&self, point: Point) -> u64 {
        self.seeds[point as usize]
    }

    /// How many points were reached.
    pub fn reached(&self) -> usize {
        self.counts.iter().filter(|count| **count > 0).count()
    }

    /// The points that were never reached.
    pub fn missed(&self) -> impl Iterator<Item = Point> + '_ {
        Point::ALL
            .into_iter()
            .filter(|point| self.count(*point) == 0)
    }

    /// Adds what another simulation reached.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        for (seeds, more) in self.seeds.iter_mut().zip(other.seeds) {
            *seeds += more;
        }
    }

    pub(crate) fn reach(&mut self, point: Point) {
        self.counts[point as usize] += 1;
        self.seeds[point as usize] = 1;
    }
}

/// Notes that a rare situation occurred, if it did.
macro_rules! sometimes {
    ($coverage:expr, $point:ident, $condition:expr) => {
        if $condition {
            $coverage.reach(Point::$point);
        }
    };
}

macro_rules! points {
    ($($(#[doc = $what:literal])+ $point:ident = $name:literal,)+) => {
        /// A rare situation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Point {
            $($(#[doc = $what])+ $point,)+
        }

        impl Point {
            /// So many there are.
            pub const COUNT: usize = [$($name),+].len();
            /// All of them.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$point),+];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$point => $name),+ }
            }
        }
    };
}

points! {
    /// A run goes on after its first lease, thanks to heartbeats.
    OutlivesLease = "a job outlives its first lease",
    /// A reply arrives at a process that is gone.
    LateReplyToTheDead = "a late reply to a dead incarnation",
    /// The end of a run is refused, as its fence is not current.
    StaleFinish = "a stale finish rejected",
    /// A claim took jobs, and its reply did not arrive.
    ClaimReplyLost = "a claim's reply lost",
    /// A repeated claim finds the jobs that the first took.
    RepeatFindsItsJobs = "a repeated claim finds its jobs",
    /// A repeated claim takes jobs, as the first took none.
    RepeatTakesJobs = "a repeated claim takes jobs afresh",
    /// A job fails for the last time.
    RetryAtCap = "a retry at the cap",
    /// A second unique job of a type is refused.
    UniqueConflict = "a unique conflict",
    /// A second job with an id is refused.
    IdConflict = "a conflict of ids",
    /// A spawn is repeated and finds its job.
    SpawnRepeated = "a repeated spawn finds its job",
    /// A process crashes while it runs jobs.
    CrashAtWork = "a crash with runs at work",
    /// A worker is asked to shut down while it runs jobs.
    ShutdownAtWork = "a shutdown with runs at work",
    /// A runner is aborted.
    RunnerAborted = "a runner aborted",
    /// A worker stops while a runner blocks its thread.
    StoppedWhileBlocked = "a runner blocks beyond the shutdown",
    /// Two runs of a job overlap.
    RunsOverlap = "two runs of a job overlap",
    /// A runner is told of a lost lease before the store says so.
    ToldByItsWorker = "a lost lease told before the store says so",
    /// A job whose lease ran out goes back.
    LeaseLost = "a lost lease reclaimed",
    /// A job ends as errored after a crash.
    Abandoned = "a job abandoned after a crash",
    /// A heartbeat names a run that is over.
    StaleHeartbeat = "a stale heartbeat",
    /// The end of a run is recorded a second time, without effect.
    FinishRepeated = "a repeated finish",
    /// A command of a process that is gone is carried out.
    CommandOfTheDead = "a command of a dead incarnation carried out",
    /// A claimed job goes back unstarted, as the worker shuts down.
    ReleasedUnstarted = "a job released unstarted",
    /// An aborted job goes back at the same attempt.
    Released = "a job released by a shutdown",
    /// A job goes back whose config cannot be decoded.
    Undecodable = "a job whose config cannot be decoded",
    /// A repeated claim asks for less than it took.
    ClaimLeftSome = "a repeated claim that leaves some of its jobs",
    /// A transaction of a runner begins with the row of its run.
    RunHeld = "a transaction that takes the row of its run first",
    /// A transaction is rolled back, as the lease is lost.
    TransactionRefused = "a transaction refused for its lease",
    /// A transaction is committed, and its runner is not told.
    CommitUnknown = "a commit of unknown outcome that landed",
    /// A failure after a healthy run starts the attempts again.
    HealthyReset = "attempts start again after a healthy run",
    /// A wait after a failure is the longest.
    BackoffAtMax = "a backoff at its maximum",
    /// A store error is answered.
    StoreFailed = "a store error",
    /// A store call gets no answer in time.
    Unanswered = "a store call without an answer",
    /// A run is given a state that a lost run kept.
    StateSurvivesCrash = "a checkpoint survives a crash",
    /// A job is spawned in the transaction that completes another.
    ChildSpawned = "a job spawned in a transaction",
    /// A worker is woken while a claim is under way.
    WokenDuringClaim = "a wake-up during a claim",
    /// A worker comes back with another configuration: a deploy.
    StartsNewEdition = "a worker starts with another configuration",
    /// A process stands still for longer than a lease.
    PausedBeyondLease = "a pause beyond the lease",
    /// Announcements stop arriving, and the worker knows.
    KnowsItIsDeaf = "a lost listener noticed",
    /// A run reschedules its job.
    Rescheduled = "a job rescheduled",
    /// A run snoozes its job, which has failed before.
    SnoozedRetry = "a retry snoozed",
    /// A run gives its job up, which has attempts left.
    GivenUp = "a job given up by its runner",
    /// A panic counts as a failure.
    Panicked = "a runner panicked",
    /// The end of a run arrives after its lease was found to be lost.
    FinishAfterReclaim = "a finish that lost the race with a reclaim",
    /// A worker is asked to shut down while jobs wait for a place.
    ShutdownWithReady = "a shutdown with jobs that wait for a place",
    /// A worker hears that it has lost a job that waits for a place, under a lease in which it
    /// believed.
    ReadyLost = "a lost lease of a job that waits for a place",
    /// A worker has put a job back that it found no time to start under its lease.
    ReadyLapsed = "a job put back as its lease may have run out",
    /// A call is answered after three in a row were not.
    StoreHealed = "a store that works again after three errors",
    /// A job is retried, and nothing else waits for any worker.
    RetryAlone = "a retry with nothing else to do",
    /// A runner is told that its lease may have run out while the store does not answer.
    ToldWhileAway = "a lapsed lease told while the store is away",
    /// A crash at a fault point, see [`job_tokio::fault::POINTS`].
    CrashAfterClaim = "a crash after a claim's reply",
    /// See there.
    CrashAfterFinish = "a crash after a finish's reply",
    /// See there.
    CrashAfterHeartbeat = "a crash after a heartbeat's reply",
    /// See there.
    CrashAfterReclaim = "a crash after a reclaim's reply",
    /// See there.
    CrashBeforeStart = "a crash before a runner starts",
    /// See there.
    CrashAfterRun = "a crash after a runner ended",
    /// See there.
    CrashBeforeCommit = "a crash before a commit",
    /// See there.
    CrashAfterCommit = "a crash after a commit",
    /// See there.
    CrashAfterSpawn = "a crash after a spawn",
    /// See there.
    CrashBeforeRelease = "a crash before jobs are put back",
}

/// Of so many seeds at the level that owns it, at least one reaches each point.
pub const SEEDS_A_POINT: u64 = 200;

impl Point {
    /// The lowest level at which it can be reached, which is the one with the most seeds.
    pub const fn owner(self) -> Level {
        match self {
            // The transactions of runners of level 1 begin with their commit.
            Self::RunHeld => Level::Paused,
            _ => Level::Explorer,
        }
    }

    /// A crash at the fault point of this name.
    pub fn crash_at(point: &str) -> Option<Self> {
        Some(match point {
            "after_claim" => Self::CrashAfterClaim,
            "after_finish" => Self::CrashAfterFinish,
            "after_heartbeat" => Self::CrashAfterHeartbeat,
            "after_reclaim" => Self::CrashAfterReclaim,
            "before_start" => Self::CrashBeforeStart,
            "after_run" => Self::CrashAfterRun,
            "before_commit" => Self::CrashBeforeCommit,
            "after_commit" => Self::CrashAfterCommit,
            "after_spawn" => Self::CrashAfterSpawn,
            "before_release" => Self::CrashBeforeRelease,
            _ => return None,
        })
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

pub(super) fn transition(coverage: &mut Coverage, books: &Books, change: &Transition<'_>) {
    let before = change.before;
    let late = books.worker(change.call.who).is_some_and(|worker| {
        worker.incarnation > change.call.who.incarnation || worker.life == Life::Crashed
    });
    sometimes!(coverage, CommandOfTheDead, late);
    match change.change {
        Change::Claim(claim, job) => {
            let renewed = before.is_some_and(|seen| seen.lease.is_some());
            sometimes!(coverage, RepeatFindsItsJobs, renewed);
            sometimes!(coverage, RepeatTakesJobs, claim.repeat && !renewed);
            let last = before.and_then(|seen| seen.last_end);
            let kept = job.state.is_some() && last == Some(RunEnd::Lost);
            sometimes!(coverage, StateSurvivesCrash, kept);
        }
        Change::Finish(finish, written) => {
            let run = books.run(finish.run);
            let lost = run.and_then(|run| run.recorded) == Some(RunEnd::Lost);
            let stale = written == Written::Stale;
            let by_runner = !change.call.is_of_engine();
            sometimes!(coverage, StaleFinish, stale);
            sometimes!(coverage, FinishAfterReclaim, stale && lost && !by_runner);
            sometimes!(coverage, TransactionRefused, stale && by_runner);
            let repeated = !stale && !change.ran(finish.run);
            sometimes!(coverage, FinishRepeated, repeated);
            if stale || repeated {
                return;
            }
            match &finish.outcome {
                Outcome::Released => {
                    coverage.reach(Point::ReleasedUnstarted);
                    let lapsed = run.is_some_and(|run| change.now.true_us > run.believed_until_us);
                    sometimes!(coverage, ReadyLapsed, lapsed);
                }
                Outcome::Interrupted => coverage.reach(Point::Released),
                Outcome::Undecodable { .. } => coverage.reach(Point::Undecodable),
                Outcome::Rescheduled { .. } => coverage.reach(Point::Rescheduled),
                Outcome::Snoozed { .. } => {
                    let retry = before.is_some_and(|seen| seen.attempt > 1);
                    sometimes!(coverage, SnoozedRetry, retry);
                }
                Outcome::Errored { .. } => {
                    let given_up = super::attempts::gives_up(books, change);
                    let cap = super::attempts::retry_of(books, change)
                        .and_then(|retry| retry.attempts_max);
                    let left = before.is_some_and(|seen| cap.is_none_or(|cap| seen.attempt < cap));
                    sometimes!(coverage, RetryAtCap, !given_up);
                    sometimes!(coverage, GivenUp, given_up && left);
                }
                Outcome::Retried { attempt, delay, .. } => {
                    let was = before.map_or(0, |seen| seen.attempt);
                    sometimes!(coverage, HealthyReset, *attempt == 1 && was > 1);
                    // Itself is still among those that run.
                    let alone = books.pending.is_empty() && books.running.len() == 1;
                    sometimes!(coverage, RetryAlone, alone && !delay.is_zero());
                    let max = super::attempts::retry_of(books, change)
                        .map(|retry| u128::from(retry.max_backoff_ms));
                    sometimes!(coverage, BackoffAtMax, max == Some(delay.as_millis()));
                }
                Outcome::Completed => {}
            }
        }
        Change::Heartbeat(run, length, written) => {
            sometimes!(coverage, StaleHeartbeat, written == Written::Stale);
            let claimed_us = books.run(run).map_or(u64::MAX, |run| run.claimed_us);
            let outlived =
                change.now.true_us.saturating_sub(claimed_us) > length.as_micros() as u64;
            sometimes!(
                coverage,
                OutlivesLease,
                written == Written::Applied && outlived
            );
        }
        Change::Reclaim(_, reclaimed) => match reclaimed.end {
            RunEnd::Abandoned => coverage.reach(Point::Abandoned),
            _ => coverage.reach(Point::LeaseLost),
        },
        Change::Spawn(new, spawned) => {
            let exists = before.is_some();
            sometimes!(
                coverage,
                SpawnRepeated,
                exists && spawned == Spawned::Created
            );
            sometimes!(coverage, IdConflict, spawned == Spawned::DuplicateId);
            let refused = matches!(spawned, Spawned::DuplicateUniqueType(_));
            sometimes!(coverage, UniqueConflict, refused);
            let parent = books.job(new.id).and_then(|book| book.spec.parent);
            sometimes!(coverage, ChildSpawned, !exists && parent.is_some());
        }
        Change::Left(..) => coverage.reach(Point::ClaimLeftSome),
        Change::Hold(_, written) => {
            sometimes!(coverage, RunHeld, written == Written::Applied);
        }
        Change::Checkpoint(..) => {}
    }
}

pub(super) fn event(coverage: &mut Coverage, books: &Books, event: &Event<'_>) {
    let at_work = |who| {
        books
            .worker(who)
            .is_some_and(|worker| !worker.executing.is_empty())
    };
    match *event {
        Event::Point { point, .. } => {
            if let Some(point) = Point::crash_at(point) {
                coverage.reach(point);
            }
        }
        Event::Crashed { who } if at_work(who) => coverage.reach(Point::CrashAtWork),
        Event::ShutdownAsked { who } => {
            sometimes!(coverage, ShutdownAtWork, at_work(who));
            sometimes!(
                coverage,
                ShutdownWithReady,
                !books.unstarted(who).is_empty()
            );
        }
        Event::Aborted { .. } => coverage.reach(Point::RunnerAborted),
        Event::Stopped { who } => {
            let runs = books.worker(who).map(|worker| &worker.executing);
            let blocked = runs.into_iter().flatten().any(|run| {
                let spec = books.job(run.job).map(|book| book.spec.run(run.fence.0));
                spec.is_some_and(|spec| spec.on_stop == OnStop::Block)
            });
            sometimes!(coverage, StoppedWhileBlocked, blocked);
        }
        Event::Started { job, .. } => {
            let runs = books.job(job.run.job).map_or(&[][..], |book| &book.runs);
            let others = runs.iter().take((job.run.fence.0 - 1).max(0) as usize);
            let overlaps = others
                .filter(|run| run.is_executing() && !run.committing)
                .count();
            sometimes!(coverage, RunsOverlap, overlaps > 0);
        }
        Event::Told {
            who,
            run,
            reason: StopReason::LeaseLost,
        } => {
            let known = books.run(run).is_some_and(|run| run.stale);
            sometimes!(coverage, ToldByItsWorker, !known);
            let away = books
                .worker(who)
                .is_some_and(|worker| worker.pace.is_away());
            sometimes!(coverage, ToldWhileAway, !known && away);
        }
        Event::Unheard { call } => {
            let gone = books
                .worker(call.who)
                .is_some_and(|worker| !worker.is_up(call.who));
            sometimes!(coverage, LateReplyToTheDead, gone);
        }
        Event::Answered { call, result } => match result {
            Err(StoreError::Failed(_)) => coverage.reach(Point::StoreFailed),
            Err(StoreError::Unknown(_)) => {
                coverage.reach(Point::Unanswered);
                let worker = books.worker(call.who);
                let claim = worker.is_some_and(|worker| worker.pace.is_claim(call.op));
                if claim && call.is_of_engine() {
                    let took = books.running.iter().any(|job| {
                        let lease = books.job(*job).and_then(|book| book.seen?.lease);
                        let claim = worker.and_then(|worker| Some(worker.pace.claim()?.id));
                        lease.zip(claim).is_some_and(|(lease, claim)| {
                            (lease.worker, lease.claim_seq) == (claim.worker, claim.seq)
                        })
                    });
                    sometimes!(coverage, ClaimReplyLost, took);
                }
            }
            Ok(reply) => {
                let worker = books.worker(call.who);
                let healed = worker.is_some_and(|worker| worker.pace.heals(call.op));
                sometimes!(coverage, StoreHealed, healed && call.is_of_engine());
                if let Reply::Heartbeat(written) = reply {
                    let runs = worker.map_or(&[][..], |worker| worker.pace.heartbeat());
                    let waits = |run: &Run| {
                        let book = books.run(*run)?;
                        let begun = book.started_us.is_some() || book.concluded;
                        let believed = books.now.true_us < book.believed_until_us;
                        (!begun && believed).then_some(())
                    };
                    let mut lost = runs.iter().zip(written);
                    let lost = lost
                        .any(|(run, written)| *written == Written::Stale && waits(run).is_some());
                    sometimes!(coverage, ReadyLost, lost);
                }
            }
            Err(StoreError::Rejected(_)) => {}
        },
        Event::Ended { run, ended, .. } => {
            if let Ended::Failed(text) = ended {
                sometimes!(coverage, Panicked, text.as_str().contains("panicked"));
            }
            // A heartbeat finds the run over before the commit is given up.
            if matches!(ended, Ended::Failed(_) | Ended::Aborted) {
                let landed = books
                    .run(run)
                    .is_some_and(|run| run.committing && run.settled);
                sometimes!(coverage, CommitUnknown, landed);
            }
        }
        Event::Woken { who, .. } => {
            let claiming = books
                .worker(who)
                .is_some_and(|worker| worker.owed.is_claiming());
            sometimes!(coverage, WokenDuringClaim, claiming);
        }
        Event::Up { who, .. } => {
            let spec = books.scenario.worker(who.worker);
            let knobs = books.worker(who).map(|worker| &worker.knobs);
            let other = spec.is_some_and(|spec| Some(&spec.knobs) != knobs);
            sometimes!(coverage, StartsNewEdition, other);
        }
        Event::Resumed { who } => {
            let lapsed = books.running.iter().any(|job| {
                let seen = books.job(*job).and_then(|book| book.seen);
                seen.is_some_and(|seen| {
                    seen.state == State::Running
                        && seen.lease.is_some_and(|lease| {
                            lease.expires_at < books.now.store
                                && books.who(lease.worker) == Some(who)
                        })
                })
            });
            let gone = books.worker(who).is_some_and(|worker| {
                worker
                    .executing
                    .iter()
                    .any(|run| books.run(*run).and_then(|run| run.recorded) == Some(RunEnd::Lost))
            });
            sometimes!(coverage, PausedBeyondLease, lapsed || gone);
        }
        Event::Listening { who, listening } => {
            let heard = books.worker(who).is_some_and(|worker| worker.listening);
            sometimes!(coverage, KnowsItIsDeaf, heard && !listening);
        }
        _ => {}
    }
}
