//! Several clients of one Postgres at once: for each job, some serial order of
//! their commands explains, under the model, all that they were told.
//!
//! `JOB_SOAK_ROUNDS` says how often (default 12), `JOB_SOAK_SEED` from which seed on
//! (default 0). The seed decides the commands, the machine how they meet.

mod history;
mod serial;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use job_engine::history::Snapshot;
use job_engine::store::{Claim, Claimed, NewJob, Spawned};
use job_engine::{Command, JobId, JobType, Reply, StoreError};
use job_postgres::{PostgresStore, StoreOptions};
use job_tokio::Store;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use proptest_state_machine::ReferenceStateMachine;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinSet;

use self::history::{Call, History, Outcome};
use super::commands::{Commands, Known};
use super::tables::{PostgresTables, Tables};
use crate::support::{TestDatabase, eventually, from_environment};

const CLIENTS: u64 = 6;
const COMMANDS_EACH: u32 = 25;
/// One in so many commands is not waited for to the end.
const IMPATIENCE: u64 = 10;

/// Draws commands, for all clients of a round.
struct Source {
    known: Known,
    runner: TestRunner,
}

impl Source {
    fn new(seed: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &key);
        Self {
            known: Known::default(),
            runner: TestRunner::new_with_rng(Config::default(), rng),
        }
    }

    fn draw<S: Strategy>(&mut self, strategy: &S) -> S::Value {
        let tree = strategy.new_tree(&mut self.runner);
        tree.expect("nothing is filtered out").current()
    }
}

/// One client: commands one after the other, some of which it gives up on.
async fn client(store: PostgresStore, source: Arc<Mutex<Source>>, history: Arc<History>) {
    for _ in 0..COMMANDS_EACH {
        let (now, command, patience) = {
            let mut source = source.lock().unwrap();
            let step = Commands::transitions(&source.known);
            let step = source.draw(&step);
            source.known.goes_on(&step);
            let patience = source.draw(&(0..IMPATIENCE, 0..2_000_u64));
            let patience = (patience.0 == 0).then(|| Duration::from_micros(patience.1));
            (source.known.now, step.command, patience)
        };
        let execute = async {
            let execute = store.execute(Some(now), &command);
            match patience {
                Some(patience) => tokio::time::timeout(patience, execute).await.ok(),
                None => Some(execute.await),
            }
        };
        let outcome = history.record(now, command.clone(), execute).await;
        if let Outcome::Replied(reply) = &outcome {
            source.lock().unwrap().known.learns(reply);
        }
    }
    store.close().await;
    store.pool().close().await;
}

/// Waits until nothing is carried out any more, also of what was given up on.
async fn all_connections_gone(pool: &PgPool) {
    eventually("the clients' connections end", async || {
        let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                      AND application_name = 'client'";
        let others: i64 = sqlx::query_scalar(others).fetch_one(pool).await.unwrap();
        (others == 0).then_some(())
    })
    .await;
}

#[derive(Debug, Default)]
struct Counts {
    replied: u32,
    failed: u32,
    unknown: u32,
    overlapping: u32,
    stale: u32,
}

async fn round(database: &TestDatabase, seed: u64, counts: &mut Counts) -> Result<(), String> {
    let pool = database.pool().await;
    let tables = PostgresTables::new(pool.clone(), None);
    tables.clear().await;
    let source = Arc::new(Mutex::new(Source::new(seed)));
    let history = Arc::new(History::default());
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let options = pool.connect_options().as_ref().clone();
        let own = PgPoolOptions::new()
            .max_connections(2)
            .connect_lazy_with(options.application_name("client"));
        let store = PostgresStore::new(own, StoreOptions::default()).unwrap();
        clients.spawn(client(store, Arc::clone(&source), Arc::clone(&history)));
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client does not panic");
    }
    all_connections_gone(&pool).await;
    let history = Arc::into_inner(history).expect("all clients have ended");
    let calls = history.into_calls();
    let jobs = tables.rows().await.of_many_clients().jobs()?;
    judge(&calls, &jobs)?;
    count(&calls, counts);
    Ok(())
}

fn judge(calls: &[Call], jobs: &[Snapshot]) -> Result<(), String> {
    for call in calls {
        well_formed(call, calls)?;
    }
    unique_types(calls, jobs)?;
    let mut ends: BTreeMap<JobId, Option<&Snapshot>> = BTreeMap::new();
    for call in calls {
        if let Command::Spawn(new) = &call.command {
            ends.extend(new.iter().map(|new| (new.id, None)));
        }
    }
    for job in jobs {
        if job.fold() != Some(job.state()) {
            return Err(format!("the history does not fold to the state: {job:#?}"));
        }
        let spawned = ends.insert(job.id, Some(job));
        spawned.ok_or_else(|| format!("nobody spawned it: {job:#?}"))?;
    }
    let mut ends = ends.into_iter();
    ends.try_for_each(|(job, end)| serial::explain(job, calls, end))
}

/// What can be said of a call for itself.
fn well_formed(call: &Call, calls: &[Call]) -> Result<(), String> {
    let refused = call.command.check();
    match (&call.outcome, refused) {
        (Outcome::Unchanged(StoreError::Rejected(told)), Err(refused)) if *told == refused => {
            return Ok(());
        }
        (Outcome::Unchanged(StoreError::Failed(text)), Ok(())) if may_fail(text, call, calls) => {}
        (Outcome::Replied(_) | Outcome::Unknown, Ok(())) => {}
        _ => return Err(format!("not an answer to expect: {call:#?}")),
    }
    match (&call.command, &call.outcome) {
        (Command::Claim(claim), Outcome::Replied(Reply::Claimed(claimed))) => {
            within_quotas(claim, claimed)
        }
        _ => Ok(()),
    }
}

