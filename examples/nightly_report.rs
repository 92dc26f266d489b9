//! A report that is sent in the night, and sent again with growing pauses while the
//! mail server is away. The test lets a weekend pass on an artificial clock:
//!
//! ```sh
//! cargo test --features testing --example nightly_report
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use job::{
    Backend, CurrentJob, Job, JobCompletion, JobInitializer, JobRunner, JobSpawner, JobType,
    RetrySettings,
};
use serde::{Deserialize, Serialize};

/// What sends mail.
pub trait Mailer: Send + Sync + 'static {
    /// Sends a text.
    ///
    /// # Errors
    ///
    /// Why it could not be sent.
    fn send(&self, text: &str, now: DateTime<Utc>) -> Result<(), String>;
}

impl<F> Mailer for F
where
    F: Fn(&str, DateTime<Utc>) -> Result<(), String> + Send + Sync + 'static,
{
    fn send(&self, text: &str, now: DateTime<Utc>) -> Result<(), String> {
        self(text, now)
    }
}

/// The report of which day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Its name.
    pub day: String,
}

/// Sends reports.
#[derive(Debug)]
pub struct NightlyReport<M>(pub Arc<M>);

impl<B: Backend, M: Mailer> JobInitializer<B> for NightlyReport<M> {
    type Config = Report;

    fn job_type(&self) -> JobType {
        JobType::new("nightly_report")
    }

    fn retry_on_error_settings(&self) -> RetrySettings {
        RetrySettings {
            n_attempts: None,
            min_backoff: Duration::from_secs(15 * 60),
            max_backoff: Duration::from_secs(8 * 3_600),
            ..RetrySettings::default()
        }
    }

    fn init(
        &self,
        job: &Job,
        _spawner: JobSpawner<Report, B>,
    ) -> Result<Box<dyn JobRunner<B>>, Box<dyn Error>> {
        let mailer = Arc::clone(&self.0);
        let report = job.config()?;
        Ok(Box::new(Sending { report, mailer }))
    }
}

struct Sending<M> {
    report: Report,
    mailer: Arc<M>,
}

#[async_trait]
impl<B: Backend, M: Mailer> JobRunner<B> for Sending<M> {
    async fn run(&self, job: CurrentJob<B>) -> Result<JobCompletion<B>, Box<dyn Error>> {
        let text = format!("What happened on {}", self.report.day);
        self.mailer.send(&text, job.clock().now())?;
        Ok(JobCompletion::Complete)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut test = job::testing::TestJobs::memory().await;
    // An application would send mail here.
    let mailer = |text: &str, now| {
        println!("{now}: {text}");
        Ok(())
    };
    let reports = test.add_initializer(NightlyReport(Arc::new(mailer)));
    let day = "Monday".to_owned();
    reports.spawn(job::JobId::new(), Report { day }).await?;
    test.drain().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use job::JobId;
    use job::testing::TestJobs;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn a_report_of_friday_is_sent_on_monday_if_need_be() {
        let mut test = TestJobs::memory().await;
        // The clock starts on a Monday.
        let friday_night = test.now() + TimeDelta::hours(4 * 24 + 22);
        let monday = friday_night + TimeDelta::hours(2 * 24 + 10);
        let mail_server = move |_: &str, now| match now < monday {
            true => Err("the mail server is away".to_owned()),
            false => Ok(()),
        };
        let reports = test.add_initializer(NightlyReport(Arc::new(mail_server)));
        let (id, day) = (JobId::new(), "Friday".to_owned());
        let spawned = reports.spawn_at(id, Report { day }, friday_night).await;
        spawned.unwrap();

        test.advance(6 * 24 * HOUR).await;
        test.seen().await.assert_failed_with(id, "server is away");

        // Eight hours are the longest pause.
        test.advance((24 + 16) * HOUR).await;
        test.seen().await.assert_completed(id);
    }
}
