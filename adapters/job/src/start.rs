//! What an operator is told once, when a worker starts: where it works, on what, and how.

use std::time::Duration;

use job_engine::worker::WorkerConfig;
use job_tokio::guarded::guarded;

use crate::backend::{About, Backend};
use crate::core::Core;

/// So many types are named; of the others, how many there are.
const TYPES_NAMED_MAX: usize = 100;

/// Nothing in it is secret.
pub(crate) struct Start {
    poller_id: String,
    about: About,
    pool_size: Option<u32>,
    types: String,
    places: u32,
    poll_interval: Duration,
}

impl Start {
    pub(crate) fn of<B: Backend>(core: &Core<B>, worker: &WorkerConfig) -> Self {
        let about = B::about(core.store());
        let names: Vec<&str> = worker.types.iter().map(|of| of.job_type.as_str()).collect();
        Self {
            poller_id: core.worker().to_string(),
            pool_size: B::pool_size(core.pool()),
            types: listed(&names),
            places: worker.jobs_max,
            poll_interval: match about.listens {
                true => worker.poll_interval,
                false => worker.poll_interval_deaf,
            },
            about,
        }
    }

    pub(crate) fn tell(&self) {
        guarded(|| {
            tracing::info!(
                poller_id = self.poller_id,
                version = env!("CARGO_PKG_VERSION"),
                backend = self.about.backend,
                schema = self.about.schema,
                types = self.types,
                max_jobs_per_process = self.places,
                listens = self.about.listens,
                poll_interval = ?self.poll_interval,
                pool_size = self.pool_size,
                "polling for jobs"
            );
            if self.types.is_empty() {
                tracing::warn!(
                    "nothing is registered, so this process runs no jobs: call add_task, add_fn \
                     or add_initializer before start_poll; a process that only spawns jobs \
                     leaves start_poll out"
                );
            }
        });
    }
}

fn listed(names: &[&str]) -> String {
    let named = names.len().min(TYPES_NAMED_MAX);
    let mut list = names[..named].join(", ");
    if names.len() > named {
        list.push_str(&format!(" and {} more", names.len() - named));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_of_types_is_cut() {
        assert_eq!(listed(&["mail", "report"]), "mail, report");
        let many = vec!["x"; TYPES_NAMED_MAX + 2];
        assert!(listed(&many).ends_with("x, x and 2 more"));
    }
}
