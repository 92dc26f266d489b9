//! However spawns of several connections interleave, committed or rolled back:
//! there is one job an id, and one unique job a type.

use std::collections::{BTreeMap, BTreeSet};

use job::error::JobError;
use job::{JobId, JobSpawner, JobSvcConfig, Jobs};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestCaseResult, TestRunner};
use serde_json::Value;
use sqlx::{PgPool, Postgres, Transaction};
use tokio::sync::{mpsc, oneshot};

use super::{config, runtime};
use crate::support::{TestDatabase, TestInitializer, eventually};

const CONNECTIONS: usize = 3;
const IDS: usize = 4;
const TYPES: [&str; 2] = ["one", "two"];

/// What one connection does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Begin,
    /// In the open transaction; for itself if there is none.
    Spawn(usize),
    /// Always for itself.
    SpawnUnique(usize, usize),
    Commit,
    RollBack,
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let step = prop_oneof![
        2 => Just(Step::Begin),
        5 => (0..IDS).prop_map(Step::Spawn),
        3 => (0..TYPES.len(), 0..IDS).prop_map(|(of, id)| Step::SpawnUnique(of, id)),
        2 => Just(Step::Commit),
        1 => Just(Step::RollBack),
    ];
    proptest::collection::vec((0..CONNECTIONS, step), 0..30)
}

/// What a spawner is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Created,
    DuplicateId,
    /// There was a unique one already, perhaps this.
    Unique,
    Done,
}

/// A connection: does one step after the other.
struct Client {
    steps: mpsc::UnboundedSender<(Action, oneshot::Sender<Result<Told, String>>)>,
}

/// A step with the ids that it is about.
enum Action {
    Begin,
    Spawn(JobId),
    SpawnUnique(usize, JobId),
    Commit,
    RollBack,
}

impl Client {
    fn start(pool: PgPool, plain: JobSpawner<Value>, unique: Vec<JobSpawner<Value>>) -> Self {
        let (steps, mut todo) = mpsc::unbounded_channel::<(Action, oneshot::Sender<_>)>();
        tokio::spawn(async move {
            let mut open: Option<Transaction<'static, Postgres>> = None;
            while let Some((action, tell)) = todo.recv().await {
                let told = match action {
                    Action::Begin => {
                        open = Some(pool.begin().await.unwrap());
                        Ok(Told::Done)
                    }
                    Action::Spawn(id) => match &mut open {
                        Some(open) => told(plain.spawn_in_op(open, id, Value::Null).await),
                        None => told(plain.spawn(id, Value::Null).await),
                    },
                    Action::SpawnUnique(of, id) => {
                        let spawned = unique[of].clone().spawn_unique(id, Value::Null).await;
                        match told(spawned) {
                            Ok(Told::Created) => Ok(Told::Unique),
                            other => other,
                        }
                    }
                    Action::Commit => {
                        open.take().unwrap().commit().await.unwrap();
                        Ok(Told::Done)
                    }
                    Action::RollBack => {
                        open.take().unwrap().rollback().await.unwrap();
                        Ok(Told::Done)
                    }
                };
                let _ = tell.send(told);
            }
        });
        Self { steps }
    }

    fn does(&self, action: Action) -> oneshot::Receiver<Result<Told, String>> {
        let (tell, told) = oneshot::channel();
        assert!(
            self.steps.send((action, tell)).is_ok(),
            "the client is there"
        );
        told
    }
}

fn told<T>(result: Result<T, JobError>) -> Result<Told, String> {
    match result {
        Ok(_) => Ok(Told::Created),
        Err(JobError::DuplicateId(_)) => Ok(Told::DuplicateId),
        Err(error) => Err(error.to_string()),
    }
}

/// What must be.
#[derive(Default)]
struct Expected {
    exists: BTreeSet<usize>,
    unique: BTreeMap<usize, usize>,
    /// What open transactions have created.
    open: BTreeMap<usize, BTreeSet<usize>>,
    /// Who waits for the transaction of whom, and to create what.
    waits: BTreeMap<usize, Wait>,
}

