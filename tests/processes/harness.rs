//! What both chaoses share: how long they last, and their judgement.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use job::{JobId, Jobs};

use super::audit::{Evidence, Process, Terms, Violation, audit, audit_events};
use super::books::{Books, Micros};
use super::process::{LEASE, SHUTDOWN_TIMEOUT, STILL_MAX};
use crate::support::from_environment;

/// After so long even what is rare must have happened.
const LONG: Duration = Duration::from_secs(5 * 60);
/// How many violations are shown.
const SHOWN_MAX: usize = 20;

/// How long the chaos lasts: `JOB_SOAK_SECONDS`, or the default.
pub fn lasts(default: Duration) -> Duration {
    Duration::from_secs(from_environment("JOB_SOAK_SECONDS", default.as_secs()))
}

/// What the chaos is seeded with: `JOB_SOAK_SEED`, or chance. It decides what
/// happens to which process in which order; when exactly, the machine does.
pub fn seed() -> u64 {
    let seed = from_environment("JOB_SOAK_SEED", RandomState::new().hash_one(0));
    println!("JOB_SOAK_SEED={seed}");
    seed
}

/// What must have happened, or the chaos proves little.
pub struct Happened {
    pub always: &'static [&'static str],
    /// In one that lasts for [`LONG`].
    pub in_the_long_run: &'static [&'static str],
}

/// Judges, prints what there was, and fails if a promise was broken or if the
/// chaos proves little.
pub async fn judge<B: Books>(
    jobs: &Jobs<B>,
    pool: &B::Pool,
    processes: Vec<Process>,
    lasted: Duration,
    happened: &Happened,
) {
    let mut evidence = B::read(pool).await.unwrap();
    evidence.processes = processes;
    let (mut violations, counts) = audit(&evidence, terms::<B>());
    violations.extend(tell_events(jobs, &evidence).await);
    println!("{counts}");
    for violation in violations.iter().take(SHOWN_MAX) {
        println!("{violation}");
    }
    assert!(violations.is_empty(), "{} violations", violations.len());
    let rare: &[&str] = if lasted >= LONG {
        happened.in_the_long_run
    } else {
        &[]
    };
    for what in happened.always.iter().chain(rare) {
        assert!(counts.of(what) > 0, "this proves little: {what} never");
    }
}

fn terms<B: Books>() -> Terms {
    let micros = |span: Duration| span.as_micros() as Micros;
    Terms {
        lease: micros(LEASE),
        shutdown_timeout: micros(SHUTDOWN_TIMEOUT),
        still_max: micros(STILL_MAX),
        // By its next heartbeat, which may time out once.
        told_within: micros(LEASE),
        slack: micros(LEASE / 2),
        one_process: B::ONE_PROCESS,
    }
}

/// Asks the service for each job.
async fn tell_events<B: Books>(jobs: &Jobs<B>, evidence: &Evidence) -> Vec<Violation> {
    let mut ends = BTreeMap::<_, Vec<_>>::new();
    for end in &evidence.ends {
        ends.entry(end.job).or_default().push(end);
    }
    let mut violations = Vec::new();
    for spec in &evidence.specs {
        let job = jobs.find(JobId::from(spec.id)).await.unwrap();
        let ends = ends.remove(&spec.id).unwrap_or_default();
        violations.extend(audit_events(&job, spec, &ends));
    }
    violations
}
