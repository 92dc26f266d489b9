//! How the statements are planned, and what they cost: nothing may depend on how
//! much there is, or on what the statistics of a queue happen to say.
//!
//! Each statement is carried out for real on two databases, one of a million jobs
//! and one that a million jobs have left behind them: on the connections of the
//! worker and, where it comes to that, on those of the application, by a plan for
//! its parameters and by one for any. [`EXPECTED`] has what it may cost.

mod databases;
mod expected;
mod explain;
mod kept;

use job_engine::{Command, store::Heartbeat};
use job_postgres::{QUERIES, StoreOptions};
use sqlx::{ConnectOptions, Executor, PgConnection, Row};

use self::databases::{Counted, Sample};
use self::expected::{By, Case, EXPECTED, Expected};
use self::explain::{Cost, carry_out, plan, prepare};
use crate::support::{
    LEASE, TestDatabase, at, claim_one, completed, finish, heartbeat, new_job, reclaim, spawn,
};

/// As on the connections of the worker. Pinned by
/// `the_worker_s_commands_rule_plans_out_that_read_a_table`.
const WORKER_SETTINGS: [(&str, &str); 7] = [
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_indexscan", "on"),
    ("enable_nestloop", "on"),
    ("jit", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    ("statement_timeout", "20000"),
];

/// A plan for any parameters, which connections keep for statements that they use
/// often, and one for the parameters at hand.
const PLANS: [&str; 2] = ["force_generic_plan", "force_custom_plan"];

/// So often does a connection use a statement before it keeps a plan for it.
const USES_UNTIL_KEPT: u32 = 6;

#[tokio::test]
async fn every_statement_is_valid_as_it_stands() {
    let (database, _store) = TestDatabase::with_store().await;
    let pool = database.pool(1);
    for (name, sql) in QUERIES {
        let prepared = pool.prepare(sql).await;
        prepared.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[tokio::test]
async fn every_statement_has_a_head_comment_and_every_file_is_used() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/queries");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let named: Vec<String> = QUERIES
        .iter()
        .map(|(name, _)| format!("{name}.sql"))
        .collect();
    assert_eq!(files, named);
    for (name, sql) in QUERIES {
        let (head, _) = sql
            .split_once("\n--\n")
            .unwrap_or_else(|| panic!("{name}: no head"));
        assert!(head.starts_with("-- "), "{name}");
        for part in ["-- Invariant: ", "-- Index: "] {
            assert!(sql.contains(part), "{name} does not say: {part}");
        }
    }
}

#[test]
fn every_statement_has_its_expected_cost() {
    // One reads all that tests of applications have spawned, whatever it costs.
    let statements = QUERIES.iter().map(|(name, _)| *name);
    let statements: Vec<&str> = statements
        .filter(|name| *name != "configs_of_type")
        .collect();
    let expected: Vec<&str> = EXPECTED.iter().map(|expected| expected.name).collect();
    assert_eq!(expected, statements);
}

/// Also not for a worker that was idle before they came: connections keep plans for
/// statements that they use often, and those for empty tables must not be bad ones for full
/// ones.
#[tokio::test]
async fn no_statement_costs_more_among_a_million_jobs() {
    let database = databases::empty().await;
    let mut idle = Connection::open(&database, By::Worker).await;
    idle.use_often(&Sample::of_nothing()).await;
    databases::fill(&database).await;
    let sample = Sample::of(&mut idle.connection).await;
    let mut faults = idle
        .check("a million jobs after idling", &sample, Pages::Few)
        .await;

    idle.connection.execute("ANALYZE").await.unwrap();
    for by in [By::Worker, By::Application] {
        let mut connection = Connection::open(&database, by).await;
        for plan in PLANS {
            connection.set_plans(plan).await;
            let what = format!("a million jobs, {plan}");
            faults.extend(connection.check(&what, &sample, Pages::Few).await);
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Dead rows that nobody has cleaned up are found in the indexes again and again.
/// A range of an index has to be read with those in it, but they are looked at
/// once: whoever finds out that a row is dead leaves a mark in the index.
#[tokio::test]
async fn no_statement_costs_more_where_a_million_jobs_were() {
    let database = databases::empty().await;
    databases::bloat(&database).await;
    let mut worker = Connection::open(&database, By::Worker).await;
    let sample = Sample::of(&mut worker.connection).await;
    let mut faults = worker
        .check("unmarked dead jobs", &sample, Pages::Any)
        .await;

    for (what, statistics) in [
        ("dead jobs, nothing counted since there was none", "SELECT"),
        ("dead jobs, and few others counted", "ANALYZE"),
    ] {
        worker.connection.execute(statistics).await.unwrap();
        for by in [By::Worker, By::Application] {
            let mut connection = Connection::open(&database, by).await;
            for plan in PLANS {
                connection.set_plans(plan).await;
                let bloated = format!("{what}, {plan}");
                faults.extend(connection.check(&bloated, &sample, Pages::FewAndDead).await);
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A queue is counted when it is full, or empty, but not when jobs begin to run. For the
/// worker only: on a connection of the application the planner may read a table of this
/// size instead, but there is one run at a time.
#[tokio::test]
async fn no_statement_costs_more_where_jobs_were_counted_before_they_ran() {
    let mut faults = Vec::new();
    for counted in [Counted::BeforeTheyRan, Counted::BeforeTheyCame] {
        let database = databases::empty().await;
        databases::burst(&database, counted).await;
        let mut worker = Connection::open(&database, By::Worker).await;
        let sample = Sample::of(&mut worker.connection).await;
        for plan in PLANS {
            worker.set_plans(plan).await;
            let what = format!("a burst, counted {counted:?}, {plan}");
            faults.extend(worker.check(&what, &sample, Pages::FewAndDead).await);
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// How many pages may be touched.
#[derive(Clone, Copy, Debug)]
enum Pages {
    /// As many as need be.
    Any,
    /// As many as expected.
    Few,
    /// Twice as many, because there are dead versions of the same rows too, and all
    /// pages of the index of which a range is read.
    FewAndDead,
}

/// A connection on which the statements are prepared that its like carries out.
struct Connection {
    by: By,
    connection: PgConnection,
}

impl Connection {
    async fn open(database: &TestDatabase, by: By) -> Self {
        let mut connection = database.options().connect().await.unwrap();
        let settings = match by {
            By::Worker => &WORKER_SETTINGS[..],
            // Whatever is wrong, the test is to end.
            By::Application => &[("statement_timeout", "20000")],
        };
        for (name, value) in settings {
            let set = format!("SET {name} = {value}");
            connection.execute(&*set).await.unwrap();
        }
        for expected in expected_of(by) {
            let (name, sql) = QUERIES
                .iter()
                .find(|(name, _)| *name == expected.name)
                .unwrap();
            prepare(&mut connection, name, sql).await;
        }
        Self { by, connection }
    }

    async fn set_plans(&mut self, plan: &str) {
        let mode = format!("SET plan_cache_mode = {plan}");
        self.connection.execute(&*mode).await.unwrap();
    }

    /// Plans everything so often that plans are kept.
    async fn use_often(&mut self, sample: &Sample) {
        for expected in expected_of(self.by) {
            let case = &(expected.cases)(sample)[0];
            for _ in 0..USES_UNTIL_KEPT {
                plan(&mut self.connection, expected.name, &case.parameters).await;
            }
        }
    }

    /// Carries everything out, and tells what was not as expected.
    async fn check(&mut self, what: &str, sample: &Sample, pages: Pages) -> Vec<String> {
        let mut faults = Vec::new();
        for expected in expected_of(self.by) {
            let (own, dead) = match (pages, expected.ranges_over) {
                (Pages::Any, _) => (0, u64::MAX),
                (Pages::Few, _) => (1, 0),
                (Pages::FewAndDead, None) => (2, 0),
                (Pages::FewAndDead, Some(index)) => {
                    (2, pages_of(&mut self.connection, index).await)
                }
            };
            for case in (expected.cases)(sample) {
                let (found, plan) = match self.cost(expected, &case).await {
                    Ok(cost) => {
                        let blocks_max = case.blocks_max(expected) * own + dead;
                        (self.faults(expected, &case, &cost, blocks_max), cost.plan)
                    }
                    Err(error) => (vec![error.to_string()], String::new()),
                };
                if !found.is_empty() {
                    let found = found.join(", ");
                    faults.push(format!(
                        "{} ({}), {:?}, {what}: {found}\n{plan}",
                        expected.name, case.what, self.by
                    ));
                }
            }
        }
        faults
    }

    /// Of two times, the pages of the cheaper one: now and then, who adds an entry
    /// to a full page of an index cleans that up first, and looks at the rows of all
    /// its entries.
    async fn cost(&mut self, expected: &Expected, case: &Case) -> Result<Cost, sqlx::Error> {
        let once = carry_out(&mut self.connection, expected.name, &case.parameters).await?;
        let again = carry_out(&mut self.connection, expected.name, &case.parameters).await?;
        let blocks = once.blocks.min(again.blocks);
        Ok(Cost { blocks, ..once })
    }

    fn faults(
        &self,
        expected: &Expected,
        case: &Case,
        cost: &Cost,
        blocks_max: u64,
    ) -> Vec<String> {
        let mut faults = Vec::new();
        if cost.scans != expected.scans {
            faults.push(format!("{:?} instead of {:?}", cost.scans, expected.scans));
        }
        // Reads the same, but leaves no mark at dead rows.
        if cost.bitmap && self.by == By::Worker {
            faults.push("a bitmap".to_owned());
        }
        if cost.returned < case.returns {
            faults.push(format!("only {} rows returned", cost.returned));
        }
        if cost.compiled {
            faults.push("compiled".to_owned());
        }
        let rows_max = case.rows_max(expected);
        if cost.rows > rows_max {
            faults.push(format!("{} rows, at most {rows_max} allowed", cost.rows));
        }
        if cost.pairs > case.pairs_max {
            faults.push(format!(
                "{} pairs compared in vain, at most {} allowed",
                cost.pairs, case.pairs_max
            ));
        }
        if cost.blocks > blocks_max {
            faults.push(format!(
                "{} pages, at most {blocks_max} allowed",
                cost.blocks
            ));
        }
        faults
    }
}

fn expected_of(by: By) -> impl Iterator<Item = &'static Expected> {
    EXPECTED
        .iter()
        .filter(move |expected| by == By::Worker || expected.by == by)
}

async fn pages_of(connection: &mut PgConnection, index: &str) -> u64 {
    let pages = format!("SELECT pg_relation_size('{index}') / current_setting('block_size')::int");
    let pages: i64 = connection.fetch_one(&*pages).await.unwrap().get(0);
    pages as u64
}

#[tokio::test]
async fn the_worker_s_commands_rule_plans_out_that_read_a_table() {
    for poll_only in [false, true] {
        let options = StoreOptions {
            poll_only,
            ..StoreOptions::default()
        };
        let (_database, store) = TestDatabase::with_options(options).await;
        for statement in [
            "CREATE TABLE seen (operation text, settings text[])",
            "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO seen SELECT TG_OP, array_agg(name || ' ' || setting ORDER BY name)
                 FROM pg_settings
                 WHERE name LIKE 'enable_%scan' AND setting = 'off'
                     OR name IN ('enable_indexscan', 'enable_nestloop', 'jit',
                         'plan_cache_mode', 'statement_timeout');
                 RETURN NULL;
             END $$",
            "CREATE TRIGGER see AFTER INSERT OR UPDATE OR DELETE ON job_live
             FOR EACH STATEMENT EXECUTE FUNCTION see()",
        ] {
            store.pool().execute(statement).await.unwrap();
        }
        spawn(&store, at(0), vec![new_job(1, "a")]).await;
        store.pool().execute("TRUNCATE seen").await.unwrap();
        let run = claim_one(&store, at(1), "a").await;
        heartbeat(&store, at(2), vec![run]).await;
        reclaim(&store, at(3), "a").await;
        finish(&store, at(4), vec![completed(run)]).await;
        let seen = "SELECT settings, count(*) FROM seen GROUP BY settings";
        let seen = store.pool().fetch_all(seen).await.unwrap();
        let mut expected = WORKER_SETTINGS.map(|(name, value)| format!("{name} {value}"));
        expected.sort();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].get::<Vec<String>, _>(0), expected);
        // Recovery has a part that updates and one that deletes.
        assert_eq!(seen[0].get::<i64, _>(1), 5);
    }
}

#[tokio::test]
async fn a_heartbeat_touches_no_index() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a")]).await;
    let run = claim_one(&store, at(1), "a").await;
    let mut transaction = store.pool().begin().await.unwrap();
    let heartbeat = Command::Heartbeat(Heartbeat {
        runs: vec![run],
        lease: LEASE,
    });
    store
        .execute_on(&mut transaction, Some(at(2)), &heartbeat)
        .await
        .unwrap();
    let hot: i64 =
        sqlx::query_scalar("SELECT pg_stat_get_xact_tuples_hot_updated('job_live'::regclass)")
            .fetch_one(&mut *transaction)
            .await
            .unwrap();
    assert_eq!(hot, 1);
}