struct Wait {
    holder: usize,
    step: Step,
    told: oneshot::Receiver<Result<Told, String>>,
}

impl Expected {
    /// The connection whose open transaction has created this job, if it is
    /// another's.
    fn holder(&self, id: usize, but: usize) -> Option<usize> {
        let mut open = self.open.iter();
        let holder = open.find(|(who, created)| **who != but && created.contains(&id));
        holder.map(|(who, _)| *who)
    }

    /// Whether `who` waits for `whom` in the end.
    fn waits_for(&self, who: usize, whom: usize) -> bool {
        let mut at = who;
        while let Some(wait) = self.waits.get(&at) {
            at = wait.holder;
            if at == whom {
                return true;
            }
        }
        false
    }

    /// What a spawn that need not wait leads to.
    fn spawns(&mut self, who: usize, step: Step) -> Told {
        match step {
            Step::Spawn(id) => {
                let own = self.open.get(&who).is_some_and(|own| own.contains(&id));
                if own || self.exists.contains(&id) {
                    return Told::DuplicateId;
                }
                match self.open.get_mut(&who) {
                    Some(own) => own.insert(id),
                    None => self.exists.insert(id),
                };
                Told::Created
            }
            Step::SpawnUnique(of, id) => {
                if self.exists.contains(&id) {
                    return Told::DuplicateId;
                }
                if let std::collections::btree_map::Entry::Vacant(none) = self.unique.entry(of) {
                    none.insert(id);
                    self.exists.insert(id);
                }
                Told::Unique
            }
            Step::Begin | Step::Commit | Step::RollBack => unreachable!("no spawn"),
        }
    }
}

/// A service without a poller, and a client for each connection.
struct Stage {
    jobs: Jobs,
    clients: Vec<Client>,
    ids: Vec<JobId>,
    expected: Expected,
}

impl Stage {
    async fn set(database: &TestDatabase, pool: &PgPool) -> Self {
        sqlx::query("DELETE FROM job_specs")
            .execute(pool)
            .await
            .unwrap();
        sqlx::query("DELETE FROM job_live")
            .execute(pool)
            .await
            .unwrap();
        let config = JobSvcConfig::builder()
            .pg_con(database.url())
            .max_connections(2 * CONNECTIONS as u32);
        let mut jobs = Jobs::init(config.build().unwrap()).await.unwrap();
        let plain = jobs.add_initializer(TestInitializer::completing("plain"));
        let unique: Vec<_> = TYPES
            .map(|of| jobs.add_initializer(TestInitializer::completing(of)))
            .into();
        let clients = (0..CONNECTIONS)
            .map(|_| Client::start(jobs.pool().clone(), plain.clone(), unique.clone()))
            .collect();
        Self {
            jobs,
            clients,
            ids: (0..IDS).map(|_| JobId::new()).collect(),
            expected: Expected::default(),
        }
    }

    /// One step; those that make no sense here are passed over.
    async fn step(&mut self, who: usize, step: Step) -> TestCaseResult {
        let expected = &mut self.expected;
        if expected.waits.contains_key(&who) {
            return Ok(());
        }
        let open = expected.open.contains_key(&who);
        match step {
            Step::Begin if !open => {
                expected.open.insert(who, BTreeSet::new());
                self.tells(who, Action::Begin, Told::Done).await
            }
            Step::Commit | Step::RollBack if open => self.ends(who, step).await,
            Step::Spawn(id) | Step::SpawnUnique(_, id) => {
                // For itself it would wait for its own transaction for ever.
                let alone = matches!(step, Step::SpawnUnique(..));
                let but = if alone { usize::MAX } else { who };
                let action = match step {
                    Step::SpawnUnique(of, _) => Action::SpawnUnique(of, self.ids[id]),
                    _ => Action::Spawn(self.ids[id]),
                };
                let Some(holder) = expected.holder(id, but) else {
                    let told = expected.spawns(who, step);
                    return self.tells(who, action, told).await;
                };
                let taken = expected.waits.values().any(|wait| match wait.step {
                    Step::Spawn(other) | Step::SpawnUnique(_, other) => other == id,
                    _ => false,
                });
                if holder == who || taken || expected.waits_for(holder, who) {
                    return Ok(());
                }
                let told = self.clients[who].does(action);
                expected.waits.insert(who, Wait { holder, step, told });
                let waiting = expected.waits.len() as i64;
                self.blocked(waiting).await;
                Ok(())
            }
            Step::Begin | Step::Commit | Step::RollBack => Ok(()),
        }
    }

