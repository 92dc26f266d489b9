//! What the tests share.

mod backends;
mod database;
mod role;
mod runners;

use std::time::Duration;

use job::{Backend, Job, JobId, Jobs};

pub use backends::{
    TestBackend, behind_a_pooler, by_url_in_memory, by_url_on_postgres, by_url_on_sqlite,
};
pub use database::TestDatabase;
pub use role::{GRANTS, Role};
pub use runners::TestInitializer;

/// Waits long enough for anything that works, and not for ever.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Asks again and again until the answer is there. Fails, naming `what`, when
/// it does not come.
pub async fn eventually<T, F: AsyncFnMut() -> Option<T>>(what: &str, mut ask: F) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "never happened: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until a job has ended.
pub async fn ended<B: Backend>(jobs: &Jobs<B>, id: JobId) -> Job {
    eventually("the job ends", async || {
        let job = jobs.find(id).await.expect("the job exists");
        job.completed().then_some(job)
    })
    .await
}

/// The kinds of the events of a job, in short.
pub fn history(job: &Job) -> Vec<&'static str> {
    use job::JobEventKind as Kind;
    let events = job.events().iter();
    events
        .map(|event| match event.kind {
            Kind::Spawned => "spawned",
            Kind::Started { .. } => "started",
            Kind::Completed => "completed",
            Kind::Rescheduled { .. } => "rescheduled",
            Kind::Snoozed { .. } => "snoozed",
            Kind::Failed { .. } => "failed",
            Kind::Errored { .. } => "errored",
            Kind::Aborted => "aborted",
            Kind::Released => "released",
            Kind::LeaseLost { .. } => "lease lost",
            Kind::Undecodable { .. } => "undecodable",
            _ => "unknown",
        })
        .collect()
}

/// A setting of the tests from the environment, or its default.
pub fn from_environment<T: std::str::FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => {
            let value = text.parse();
            value.unwrap_or_else(|_| panic!("{name}={text} is not understood"))
        }
        Err(_) => default,
    }
}
