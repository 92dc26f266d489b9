//! What may not have happened is sent again: a claim under its own number, the
//! ends of runs until they are recorded.

use std::collections::BTreeSet;

use job_engine::limits::BATCH_LEN_MAX;
use job_engine::store::{Claim, Finish};
use job_engine::worker::Observation;
use job_engine::{ClaimId, Command, Reply, Run, StoreError};

use super::books::{Books, EndedAs, RunBook};
use super::{Verdict, ensure};
use crate::event::{Call, Event};

/// Which ends of the last batch have to be sent again at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum FinishOwed {
    #[default]
    None,
    /// It was refused as a whole: they follow one by one.
    Alone,
    /// It took too long: they follow in parts.
    First,
    All,
}

/// What a worker has to send again.
#[derive(Clone, Debug, Default)]
pub(super) struct Repeats {
    claim: Option<ClaimId>,
    finish: Vec<Run>,
    finish_op: u64,
    claim_unknown: bool,
    /// Whether its last answer did not come in time.
    claim_timed_out: bool,
    /// How many jobs the last claim asked for, and whether it was a repeat.
    asked: Option<(u32, bool)>,
    finish_owed: FinishOwed,
    /// The ends of which operators were told, and that were not sent to be recorded.
    unsent: BTreeSet<Run>,
    /// So many of the next batches are a single end, since they were refused together.
    alone: usize,
    /// Whether a batch ever took too long, and later ones may be shorter.
    cut_short: bool,
}

impl Repeats {
    /// The runs whose ends are given up when this call is refused.
    pub(super) fn given_up(&self, op: u64) -> Vec<Run> {
        let alone = op == self.finish_op && self.finish.len() == 1;
        if alone {
            self.finish.clone()
        } else {
            Vec::new()
        }
    }
}

