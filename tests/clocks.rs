//! Two artificial clocks on one database.

use std::sync::Arc;

use job::testing::TestJobs;
use job::{
    ArtificialClockConfig, ClockHandle, JobError, JobId, JobSvcConfig, JobSvcConfigBuilder, Jobs,
    Sqlite,
};
use serde_json::Value;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::support::{TestBackend, TestDatabase, TestInitializer, ended};

/// Two that start at once must not be lucky.
const RACES: usize = 10;

/// Runs each test on each backend that has a database.
macro_rules! on_every_database {
    ($($test:ident),* $(,)?) => {
        on_every_database!(@ sqlite Sqlite, $($test),*);
        on_every_database!(@ postgres Postgres, $($test),*);
    };
    (@ $module:ident $backend:ident, $($test:ident),*) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test::<job::$backend>().await;
                }
            )*
        }
    };
}

on_every_database![
    a_second_artificial_clock_is_refused_and_told_what_to_do,
    clones_of_a_clock_are_one_clock,
    a_service_in_real_time_is_let_alone,
    a_second_clock_is_let_in_when_the_first_service_is_dropped,
    a_second_clock_is_let_in_when_the_first_service_is_shut_down,
    of_two_clocks_that_start_at_once_exactly_one_wins,
    a_second_test_on_the_same_tables_is_refused,
];

fn artificial() -> ClockHandle {
    ClockHandle::artificial(ArtificialClockConfig::manual()).0
}

async fn open<B: TestBackend>(
    config: JobSvcConfigBuilder<B>,
    clock: &ClockHandle,
) -> Result<Jobs<B>, JobError> {
    Jobs::init(config.clock(clock.clone()).build().unwrap()).await
}

/// The text of the refusal.
fn refusal<T>(opened: Result<T, JobError>) -> String {
    match opened {
        Err(error @ JobError::Config(_)) => error.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the second clock was let in"),
    }
}

async fn a_second_artificial_clock_is_refused_and_told_what_to_do<B: TestBackend>() {
    let place = B::place().await;
    let first = open(B::on(&place), &artificial()).await.unwrap();
    let (auto, _controller) = ClockHandle::artificial(ArtificialClockConfig::auto(2.0));
    let text = refusal(open(B::on(&place), &auto).await);
    for part in [
        "the configuration is wrong: another artificial clock is in use on the same job tables",
        "share one ClockHandle between the services (its clones are one clock)",
        "give each test a",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    drop(first);
}

#[tokio::test]
async fn the_refusal_names_the_session_of_the_other_service() {
    let database = TestDatabase::create().await;
    let named = database.url() + "?application_name=billing";
    let config = JobSvcConfig::builder().pg_con(named);
    let first = open(config, &artificial()).await.unwrap();
    let config = JobSvcConfig::builder().pg_con(database.url());
    let text = refusal(open(config, &artificial()).await);
    assert!(text.contains("the application name \"billing\""), "{text}");
    let pids: Vec<i32> = sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'billing'",
    )
    .fetch_all(first.pool())
    .await
    .unwrap();
    let named = |pid: &i32| text.contains(&format!("the pid {pid} "));
    assert!(pids.iter().any(named), "{pids:?}: {text}");
}

#[tokio::test]
async fn the_refusal_names_the_file() {
    let place = Sqlite::place().await;
    let first = open(Sqlite::on(&place), &artificial()).await.unwrap();
    let text = refusal(open(Sqlite::on(&place), &artificial()).await);
    let file = place.path().join("jobs.db").canonicalize().unwrap();
    assert!(text.contains(&format!("{file:?}")), "{text}");
    // By the pool of an application, too.
    let pool = JobSvcConfig::sqlite().pool(first.pool().clone());
    assert_eq!(refusal(open(pool, &artificial()).await), text);
}

async fn clones_of_a_clock_are_one_clock<B: TestBackend>() {
    let place = B::place().await;
    let clock = artificial();
    let mut one = open(B::on(&place), &clock).await.unwrap();
    let mut other = open(B::on(&place), &clock.clone()).await.unwrap();
    let spawner = one.add_initializer(TestInitializer::completing("shared"));
    other.add_initializer(TestInitializer::completing("shared"));
    one.start_poll().await.unwrap();
    other.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    ended(&other, id).await;
}

