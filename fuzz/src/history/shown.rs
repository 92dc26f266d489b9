//! A history as applications see it.
//!
//! The service reads it from a store that knows one job and nothing else.

use job::backend::{Backend, NoOperation, NotAnOperationOf};
use job::{ClockHandle, Job, JobError, JobEventKind, JobState, JobSvcConfig, Jobs};
use job_engine::history::Snapshot;
use job_engine::lifecycle::State;
use job_engine::{Command, Reply, StoreError, Timestamp};
use job_tokio::{Store, to_datetime};

use super::written_and_read;

/// A job is shown as its history says.
pub(super) fn check(snapshot: &Snapshot) {
    let job = found(snapshot);
    let state = match snapshot.state() {
        State::Pending => JobState::Pending,
        State::Running => JobState::Running,
        State::Completed => JobState::Completed,
        State::Errored => JobState::Errored,
    };
    assert_eq!(job.state(), state);
    assert_eq!(job.completed(), snapshot.live.is_none());
    let live = snapshot.live.as_ref();
    assert_eq!(job.due_at(), live.map(|live| to_datetime(live.due_at)));

    let running = live.is_some_and(|live| live.lease.is_some());
    let started = snapshot.runs.len() + usize::from(running);
    let events = job.events();
    assert_eq!(events.len(), 1 + started + snapshot.runs.len());
    assert_eq!(events[0].kind, JobEventKind::Spawned);
    let starts = events
        .iter()
        .filter(|event| matches!(event.kind, JobEventKind::Started { .. }));
    assert_eq!(starts.count(), started);
    events.iter().for_each(written_and_read);

    let failed = snapshot.runs.iter().rev().find(|run| {
        use job_engine::lifecycle::RunEnd::{Abandoned, Errored, Retried, Undecodable};
        matches!(run.end, Abandoned | Errored | Retried | Undecodable)
    });
    let last_error = failed.map(|run| run.error.as_ref().map_or("", |error| error.as_str()));
    assert_eq!(job.last_error(), last_error);
    let config = job.config::<serde_json::Value>();
    let expected = serde_json::from_str::<serde_json::Value>(snapshot.config.as_str());
    assert_eq!(config.ok(), expected.ok());
}

fn found(snapshot: &Snapshot) -> Job {
    let told = Told {
        snapshot: Some(Box::new(snapshot.clone())),
    };
    let config = JobSvcConfig::<OneJob>::with_backend(told).seed([0; 32]);
    let config = config.build().expect("nothing can be wrong with it");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime needs nothing");
    runtime.block_on(async {
        let jobs = Jobs::init(config).await.expect("nothing has to be opened");
        let job = jobs.find(snapshot.id.into()).await;
        job.expect("the store knows the job")
    })
}

enum OneJob {}

/// The store, and what it knows.
#[derive(Clone, Debug, Default)]
struct Told {
    snapshot: Option<Box<Snapshot>>,
}

impl Store for Told {
    async fn execute(&self, _: Option<Timestamp>, _: &Command) -> Result<Reply, StoreError> {
        Ok(Reply::Found(self.snapshot.clone()))
    }
}

impl Backend for OneJob {
    type Options = Told;
    type Pool = ();
    type Transaction = NoOperation;
    type Operation = NoOperation;
    type Store = Told;

    fn check(_: &Told) -> Result<(), String> {
        Ok(())
    }

    async fn open(told: Told, _: &ClockHandle) -> Result<((), Told), JobError> {
        Ok(((), told))
    }

    async fn begin_transaction((): &()) -> Result<NoOperation, StoreError> {
        Err(StoreError::Failed("there are no transactions".to_owned()))
    }

    async fn close(_: &Told) {}
}

impl NotAnOperationOf<OneJob> for NoOperation {}