/// A statement that was given up on can leave its locks until it ends: others run
/// into their timeouts then. And a unique job takes two locks, that of its id and
/// that of its type, so a batch with one can be part of a deadlock, of which it need
/// not be the victim.
fn may_fail(text: &str, call: &Call, calls: &[Call]) -> bool {
    let timed_out = ["(55P03)", "(57014)"]
        .iter()
        .any(|code| text.contains(code));
    timed_out || (text.contains("(40P01)") && may_deadlock(call, calls))
}

fn may_deadlock(call: &Call, calls: &[Call]) -> bool {
    let Some(jobs) = batch(call) else {
        return false;
    };
    let with_unique_job = |of: &Call| {
        batch(of).is_some_and(|others| {
            let unique = others.iter().any(|other| other.unique_type);
            let in_common = |other: &NewJob| jobs.iter().any(|job| job.id == other.id);
            unique && others.iter().any(in_common)
        })
    };
    let during = |other: &&Call| other.invoked < call.returned && call.invoked < other.returned;
    calls.iter().filter(during).any(with_unique_job)
}

/// The jobs of a spawn of more than one.
fn batch(call: &Call) -> Option<&[NewJob]> {
    match &call.command {
        Command::Spawn(jobs) if jobs.len() > 1 => Some(jobs),
        _ => None,
    }
}

fn within_quotas(claim: &Claim, claimed: &Claimed) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{what}: {claim:#?}\n{claimed:#?}"));
    if !claimed
        .jobs
        .is_sorted_by_key(|job| (job.due_at, job.run.job))
    {
        return wrong("not in order");
    }
    // A repeat returns what the claim took before, whatever it asks for now.
    for quota in claim.quotas.iter().filter(|_| !claim.repeat) {
        let jobs = claimed.jobs.iter();
        let taken = jobs.filter(|job| job.job_type == quota.job_type).count();
        if taken > quota.jobs_max as usize {
            return wrong("more than asked for");
        }
    }
    Ok(())
}

/// A spawn is refused for its type only where the unique job of that type may
/// have been there.
fn unique_types(calls: &[Call], jobs: &[Snapshot]) -> Result<(), String> {
    let mut unique: BTreeMap<&JobType, JobId> = BTreeMap::new();
    for job in jobs.iter().filter(|job| job.unique_type) {
        if unique.insert(&job.job_type, job.id).is_some() {
            return Err(format!("two unique jobs of {}", job.job_type.as_str()));
        }
    }
    let spawns = |call: &Call| match (&call.command, &call.outcome) {
        (Command::Spawn(new), Outcome::Replied(Reply::Spawned(told))) => {
            new.iter().cloned().zip(told.clone()).collect()
        }
        _ => Vec::new(),
    };
    for call in calls {
        for (new, told) in spawns(call) {
            let Spawned::DuplicateUniqueType(existing) = told else {
                continue;
            };
            let holder = unique.get(&new.job_type).copied();
            let holder = holder.ok_or_else(|| format!("no unique job refused {call:#?}"))?;
            if holder != existing {
                return Err(format!("{holder} is not the one that was told: {call:#?}"));
            }
            let before = calls.iter().any(|other| {
                let Command::Spawn(jobs) = &other.command else {
                    return false;
                };
                other.invoked < call.returned && jobs.iter().any(|job| job.id == holder)
            });
            if !before {
                return Err(format!("{holder} came later than {call:#?}"));
            }
        }
    }
    Ok(())
}

fn count(calls: &[Call], counts: &mut Counts) {
    use job_engine::store::Written::Stale;
    for call in calls {
        match &call.outcome {
            Outcome::Replied(reply) => {
                counts.replied += 1;
                let stale = match reply {
                    Reply::Finished(told) | Reply::Heartbeat(told) => told.contains(&Stale),
                    Reply::Checkpointed(told) => *told == Stale,
                    _ => false,
                };
                counts.stale += u32::from(stale);
            }
            Outcome::Unchanged(_) => counts.failed += 1,
            Outcome::Unknown => counts.unknown += 1,
        }
        let during = |other: &&Call| {
            call.invoked < other.invoked && other.invoked < call.returned.min(u64::MAX - 1)
        };
        counts.overlapping += calls.iter().filter(during).count() as u32;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_serial_order_of_concurrent_commands_explains_every_job() {
    let rounds = from_environment("JOB_SOAK_ROUNDS", 12_u64);
    let first = from_environment("JOB_SOAK_SEED", 0_u64);
    let database = TestDatabase::create().await;
    let store = PostgresStore::new(database.pool().await, StoreOptions::default()).unwrap();
    store.migrate().await.unwrap();
    let mut counts = Counts::default();
    for seed in first..first + rounds {
        if let Err(why) = round(&database, seed, &mut counts).await {
            panic!("JOB_SOAK_SEED={seed} (how commands meet differs each time): {why}");
        }
    }
    println!("{rounds} rounds: {counts:?}");
    let Counts {
        replied,
        unknown,
        overlapping,
        stale,
        ..
    } = counts;
    for (count, what) in [
        (replied, "replies"),
        (unknown, "unknown outcomes"),
        (overlapping, "overlaps"),
        (stale, "stale writes"),
    ] {
        assert!(count > 0, "no {what} in {rounds} rounds");
    }
}