pub(super) fn event(books: &mut Books, event: &Event<'_>) -> Verdict {
    match event {
        Event::Sent { call, command } if call.is_of_engine() => sent(books, *call, command),
        Event::Answered { call, result } if call.is_of_engine() => {
            answered(books, *call, result);
            Ok(())
        }
        Event::Logged {
            who,
            observation: Observation::RunEnded { run, .. },
        } => {
            let settled = |book: &RunBook| book.ended == Some(EndedAs::Settled);
            let settled = books.run(*run).is_some_and(settled);
            if let Some(worker) = books.worker_mut(*who).filter(|_| !settled) {
                worker.repeats.unsent.insert(*run);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn sent(books: &mut Books, call: Call, command: &Command) -> Verdict {
    match command {
        Command::Claim(claim) => {
            let worker = books.worker_mut(call.who).filter(|w| w.is_up(call.who));
            let Some(worker) = worker else { return Ok(()) };
            let draining = worker.shutdown_us.is_some();
            claim_sent(&mut worker.repeats, claim, draining)
        }
        Command::Finish(finishes) => finish_sent(books, call, finishes),
        _ => Ok(()),
    }
    .map_err(|violation| violation.of(call.who))
}

fn claim_sent(repeats: &mut Repeats, claim: &Claim, draining: bool) -> Verdict {
    let asked: u32 = claim.quotas.iter().map(|quota| quota.jobs_max).sum();
    let least = claim.quotas.iter().map(|quota| quota.jobs_max).min();
    let before = repeats.asked.replace((asked, claim.repeat));
    if let Some((before, again)) = before.filter(|_| claim.repeat && !draining) {
        // One repeat may be that of a reply that was lost.
        let most = if again && repeats.claim_timed_out {
            (before / 2).max(1)
        } else {
            before
        };
        ensure!(
            asked <= most && least.is_some_and(|least| least > 0),
            "repeats.shrinks",
            "a claim is repeated for {:?}, which is to be {most} jobs at most, and some",
            claim.quotas
        );
    }
    let lost = repeats.claim.replace(claim.id);
    let lost = lost.filter(|lost| repeats.claim_unknown && (claim.id != *lost || !claim.repeat));
    ensure!(
        lost.is_none(),
        "repeats.claim",
        "nobody knows what claim {lost:?} took, and claim {} is sent instead",
        claim.id.seq
    );
    Ok(())
}

fn finish_sent(books: &mut Books, call: Call, finishes: &[Finish]) -> Verdict {
    let mut again = false;
    for Finish { run, .. } in finishes {
        let book = books.run(*run);
        ensure!(
            !book.is_some_and(|book| book.refused),
            "repeats.refused",
            "an end is sent again that was refused: {run:?}"
        );
        again |= book.is_some_and(|book| book.concluded);
    }
    let Some(worker) = books.worker_mut(call.who).filter(|w| w.is_up(call.who)) else {
        return Ok(());
    };
    let repeats = &mut worker.repeats;
    let owed = std::mem::take(&mut repeats.finish);
    let named = |run: &Run| finishes.iter().any(|finish| finish.run == *run);
    let sent = match repeats.finish_owed {
        FinishOwed::None => true,
        FinishOwed::Alone => finishes.len() == 1 && owed.iter().any(named),
        FinishOwed::First => owed.iter().any(named),
        FinishOwed::All => owed.iter().all(named),
    };
    ensure!(
        sent,
        "repeats.finish",
        "nobody knows that the ends of {owed:?} are recorded, and others are sent instead"
    );
    for finish in finishes {
        repeats.unsent.remove(&finish.run);
    }
    let may_be_few =
        again || repeats.alone > 0 || repeats.cut_short || finishes.len() >= BATCH_LEN_MAX;
    ensure!(
        may_be_few || repeats.unsent.is_empty(),
        "ends.together",
        "{} ends are sent to be recorded without {:?}, which have ended as well",
        finishes.len(),
        repeats.unsent
    );
    repeats.alone = repeats.alone.saturating_sub(1);
    repeats.finish_owed = FinishOwed::None;
    repeats.finish_op = call.op;
    repeats.finish = finishes.iter().map(|finish| finish.run).collect();
    Ok(())
}

fn answered(books: &mut Books, call: Call, result: &Result<Reply, StoreError>) {
    let Some(worker) = books.worker_mut(call.who) else {
        return;
    };
    if worker.pace.is_claim(call.op) {
        worker.repeats.claim_timed_out = matches!(result, Err(StoreError::Unknown(_)));
        // One that failed for sure may be forgotten; a repeat is still one.
        match result {
            Ok(_) => worker.repeats.claim_unknown = false,
            Err(StoreError::Unknown(_)) => worker.repeats.claim_unknown = true,
            Err(_) => {}
        }
    } else if worker.pace.is_finish(call.op) {
        let together = worker.repeats.finish.len();
        match result {
            Err(StoreError::Rejected(_)) if together > 1 => worker.repeats.alone = together,
            Err(StoreError::Unknown(_)) => worker.repeats.cut_short = true,
            _ => {}
        }
        worker.repeats.finish_owed = match result {
            Ok(_) => FinishOwed::None,
            // Alone, it is given up.
            Err(StoreError::Rejected(_)) if worker.repeats.finish.len() > 1 => FinishOwed::Alone,
            Err(StoreError::Rejected(_)) => FinishOwed::None,
            Err(StoreError::Unknown(_)) => FinishOwed::First,
            Err(_) => FinishOwed::All,
        };
    }
}

/// A repeated claim is answered with what the first one took.
pub(super) fn after(books: &Books, command: &Command, reply: &Reply) -> Verdict {
    let (Command::Claim(claim), Reply::Claimed(claimed)) = (command, reply) else {
        return Ok(());
    };
    if !claim.repeat {
        return Ok(());
    }
    let by = (claim.id.worker, claim.id.seq);
    for job in &books.running {
        let lease = books.job(*job).and_then(|book| book.seen?.lease);
        let own = lease.is_some_and(|lease| (lease.worker, lease.claim_seq) == by);
        let mut told = claimed.jobs.iter().map(|claimed| claimed.run.job);
        let mut left = claimed.left.iter().map(|left| left.run.job);
        let told = told.any(|told| told == *job) || left.any(|left| left == *job);
        ensure!(
            told || !own,
            "repeats.forgotten",
            "a repeated claim is not told of job {}, which the first took",
            crate::scenario::job_key(*job)
        );
    }
    Ok(())
}
