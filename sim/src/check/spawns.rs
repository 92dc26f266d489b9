//! A spawn makes one job, however often it is sent, and its caller is told the
//! truth. Spawns that come together share a commit.

use std::collections::{BTreeMap, BTreeSet};

use job_engine::Command;
use job_engine::limits::BATCH_LEN_MAX;
use job_engine::store::{NewJob, Spawned};

use super::books::Books;
use super::transition::{Change, Transition};
use super::{Verdict, Violation, ensure};
use crate::event::{Call, Event, Who};
use crate::scenario::{Knobs, job_id, job_key};

/// So many commits of one service are under way at once.
const COMMITS_MAX: usize = 2;
/// After so long without an answer spawns go their own ways, in microseconds.
const COMMIT_US: u64 = 5_000_000;

/// The spawns that wait for a commit that they can share, and the commits, by process and
/// whether that runs jobs of their types: it has a service for each.
#[derive(Clone, Debug, Default)]
pub(super) struct Spawning(BTreeMap<(Who, bool), Service>);

#[derive(Clone, Debug, Default)]
struct Service {
    /// Since when, true time, and which job.
    waiting: Vec<(u64, u32)>,
    /// Calls, and since when.
    commits: Vec<(u64, u64)>,
    /// What was sent, to know it when it is sent once more.
    tokens: BTreeSet<i64>,
}

impl Service {
    fn commits(&self, now_us: u64) -> usize {
        let goes_on = |(_, since_us): &&(u64, u64)| now_us < since_us + COMMIT_US;
        self.commits.iter().filter(goes_on).count()
    }
}

pub(super) fn transition(books: &Books, change: &Transition<'_>) -> Verdict {
    let Change::Spawn(new, spawned) = change.change else {
        return Ok(());
    };
    let Some(before) = change.before else {
        ensure!(
            spawned != Spawned::DuplicateId,
            "spawns.refused",
            "a job was refused for its id, and there is none with it"
        );
        return Ok(());
    };
    let repeated = books.job(change.job).and_then(|book| book.token) == Some(new.token);
    let expected = if repeated {
        Spawned::Created
    } else {
        Spawned::DuplicateId
    };
    ensure!(
        spawned == expected,
        "spawns.repeat",
        "a spawn of a job that exists, by the same token: {repeated}, was answered {spawned:?}"
    );
    ensure!(
        change.after == Some(before),
        "spawns.repeat",
        "a spawn of a job that exists changed it from {before:?} to {:?}",
        change.after
    );
    Ok(())
}

pub(super) fn event(books: &mut Books, event: &Event<'_>) -> Verdict {
    match event {
        Event::Spawning { who, job } => asked(books, *who, *job),
        Event::Sent {
            call,
            command: Command::Spawn(jobs),
        } => sent(books, *call, jobs),
        Event::Answered { call, .. } if !call.is_of_engine() => {
            let services = books
                .spawning
                .0
                .range_mut((call.who, false)..=(call.who, true));
            services.for_each(|(_, service)| service.commits.retain(|(op, _)| *op != call.op));
            Ok(())
        }
        Event::Spawned {
            who,
            job,
            again,
            spawned: Some(spawned),
        } => told(books, *who, *job, *again, *spawned),
        _ => Ok(()),
    }
}

/// A spawn waits for nobody while few commits are under way.
fn asked(books: &mut Books, who: Who, job: u32) -> Verdict {
    let now_us = books.now.true_us;
    let worker = books.worker(who);
    let held_up_until = worker.map_or(0, |worker| worker.held_up_until);
    let runs = runs_type_of(books, who, job);
    let service = books.spawning.0.entry((who, runs)).or_default();
    let forgotten = service.waiting.first().copied();
    let forgotten =
        forgotten.filter(|(since_us, _)| (held_up_until + 1..now_us).contains(since_us));
    if let Some((since_us, key)) = forgotten
        && service.commits(now_us) < COMMITS_MAX
    {
        let text = format!("a spawn waits in {who} since {since_us} us, and for no commit");
        return Err(Violation::new("spawns.together", text).of_job(key));
    }
    service.waiting.push((now_us, job));
    Ok(())
}

/// A commit carries all that waited for it.
fn sent(books: &mut Books, call: Call, jobs: &[NewJob]) -> Verdict {
    let now_us = books.now.true_us;
    let Some(first) = jobs.first() else {
        return Ok(());
    };
    let runs = runs_type_of(books, call.who, job_key(first.id));
    let Some(service) = books.spawning.0.get_mut(&(call.who, runs)) else {
        return Ok(());
    };
    let before = service.waiting.len();
    let mut ids = BTreeSet::new();
    for job in jobs {
        let key = job_key(job.id);
        ids.insert(key);
        if !service.tokens.insert(job.token) {
            continue;
        }
        let mut waiting = service.waiting.iter();
        if let Some(place) = waiting.position(|(_, waiting)| *waiting == key) {
            service.waiting.remove(place);
        }
    }
    if service.waiting.len() == before {
        // Sent once more, or in a transaction.
        return Ok(());
    }
    service.commits.push((call.op, now_us));
    let commits = service.commits(now_us);
    // One that came at this moment may have been too late. Of two with one id the second is
    // decided after the first.
    let left = service.waiting.first().copied();
    let left = left.filter(|(since_us, key)| *since_us < now_us && !ids.contains(key));
    if commits > COMMITS_MAX {
        let text = format!("{} has {commits} commits of spawns under way", call.who);
        return Err(Violation::new("spawns.together", text).of(call.who));
    }
    if let Some((_, key)) = left.filter(|_| jobs.len() < BATCH_LEN_MAX) {
        let text = format!(
            "{} sends {} spawns without one that waits",
            call.who,
            jobs.len()
        );
        return Err(Violation::new("spawns.together", text).of_job(key));
    }
    Ok(())
}

fn runs_type_of(books: &Books, who: Who, job: u32) -> bool {
    let job_type = books.job(job_id(job)).map_or(0, |book| book.spec.job_type);
    match books.worker(who) {
        Some(worker) => worker.knobs.knows(job_type),
        None => Knobs::default().knows(job_type),
    }
}

fn told(books: &Books, who: Who, job: u32, again: bool, spawned: Spawned) -> Verdict {
    let book = books.job(job_id(job));
    let exists = book.is_some_and(|book| book.seen.is_some());
    let rivals = book.is_some_and(|book| book.spec.again_ms.is_some());
    let truth = match spawned {
        Spawned::Created => exists,
        Spawned::DuplicateId => exists && (again || rivals),
        Spawned::DuplicateUniqueType(existing) => {
            let place = book.map(|book| book.spec.job_type);
            let holder = place.and_then(|place| books.unique.get(&place));
            holder == Some(&existing) && existing != job_id(job)
        }
    };
    if truth {
        return Ok(());
    }
    Err(Violation::new(
        "spawns.told",
        format!("{who} was told {spawned:?}; the job exists: {exists}"),
    )
    .of_job(job))
}
