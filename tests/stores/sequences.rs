//! Sequences of commands on the model and on the real stores, in lockstep: every
//! reply agrees, and after every step every job.
//!
//! A sequence that fails shrinks, and is written to `tests/stores/cases/`, where
//! it stays as a test. `JOB_SOAK_SEQUENCES` says how many are tried (default 150),
//! and `JOB_SOAK_SEED` which (default 0).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use job_engine::store::Spawned;
use job_engine::{Command, ModelStore, Reply, Snapshot, StoreError, Timestamp};
use job_postgres::{PostgresStore, StoreOptions};
use job_sqlite::SqliteStore;
use job_tokio::Store;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use proptest_state_machine::ReferenceStateMachine;
use serde::{Deserialize, Serialize};

use super::commands::{Commands, Known, Passes, Step};
use super::tables::{PostgresTables, SqliteTables, Tables};
use crate::support::{TestDatabase, from_environment};

/// Commands of a sequence.
const LEN: std::ops::Range<usize> = 50..70;

/// A sequence that once failed.
#[derive(Serialize, Deserialize)]
struct Case {
    /// What went wrong.
    why: String,
    steps: Vec<Step>,
}

/// A store, its name, and its tables.
struct Subject<S, T> {
    name: &'static str,
    store: S,
    tables: T,
}

impl<S: Store, T: Tables> Subject<S, T> {
    /// Compares it with the model on a sequence, from an empty store on. Says
    /// where they differ.
    async fn agrees(&self, steps: &[Step], mut seen: impl FnMut(&Reply)) -> Result<(), String> {
        self.tables.clear().await;
        let mut model = ModelStore::new();
        let mut now = Known::default().now;
        for (n, Step { passes, command }) in steps.iter().enumerate() {
            now = passes.after(now);
            let expected = model.apply(now, command).map_err(StoreError::from);
            let reply = self.store.execute(Some(now), command).await;
            let at = || format!("{}, step {n}, at {now}, {command:?}", self.name);
            if reply != expected {
                let at = at();
                return Err(format!("{at}:\nmodel {expected:#?}\nstore {reply:#?}"));
            }
            let jobs = self.tables.rows().await.jobs();
            let jobs = jobs.map_err(|error| format!("{}: {error}", at()))?;
            if !jobs.iter().eq(model.jobs()) {
                let expected: Vec<&Snapshot> = model.jobs().collect();
                return Err(format!("{}:\nmodel {expected:#?}\nstore {jobs:#?}", at()));
            }
            reply.iter().for_each(&mut seen);
        }
        self.reads_as(&model).await
    }

    /// The store's own reading, and the history of each job.
    async fn reads_as(&self, model: &ModelStore) -> Result<(), String> {
        let mut read = model.clone();
        for job in model.jobs() {
            let find = Command::Find(job.id);
            let found = self.store.execute(None, &find).await;
            let expected = read.apply(Timestamp::EPOCH, &find);
            let expected = expected.map_err(StoreError::from);
            if found != expected {
                return Err(format!("{} reads {found:#?}, not {job:#?}", self.name));
            }
            if job.fold() != Some(job.state()) {
                return Err(format!("the history does not fold to the state: {job:#?}"));
            }
        }
        Ok(())
    }
}

/// What is compared with the model.
struct Subjects {
    postgres: Vec<Subject<PostgresStore, PostgresTables>>,
    sqlite: Subject<SqliteStore, SqliteTables>,
    _database: TestDatabase,
}

impl Subjects {
    async fn open() -> Self {
        let database = TestDatabase::create().await;
        let pool = database.pool().await;
        let in_schema = StoreOptions {
            schema: Some("odd \"name\".with 'quotes'".to_owned()),
            ..StoreOptions::default()
        };
        let pooled = StoreOptions {
            schema: Some("pooled".to_owned()),
            poll_only: true,
            ..StoreOptions::default()
        };
        let mut postgres = Vec::new();
        for (name, options) in [
            ("Postgres", StoreOptions::default()),
            ("Postgres, in a schema", in_schema),
            ("Postgres, behind a pooler", pooled),
        ] {
            let tables = PostgresTables::new(pool.clone(), options.schema.as_deref());
            let store = PostgresStore::new(pool.clone(), options).unwrap();
            store.migrate().await.unwrap();
            postgres.push(Subject {
                name,
                store,
                tables,
            });
        }
        let store = SqliteStore::open(":memory:").await.unwrap();
        store.migrate().await.unwrap();
        let sqlite = Subject {
            name: "SQLite",
            tables: SqliteTables(store.pool().clone()),
            store,
        };
        Self {
            postgres,
            sqlite,
            _database: database,
        }
    }

    async fn agree(&self, postgres: usize, steps: &[Step]) -> Result<(), String> {
        self.postgres[postgres].agrees(steps, |_| ()).await?;
        self.sqlite.agrees(steps, |_| ()).await
    }
}

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stores/cases")
}

