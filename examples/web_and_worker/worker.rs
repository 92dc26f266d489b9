//! The program that runs the jobs, as many of it as you like.
//!
//! ```sh
//! DATABASE_URL=postgres://... cargo run --example worker
//! ```
//!
//! On SIGTERM, as orchestrators send it, or Ctrl-C it lets running jobs end for 20 s, and puts
//! the others back. Give the orchestrator a grace period of 25 s at least.

mod tasks;

use std::time::Duration;

use job::{JobPollerConfig, Jobs};

use crate::tasks::{Mailer, Welcome};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL")?;
    let poller = JobPollerConfig {
        shutdown_timeout: Duration::from_secs(20),
        ..JobPollerConfig::default()
    };
    let mut jobs = Jobs::connect(url).poller_config(poller).await?;
    jobs.add_task_with::<Welcome>(Mailer::default());
    jobs.start_poll().await?;
    println!("running jobs");
    jobs.run_until_signal().await?;
    println!("stopped");
    Ok(())
}