/// Documented as not detected: an application may look at its jobs with a tool that
/// knows nothing of the clock.
async fn a_service_in_real_time_is_let_alone<B: TestBackend>() {
    let place = B::place().await;
    let real = open(B::on(&place), &ClockHandle::realtime()).await.unwrap();
    let clock = artificial();
    let artificial = open(B::on(&place), &clock).await.unwrap();
    let another = open(B::on(&place), &ClockHandle::realtime()).await.unwrap();
    drop((real, artificial, another));
}

async fn a_second_clock_is_let_in_when_the_first_service_is_dropped<B: TestBackend>() {
    let place = B::place().await;
    for round in 0..2 {
        let mut jobs = open(B::on(&place), &artificial()).await.unwrap();
        let spawner = jobs.add_initializer(TestInitializer::completing("here"));
        jobs.start_poll().await.unwrap();
        let id = JobId::new();
        spawner.spawn(id, Value::Null).await.unwrap();
        ended(&jobs, id).await;
        if round == 0 {
            jobs.shutdown().await.unwrap();
        }
    }
    open(B::on(&place), &artificial()).await.unwrap();
}

async fn a_second_clock_is_let_in_when_the_first_service_is_shut_down<B: TestBackend>() {
    let place = B::place().await;
    let mut first = open(B::on(&place), &artificial()).await.unwrap();
    let spawner = first.add_initializer(TestInitializer::completing("here"));
    first.start_poll().await.unwrap();
    first.shutdown().await.unwrap();
    let second = open(B::on(&place), &artificial()).await.unwrap();
    // Spawning goes on.
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    second.find(id).await.unwrap();
}

/// Each time on a database of its own, since the one that loses tries for 5 s.
async fn of_two_clocks_that_start_at_once_exactly_one_wins<B: TestBackend>() {
    let mut places = Vec::new();
    let mut races = JoinSet::new();
    for race in 0..RACES {
        let place = B::place().await;
        let start = Arc::new(Barrier::new(2));
        let starts = [(); 2].map(|()| {
            let config = B::on(&place).clock(artificial()).build().unwrap();
            let start = Arc::clone(&start);
            tokio::spawn(async move {
                start.wait().await;
                Jobs::init(config).await
            })
        });
        races.spawn(async move {
            let [one, other] = starts;
            (race, [one.await.unwrap(), other.await.unwrap()])
        });
        places.push(place);
    }
    for (race, ends) in races.join_all().await {
        let won = ends.iter().filter(|end| end.is_ok()).count();
        let lost: Vec<_> = ends.iter().filter_map(|end| end.as_ref().err()).collect();
        assert_eq!(won, 1, "race {race}: {lost:?}");
        refusal(ends.into_iter().find(Result::is_err).unwrap());
    }
}

async fn a_second_test_on_the_same_tables_is_refused<B: TestBackend>() {
    let place = B::place().await;
    let first = TestJobs::open(B::on(&place)).await.unwrap();
    refusal(TestJobs::open(B::on(&place)).await);
    drop(first);
    TestJobs::open(B::on(&place)).await.unwrap();
}

#[tokio::test]
async fn each_schema_may_have_a_clock_of_its_own() {
    let database = TestDatabase::create().await;
    let mut services = Vec::new();
    for schema in ["one", "odd \"'name"] {
        let config = JobSvcConfig::builder()
            .pg_con(database.url())
            .schema(schema);
        services.push(open(config, &artificial()).await.unwrap());
    }
}

#[tokio::test]
async fn behind_a_pooler_clocks_are_not_told_apart() {
    let database = TestDatabase::create().await.behind_a_pooler();
    let mut services = Vec::new();
    for _ in 0..2 {
        let config = JobSvcConfig::builder()
            .pg_con(database.url())
            .poll_only(true);
        services.push(open(config, &artificial()).await.unwrap());
    }
}

#[tokio::test]
async fn services_in_memory_share_no_tables() {
    let mut services = Vec::new();
    for _ in 0..2 {
        let config = JobSvcConfig::sqlite().path(":memory:");
        services.push(open(config, &artificial()).await.unwrap());
    }
}