/// Keeps a sequence as a test, and says where.
fn keep(why: &str, steps: Vec<Step>) -> PathBuf {
    let first_line = why.lines().next().unwrap_or_default().to_owned();
    let case = Case {
        why: first_line,
        steps: without_idle(steps),
    };
    let json = serde_json::to_string_pretty(&case).unwrap() + "\n";
    let name = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, json.as_bytes());
    let path = cases().join(format!("found-{name}.json"));
    fs::write(&path, json).unwrap();
    path
}

/// Leaves out what shrank to nothing but the time that it takes.
fn without_idle(steps: Vec<Step>) -> Vec<Step> {
    let mut kept = Vec::new();
    let mut idle = 0;
    for Step { passes, command } in steps {
        let passes = match passes {
            Passes::Micros(micros) => Passes::Micros(micros + std::mem::take(&mut idle)),
            Passes::To(at) => Passes::To(at),
        };
        match (passes, &command) {
            (Passes::Micros(micros), Command::Spawn(jobs)) if jobs.is_empty() => idle = micros,
            _ => kept.push(Step { passes, command }),
        }
    }
    kept
}

fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap()
}

#[test]
fn random_sequences_give_what_the_model_gives() {
    let sequences = from_environment("JOB_SOAK_SEQUENCES", 150);
    let seed = from_environment("JOB_SOAK_SEED", 0_u64);
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases: sequences,
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &key);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let runtime = runtime();
    let subjects = runtime.block_on(Subjects::open());
    let met = RefCell::new(BTreeMap::new());
    let steps_seen = Cell::new(0);
    // The plain form most often.
    let variant = proptest::sample::select(&[0, 0, 0, 1, 2]);
    let strategy = (Commands::sequential_strategy(LEN), variant);
    let result = runner.run(&strategy, |((_, steps, seen), variant)| {
        if let Some(seen) = seen {
            seen.store(steps.len(), Ordering::SeqCst);
        }
        steps_seen.set(steps_seen.get() + steps.len());
        let agree = async {
            let postgres = &subjects.postgres[variant];
            let note = |reply: &Reply| note(&mut met.borrow_mut(), reply);
            let (postgres, sqlite) = tokio::join!(
                postgres.agrees(&steps, note),
                subjects.sqlite.agrees(&steps, |_| ())
            );
            postgres.and(sqlite)
        };
        runtime.block_on(agree).map_err(TestCaseError::fail)
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, ((_, steps, _), _))) => {
            let path = keep(why.message(), steps);
            panic!(
                "{why}\n\nThe shortest such sequence is kept in {}",
                path.display()
            );
        }
        Err(error) => panic!("{error}"),
    }
    let met = met.into_inner();
    println!(
        "{sequences} sequences, {} steps: {met:#?}",
        steps_seen.get()
    );
    for rare in RARE {
        assert!(met.contains_key(*rare), "never met: {rare}");
    }
}

/// Without these, the sequences would be worth little.
const RARE: &[&str] = &[
    "spawn Created",
    "spawn DuplicateId",
    "spawn DuplicateUniqueType",
    "claimed a job",
    "left a job",
    "hold Applied",
    "hold Stale",
    "told when the next is due",
    "finish Applied",
    "finish Stale",
    "heartbeat Applied",
    "heartbeat Stale",
    "checkpoint Applied",
    "checkpoint Stale",
    "reclaim Lost",
    "reclaim Abandoned",
];

fn note(met: &mut BTreeMap<String, u32>, reply: &Reply) {
    let mut add = |what: String| *met.entry(what).or_default() += 1;
    match reply {
        Reply::Spawned(all) => all.iter().for_each(|one| {
            add(match one {
                Spawned::DuplicateUniqueType(_) => "spawn DuplicateUniqueType".to_owned(),
                one => format!("spawn {one:?}"),
            });
        }),
        Reply::Claimed(claimed) => {
            let jobs = claimed.jobs.iter();
            jobs.for_each(|_| add("claimed a job".to_owned()));
            let left = claimed.left.iter();
            left.for_each(|_| add("left a job".to_owned()));
            let hints = claimed.next_due.iter();
            hints.for_each(|_| add("told when the next is due".to_owned()));
        }
        Reply::Finished(all) => all.iter().for_each(|one| add(format!("finish {one:?}"))),
        Reply::Heartbeat(all) => all.iter().for_each(|one| add(format!("heartbeat {one:?}"))),
        Reply::Held(one) => add(format!("hold {one:?}")),
        Reply::Checkpointed(one) => add(format!("checkpoint {one:?}")),
        Reply::Reclaimed(all) => all
            .iter()
            .for_each(|one| add(format!("reclaim {:?}", one.end))),
        Reply::Found(_) | Reply::History(_) => {}
    }
}

#[test]
fn every_sequence_that_once_failed_gives_what_the_model_gives() {
    let runtime = runtime();
    let subjects = runtime.block_on(Subjects::open());
    let mut count = 0;
    for entry in fs::read_dir(cases()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let json = fs::read_to_string(&path).unwrap();
        let case: Case = serde_json::from_str(&json)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for variant in 0..subjects.postgres.len() {
            let agree = runtime.block_on(subjects.agree(variant, &case.steps));
            agree.unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        }
        count += 1;
    }
    assert!(count > 0, "there are no cases");
}
