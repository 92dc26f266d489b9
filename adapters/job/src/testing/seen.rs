//! What there is to assert.

use std::fmt::{self, Write};

use chrono::{DateTime, Utc};
use job_tokio::to_timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::backend::Backend;
use crate::{Job, JobEventKind, JobId, JobSpawner, JobState, JobType};

/// The jobs of a test as they were when it looked: [`TestJobs::seen`] and
/// [`TestJobs::seen_in`].
///
/// Each assertion panics, at the place of its call, with what there was instead.
///
/// [`TestJobs::seen`]: super::TestJobs::seen
/// [`TestJobs::seen_in`]: super::TestJobs::seen_in
#[derive(Clone, Debug)]
pub struct Seen {
    jobs: Vec<Job>,
    /// The types whose jobs the test runs.
    registered: Vec<JobType>,
}

impl Seen {
    pub(super) fn new(jobs: Vec<Job>, registered: Vec<JobType>) -> Self {
        Self { jobs, registered }
    }

    /// All jobs that the spawners of the test have spawned and that exist, in the order
    /// of their spawns.
    pub fn jobs(&self) -> &[Job] {
        &self.jobs
    }

    /// The jobs that this spawner can have spawned with this config, in the order of
    /// their spawns. Configs are compared as JSON.
    ///
    /// # Panics
    ///
    /// If the config has no JSON, or is nested too deep to be read again. So do the assertions
    /// that take a config.
    pub fn spawned<C: Serialize, B: Backend>(
        &self,
        spawner: &JobSpawner<C, B>,
        config: &C,
    ) -> Vec<&Job> {
        let config = json(config);
        let of_type = self.of(spawner);
        of_type.filter(|job| config_of(job) == config).collect()
    }

    /// At least one job was spawned with this config. Returns the first.
    #[track_caller]
    pub fn assert_spawned<C: Serialize, B: Backend>(
        &self,
        spawner: &JobSpawner<C, B>,
        config: &C,
    ) -> &Job {
        match self.spawned(spawner, config).first() {
            Some(job) => job,
            None => panic!(
                "no job of type {} was spawned with {}; {}",
                spawner.job_type(),
                json(config),
                self.list(spawner)
            ),
        }
    }

    /// Exactly so many jobs were spawned with this config.
    #[track_caller]
    pub fn assert_spawned_times<C: Serialize, B: Backend>(
        &self,
        spawner: &JobSpawner<C, B>,
        config: &C,
        times: usize,
    ) {
        let spawned = self.spawned(spawner, config).len();
        assert!(
            spawned == times,
            "{spawned} jobs of type {} were spawned with {}, not {times}; {}",
            spawner.job_type(),
            json(config),
            self.list(spawner)
        );
    }

    /// A job with this config waits to be run at `due_at`, to the microsecond. Returns
    /// it.
    #[track_caller]
    pub fn assert_due_at<C: Serialize, B: Backend>(
        &self,
        spawner: &JobSpawner<C, B>,
        config: &C,
        due_at: DateTime<Utc>,
    ) -> &Job {
        let is_due = |job: &&&Job| {
            let at = job.due_at().map(to_timestamp);
            job.state() == JobState::Pending && at == Some(to_timestamp(due_at))
        };
        match self.spawned(spawner, config).iter().find(is_due) {
            Some(job) => job,
            None => panic!(
                "no job of type {} with {} is due at {due_at}; {}",
                spawner.job_type(),
                json(config),
                self.list(spawner)
            ),
        }
    }

    /// This spawner has spawned no job.
    #[track_caller]
    pub fn assert_none_spawned<C, B: Backend>(&self, spawner: &JobSpawner<C, B>) {
        assert!(
            self.of(spawner).next().is_none(),
            "jobs of type {} were spawned; {}",
            spawner.job_type(),
            self.list(spawner)
        );
    }

    /// The job has ended well. Returns it.
    #[track_caller]
    pub fn assert_completed(&self, id: impl Into<JobId>) -> &Job {
        self.assert_state(id.into(), JobState::Completed)
    }

