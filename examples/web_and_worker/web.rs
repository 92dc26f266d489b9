//! The program that serves the web: it spawns jobs, and runs none.
//!
//! ```sh
//! DATABASE_URL=postgres://... cargo run --example web
//! curl -X POST localhost:8080/users/ada@example.com
//! ```
//!
//! On SIGTERM or Ctrl-C it takes no more requests, and answers those that it has.

mod tasks;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use job::{AnyBackend, Jobs};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::tasks::Welcome;

async fn sign_up(
    State(jobs): State<Jobs<AnyBackend>>,
    Path(to): Path<String>,
) -> Result<String, StatusCode> {
    match jobs.spawn(Welcome { to }).await {
        Ok(job) => Ok(job.id.to_string()),
        Err(error) => {
            eprintln!("no welcome: {error}");
            Err(StatusCode::SERVICE_UNAVAILABLE)
        }
    }
}

/// Signals that come from when it is called on, not from when it is awaited.
fn told_to_end() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let told_to_end = told_to_end()?;
    let url = std::env::var("DATABASE_URL")?;
    let jobs = Jobs::connect(url).await?;
    let app = Router::new()
        .route("/users/{address}", post(sign_up))
        .with_state(jobs);
    let address = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(told_to_end)
        .await?;
    println!("stopped");
    Ok(())
}
