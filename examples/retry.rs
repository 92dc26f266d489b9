//! A report that is tried again, and its test, in which no time passes.

use job::{Task, TaskContext, TaskEnd, TaskResult};

#[derive(serde::Serialize, serde::Deserialize)]
struct Report;

impl Task for Report {
    const TYPE: &'static str = "report";
    type State = ();
    async fn run(self, cx: TaskContext) -> TaskResult {
        match cx.attempt() {
            1 => Err("the mail server is down".into()),
            _ => Ok(TaskEnd::Complete),
        }
    }
}

#[tokio::test]
async fn a_report_is_sent_when_the_mail_server_is_back() {
    let mut test = job::testing::TestJobs::memory().await;
    test.add_task::<Report>();
    let report = test.spawn(Report).await.unwrap().id;
    test.drain().await; // runs all that is due
    test.seen().await.assert_failed_with(report, "mail server");
    test.advance(std::time::Duration::from_secs(60)).await; // takes a millisecond
    test.seen().await.assert_completed(report);
}

#[tokio::main]
async fn main() -> Result<(), job::JobError> {
    let mut jobs = job::Jobs::connect("memory:").await?;
    jobs.add_task::<Report>();
    jobs.start_poll().await?;
    jobs.spawn(Report).await?;
    jobs.run_until_signal().await
}