    /// The job waits to be run, for the first time or again. Returns it.
    #[track_caller]
    pub fn assert_pending(&self, id: impl Into<JobId>) -> &Job {
        self.assert_state(id.into(), JobState::Pending)
    }

    /// The job has ended in a final error that contains this text. Returns it.
    #[track_caller]
    pub fn assert_errored_with(&self, id: impl Into<JobId>, text: &str) -> &Job {
        let job = self.assert_state(id.into(), JobState::Errored);
        self.assert_error(job, text);
        job
    }

    /// The last error of the job, final or not, contains this text. Returns the job.
    #[track_caller]
    pub fn assert_failed_with(&self, id: impl Into<JobId>, text: &str) -> &Job {
        let job = self.find(id.into());
        self.assert_error(job, text);
        job
    }

    #[track_caller]
    fn assert_state(&self, id: JobId, state: JobState) -> &Job {
        let job = self.find(id);
        assert!(
            job.state() == state,
            "the job is {:?}, not {state:?}: {}{}",
            job.state(),
            Line(job),
            self.nobody_runs(job)
        );
        job
    }

    #[track_caller]
    fn assert_error(&self, job: &Job, text: &str) {
        assert!(
            job.last_error().is_some_and(|error| error.contains(text)),
            "the job has not failed with {text:?}: {}{}",
            Line(job),
            self.nobody_runs(job)
        );
    }

    /// Most likely why a job waits that ought to have run: "; " and a sentence, or nothing.
    fn nobody_runs(&self, job: &Job) -> String {
        match job.state() {
            JobState::Pending if !self.registered.contains(&job.job_type) => format!(
                "; no runner of `{}` is registered, so nothing runs it: call add_task, add_fn or \
                 add_initializer first",
                job.job_type
            ),
            _ => String::new(),
        }
    }

    #[track_caller]
    fn find(&self, id: JobId) -> &Job {
        match self.jobs.iter().find(|job| job.id == id) {
            Some(job) => job,
            None => panic!(
                "the job {id} was not spawned, or not committed; {}",
                list(&self.jobs.iter().collect::<Vec<_>>())
            ),
        }
    }

    fn of<C, B: Backend>(&self, spawner: &JobSpawner<C, B>) -> impl Iterator<Item = &Job> {
        let job_type = spawner.job_type().clone();
        self.jobs.iter().filter(move |job| job.job_type == job_type)
    }

    fn list<C, B: Backend>(&self, spawner: &JobSpawner<C, B>) -> String {
        let of_type: Vec<&Job> = self.of(spawner).collect();
        match of_type.is_empty() && !self.jobs.is_empty() {
            true => format!(
                "none of this type, but {}",
                list(&self.jobs.iter().collect::<Vec<_>>())
            ),
            false => list(&of_type),
        }
    }
}

fn json(config: &impl Serialize) -> Value {
    // As it is stored: a value of serde_json keeps other digits of some numbers.
    let text = serde_json::to_string(config).expect("the config can be serialized");
    serde_json::from_str(&text).expect("what was serialized is JSON")
}

fn config_of(job: &Job) -> Value {
    job.config().expect("a config is JSON")
}

fn list(jobs: &[&Job]) -> String {
    if jobs.is_empty() {
        return "there is no job".to_owned();
    }
    let mut text = "there are:".to_owned();
    for job in jobs {
        let _ = write!(text, "\n  {}", Line(job));
    }
    text
}

/// A job as a line of a message.
struct Line<'a>(&'a Job);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let job = self.0;
        write!(
            f,
            "{} {} {} {:?}",
            job.id,
            job.job_type,
            config_of(job),
            job.state()
        )?;
        if let Some(due_at) = job.due_at() {
            write!(f, ", attempt {}, due at {due_at}", job.attempt())?;
        }
        for event in job.events() {
            match &event.kind {
                JobEventKind::Failed { attempt, error, .. } => {
                    write!(f, ", attempt {attempt} failed: {error}")?;
                }
                JobEventKind::Errored { error, .. } => write!(f, ", errored: {error}")?,
                JobEventKind::LeaseLost { attempt } => write!(f, ", attempt {attempt} was lost")?,
                _ => {}
            }
        }
        Ok(())
    }
}
