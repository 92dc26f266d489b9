//! What applications configure: refused with a word on what is wrong, or good for
//! a service that works.

mod service;

use std::fmt;
use std::time::Duration;

use job::backend::Backend;
use job::{JobPollerConfig, JobSvcConfig, JobSvcConfigBuilder};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tokio::runtime::{Builder, Runtime};

use crate::source::Source;

/// Bytes of the longest name that Postgres takes.
const SCHEMA_LEN_MAX: usize = 63;
/// Below 97 days, 53 bits hold every nanosecond.
const EXACT_SECS: u64 = 1 << 23;
/// What must never be seen again.
const PASSWORD: &str = "hunter2";

/// Reads a configuration, or gathers one, and puts it to use.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    match source.byte() % 8 {
        0 | 1 => {
            if let Some(poller) = json(source.rest()) {
                service::run(&mut Source::new(&[]), poller);
            }
        }
        2 => {
            while !source.is_empty() {
                let poller = poller_config(&mut source);
                written_and_read(&poller);
            }
        }
        3 => postgres(&mut source),
        4 => sqlite(&mut source),
        _ => {
            let poller = poller_config(&mut source);
            service::run(&mut source, poller);
        }
    }
}

fn poller_config(source: &mut Source<'_>) -> JobPollerConfig {
    JobPollerConfig {
        job_lost_interval: source.duration(),
        max_jobs_per_process: usize::try_from(source.u64()).unwrap_or(usize::MAX),
        min_jobs_per_process: usize::try_from(source.u64()).unwrap_or(usize::MAX),
        shutdown_timeout: source.duration(),
    }
}

/// Whoever wrote the JSON is told where it is wrong.
fn json(text: &[u8]) -> Option<JobPollerConfig> {
    match serde_json::from_slice::<JobPollerConfig>(text) {
        Ok(poller) => {
            written_and_read(&poller);
            Some(poller)
        }
        Err(error) => {
            let lines = text.split(|byte| *byte == b'\n').count();
            assert!(
                (1..=lines).contains(&error.line()),
                "{error} of {lines} lines"
            );
            None
        }
    }
}

/// A configuration that is written can be read, and is the same but for what a
/// double cannot hold of a fraction of a second.
fn written_and_read(poller: &JobPollerConfig) {
    let json = serde_json::to_string(poller).expect("a configuration can be written");
    let read = serde_json::from_str::<JobPollerConfig>(&json);
    let read = read.unwrap_or_else(|error| panic!("{error}, in {json} of {poller:?}"));
    for (written, read) in [
        (poller.job_lost_interval, read.job_lost_interval),
        (poller.shutdown_timeout, read.shutdown_timeout),
    ] {
        let exact = written.subsec_nanos() == 0 || written.as_secs() < EXACT_SECS;
        let off = match exact {
            true => Duration::ZERO,
            false => Duration::from_secs(written.as_secs() >> 52) + Duration::from_secs(1),
        };
        assert!(
            written.abs_diff(read) <= off,
            "{read:?} of {written:?}, by {json}"
        );
    }
    let counts = |of: &JobPollerConfig| (of.max_jobs_per_process, of.min_jobs_per_process);
    assert_eq!(counts(&read), counts(poller), "written and read as {json}");
}

/// The common part of every builder.
fn gather<B: Backend>(
    source: &mut Source<'_>,
    mut builder: JobSvcConfigBuilder<B>,
) -> (JobSvcConfigBuilder<B>, JobPollerConfig) {
    let poller = poller_config(source);
    builder = builder.poller_config(poller.clone());
    if source.flag() {
        builder = builder.poll_interval(source.duration());
    }
    if source.flag() {
        builder = builder.seed([source.byte(); 32]);
    }
    (builder, poller)
}

/// `wrong` names what is wrong with what was gathered, if anything is.
fn build<B: Backend + fmt::Debug>(
    builder: JobSvcConfigBuilder<B>,
    poller: &JobPollerConfig,
    wrong: Option<&[&str]>,
) {
    let shown = format!("{builder:?}");
    assert!(!shown.contains(PASSWORD), "{shown}");
    match (builder.build(), wrong) {
        (Ok(config), None) => {
            assert_eq!(config.poller_config, *poller);
            let shown = format!("{config:?}");
            assert!(!shown.contains(PASSWORD), "{shown}");
        }
        (Err(message), Some(names)) => {
            for name in names {
                assert!(message.contains(name), "{message:?} does not name {name}");
            }
        }
        (Ok(config), Some(names)) => panic!("{names:?} is wrong with {config:?}"),
        (Err(message), None) => panic!("{message:?}, and nothing is wrong with {shown}"),
    }
}

/// Pools are made inside of one.
fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().build();
    runtime.expect("a runtime needs nothing")
}

fn postgres(source: &mut Source<'_>) {
    let (mut builder, poller) = gather(source, JobSvcConfig::builder());
    let url = source.maybe(|source| format!("postgres://u:{PASSWORD}@{}", source.text()));
    let own_pool = source.flag();
    let max_connections = source.maybe(Source::u32);
    let schema = source.maybe(|source| match source.byte() {
        // About as long as it can be.
        240.. => "s".repeat(SCHEMA_LEN_MAX - 1 + source.below(4)),
        _ => source.text(),
    });
    if let Some(url) = &url {
        builder = builder.pg_con(url);
    }
    let runtime = runtime();
    if own_pool {
        let _inside = runtime.enter();
        // Opens nothing.
        let pool = PgPoolOptions::new().connect_lazy_with(PgConnectOptions::new_without_pgpass());
        builder = builder.pool(pool);
    }
    if let Some(max_connections) = max_connections {
        builder = builder.max_connections(max_connections);
    }
    if source.flag() {
        builder = builder.connect_timeout(source.duration());
    }
    if source.flag() {
        builder = builder.exec_migrations(source.flag());
    }
    if let Some(schema) = &schema {
        builder = builder.schema(schema);
    }
    builder = builder.poll_only(source.flag());
    let named =
        |name: &str| !name.is_empty() && name.len() <= SCHEMA_LEN_MAX && !name.contains('\0');
    let bad_schema = schema.is_some_and(|name| !named(&name));
    let wrong: Option<&[&str]> = match (url.is_some(), own_pool) {
        (false, false) | (true, true) => Some(&["pg_con", "pool"]),
        (false, true) if max_connections.is_some() => Some(&["max_connections"]),
        _ if bad_schema => Some(&["schema"]),
        _ => None,
    };
    build(builder, &poller, wrong);
}

fn sqlite(source: &mut Source<'_>) {
    let (mut builder, poller) = gather(source, JobSvcConfig::sqlite());
    let path = source.maybe(Source::text);
    let own_pool = source.flag();
    if let Some(path) = &path {
        builder = builder.path(path);
    }
    let runtime = runtime();
    if own_pool {
        let _inside = runtime.enter();
        let pool = SqlitePoolOptions::new().connect_lazy_with(SqliteConnectOptions::new());
        builder = builder.pool(pool);
    }
    if source.flag() {
        builder = builder.exec_migrations(source.flag());
    }
    let wrong: Option<&[&str]> = match path.is_some() == own_pool {
        true => Some(&["path", "pool"]),
        false => None,
    };
    build(builder, &poller, wrong);
}