    async fn tells(&self, who: usize, action: Action, expected: Told) -> TestCaseResult {
        let told = self.clients[who].does(action).await.unwrap();
        prop_assert_eq!(told, Ok(expected));
        Ok(())
    }

    /// A transaction ends, and who waited for it goes on.
    async fn ends(&mut self, who: usize, step: Step) -> TestCaseResult {
        let created = self.expected.open.remove(&who).unwrap();
        let action = match step {
            Step::Commit => {
                self.expected.exists.extend(created);
                Action::Commit
            }
            _ => Action::RollBack,
        };
        self.tells(who, action, Told::Done).await?;
        let waits = std::mem::take(&mut self.expected.waits);
        for (waiter, wait) in waits {
            if wait.holder == who {
                let expected = self.expected.spawns(waiter, wait.step);
                prop_assert_eq!(wait.told.await.unwrap(), Ok(expected));
            } else {
                self.expected.waits.insert(waiter, wait);
            }
        }
        Ok(())
    }

    /// Waits until so many connections wait for another.
    async fn blocked(&self, count: i64) {
        eventually("a spawn waits for an open transaction", async || {
            let blocked = "SELECT count(*) FROM pg_stat_activity \
                           WHERE datname = current_database() AND wait_event_type = 'Lock'";
            let blocked: i64 = sqlx::query_scalar(blocked)
                .fetch_one(self.jobs.pool())
                .await
                .unwrap();
            (blocked == count).then_some(())
        })
        .await;
    }

    /// All transactions end, and what is there is what must be.
    async fn judge(mut self) -> TestCaseResult {
        while let Some(who) = self
            .expected
            .open
            .keys()
            .copied()
            .find(|who| !self.expected.waits.contains_key(who))
        {
            self.ends(who, Step::RollBack).await?;
        }
        for (n, id) in self.ids.iter().enumerate() {
            match self.jobs.find(*id).await {
                Ok(_) => prop_assert!(self.expected.exists.contains(&n), "{id} should not be"),
                Err(JobError::NotFound(_)) => {
                    prop_assert!(!self.expected.exists.contains(&n), "{id} should be");
                }
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            }
        }
        let unique = "SELECT count(*) FROM job_specs WHERE unique_type";
        let unique: i64 = sqlx::query_scalar(unique)
            .fetch_one(self.jobs.pool())
            .await
            .unwrap();
        prop_assert_eq!(unique, self.expected.unique.len() as i64);
        self.jobs.pool().close().await;
        Ok(())
    }
}

#[test]
fn ids_and_unique_types_are_unique_however_spawns_interleave() {
    let runtime = runtime();
    let (database, pool) = runtime.block_on(async {
        let database = TestDatabase::create().await;
        let config = JobSvcConfig::builder().pg_con(database.url());
        let jobs: Jobs = Jobs::init(config.build().unwrap()).await.unwrap();
        (database, jobs.pool().clone())
    });
    let mut runner = TestRunner::new(config(40));
    let checked = runner.run(&steps(), |steps| {
        runtime.block_on(async {
            let mut stage = Stage::set(&database, &pool).await;
            for (who, step) in steps {
                stage.step(who, step).await?;
            }
            stage.judge().await
        })
    });
    checked.unwrap_or_else(|failure| panic!("{failure}"));
}
