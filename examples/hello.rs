//! The shortest program: it says hello, once each time that it is started.

use job::{JobError, Jobs, Task, TaskContext, TaskEnd, TaskResult};

#[derive(serde::Serialize, serde::Deserialize)]
struct Greet {
    name: String,
}

impl Task for Greet {
    const TYPE: &'static str = "greet";
    type State = ();

    async fn run(self, _: TaskContext) -> TaskResult {
        println!("Hello, {}!", self.name);
        Ok(TaskEnd::Complete)
    }
}

#[tokio::main]
async fn main() -> Result<(), JobError> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let mut jobs = Jobs::connect("sqlite:jobs.db").await?;
    jobs.add_task::<Greet>();
    jobs.start_poll().await?;
    let name = "world".to_owned();
    jobs.spawn(Greet { name }).await?;
    jobs.run_until_signal().await // SIGTERM or Ctrl-C; then it drains
}
