//! What both programs know: the tasks. One spawns them, the other runs them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use job::{Task, TaskContext, TaskEnd, TaskResult};
use serde::{Deserialize, Serialize};

/// What the tasks share in the process that runs them: in a real program a client of the mail
/// server, a pool, settings.
#[derive(Clone, Default)]
pub struct Mailer {
    sent: Arc<AtomicU64>,
}

impl Mailer {
    async fn send(&self, to: &str) -> Result<u64, std::io::Error> {
        if !to.contains('@') {
            return Err(std::io::Error::other(format!("{to} is no address")));
        }
        Ok(self.sent.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

#[derive(Serialize, Deserialize)]
pub struct Welcome {
    pub to: String,
}

impl Task for Welcome {
    const TYPE: &'static str = "welcome";
    type State = Mailer;

    async fn run(self, cx: TaskContext<Mailer>) -> TaskResult {
        let sent = cx.state().send(&self.to).await?;
        println!("welcomed {}, mail {sent} of this process", self.to);
        Ok(TaskEnd::Complete)
    }
}
