//! Spawns of concurrent tasks that share a commit.
//!
//! A spawn is sent at once while few are under way. Those that come meanwhile gather
//! for the next, so that the more tasks spawn, the more jobs a commit carries, and a
//! task that spawns alone waits for nobody.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ids::JobId;
use crate::limits::BATCH_LEN_MAX;
use crate::store::{Command, NewJob, Reply, Spawned, StoreError};

/// So many batches are under way at once: one is written while the commit of the other
/// is waited for.
pub const UNDER_WAY_MAX: usize = 2;
/// Bytes of configs in a batch, unless one alone is longer: the others are not to wait
/// for a big one.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Names a spawn until it is told what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// Names a batch that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(u64);

/// What a spawn is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// What became of its job.
    Spawned(Spawned),
    /// The batch that it was in came to nothing, or nobody knows. It is to be sent
    /// again by itself, under the same token, and then gets an answer of its own.
    Alone,
}

/// The spawns of one process that wait or are under way. Pure: see the crate.
///
/// [`Gather::add`] spawns, call [`Gather::next_batch`] until there is none, and bring
/// each answer back by [`Gather::answered`].
#[derive(Debug, Default)]
pub struct Gather {
    waiting: VecDeque<(Ticket, NewJob)>,
    under_way: BTreeMap<BatchId, Vec<Ticket>>,
    tickets: u64,
    batches: u64,
}

impl Gather {
    /// None wait.
    pub fn new() -> Self {
        Self::default()
    }

    /// A spawn waits for its batch. A job of a unique type must not: it may have to
    /// wait for a transaction that others need not wait for.
    pub fn add(&mut self, job: NewJob) -> Ticket {
        debug_assert!(!job.unique_type, "unique jobs are spawned alone");
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.waiting.push_back((ticket, job));
        ticket
    }

    /// Nobody waits for this spawn any longer: unless it is under way, it never is.
    pub fn forget(&mut self, ticket: Ticket) {
        self.waiting.retain(|(waiting, _)| *waiting != ticket);
    }

    /// There is nobody left to send: all that wait are to go alone.
    pub fn give_up(&mut self) -> Vec<(Ticket, Told)> {
        let waiting = std::mem::take(&mut self.waiting);
        waiting
            .into_iter()
            .map(|(ticket, _)| (ticket, Told::Alone))
            .collect()
    }

    /// The next batch to send, if there is one and few are under way.
    pub fn next_batch(&mut self) -> Option<(BatchId, Command)> {
        if self.waiting.is_empty() || self.under_way.len() >= UNDER_WAY_MAX {
            return None;
        }
        let (mut tickets, mut jobs) = (Vec::new(), Vec::new());
        let mut ids: BTreeSet<JobId> = BTreeSet::new();
        let mut bytes = 0;
        while jobs.len() < BATCH_LEN_MAX
            && let Some((_, job)) = self.waiting.front()
        {
            bytes += job.config.as_str().len();
            // Of two with one id the second is decided after the first.
            let fits = ids.insert(job.id) && bytes <= BATCH_BYTES_MAX;
            if !fits && !jobs.is_empty() {
                break;
            }
            let (ticket, job) = self.waiting.pop_front().expect("it is the front");
            tickets.push(ticket);
            jobs.push(job);
        }
        self.batches += 1;
        let batch = BatchId(self.batches);
        self.under_way.insert(batch, tickets);
        Some((batch, Command::Spawn(jobs)))
    }

    /// A batch was answered, or failed. Returns what each of its spawns is told.
    pub fn answered(
        &mut self,
        batch: BatchId,
        result: &Result<Reply, StoreError>,
    ) -> Vec<(Ticket, Told)> {
        let tickets = self.under_way.remove(&batch).unwrap_or_default();
        match result {
            Ok(Reply::Spawned(spawned)) if spawned.len() == tickets.len() => {
                let told = spawned.iter().map(|one| Told::Spawned(*one));
                tickets.into_iter().zip(told).collect()
            }
            // One that the store refuses is not to take the others along.
            _ => tickets.into_iter().map(|one| (one, Told::Alone)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Due, JobType, ModelStore, Payload, Timestamp};

    fn job(id: u128, bytes: usize) -> NewJob {
        NewJob {
            id: JobId(uuid::Uuid::from_u128(id)),
            job_type: JobType::new("mail"),
            unique_type: false,
            due: Due::Now,
            config: Payload::from_json(format!("\"{}\"", "x".repeat(bytes.saturating_sub(2)))),
            trace: None,
            token: 1,
        }
    }

    /// The ids in the batches that are sent now.
    fn sent(gather: &mut Gather) -> Vec<(BatchId, Vec<u128>)> {
        std::iter::from_fn(|| gather.next_batch())
            .map(|(batch, command)| {
                let Command::Spawn(jobs) = command else {
                    panic!("{command:?}")
                };
                let ids = jobs.iter().map(|job| job.id.0.as_u128());
                (batch, ids.collect())
            })
            .collect()
    }

    fn ids(sent: &[(BatchId, Vec<u128>)]) -> Vec<Vec<u128>> {
        sent.iter().map(|(_, ids)| ids.clone()).collect()
    }

    fn created(jobs: usize) -> Result<Reply, StoreError> {
        Ok(Reply::Spawned(vec![Spawned::Created; jobs]))
    }

    #[test]
    fn a_spawn_is_sent_at_once_and_those_that_come_meanwhile_together() {
        let mut gather = Gather::new();
        gather.add(job(1, 2));
        let first = sent(&mut gather);
        assert_eq!(ids(&first), [[1]]);
        gather.add(job(2, 2));
        assert_eq!(ids(&sent(&mut gather)), [[2]]);
        for id in 3..=5 {
            gather.add(job(id, 2));
        }
        assert!(sent(&mut gather).is_empty(), "two are under way");
        gather.answered(first[0].0, &created(1));
        assert_eq!(ids(&sent(&mut gather)), [[3, 4, 5]]);
    }

    #[test]
    fn each_spawn_is_told_of_its_own_job() {
        let mut gather = Gather::new();
        let mut model = ModelStore::new();
        let other = job(2, 9);
        let other = NewJob { token: 2, ..other };
        model
            .apply(Timestamp::EPOCH, &Command::Spawn(vec![other]))
            .unwrap();
        let tickets: Vec<Ticket> = (1..=3).map(|id| gather.add(job(id, 2))).collect();
        let (batch, command) = gather.next_batch().unwrap();
        let reply = model.apply(Timestamp::EPOCH, &command);
        let told = gather.answered(batch, &reply.map_err(StoreError::from));
        let spawned = [Spawned::Created, Spawned::DuplicateId, Spawned::Created];
        let expected: Vec<_> = tickets
            .into_iter()
            .zip(spawned.map(Told::Spawned))
            .collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn a_batch_that_comes_to_nothing_falls_apart() {
        let errors = [
            Err(StoreError::Unknown("no answer".into())),
            Err(StoreError::Failed("away".into())),
            created(1),
        ];
        for answer in errors {
            let mut gather = Gather::new();
            let tickets = [gather.add(job(1, 2)), gather.add(job(2, 2))];
            let (batch, _) = gather.next_batch().unwrap();
            let told = gather.answered(batch, &answer);
            assert_eq!(told, tickets.map(|ticket| (ticket, Told::Alone)));
            assert!(gather.answered(batch, &created(2)).is_empty(), "once");
        }
    }

    #[test]
    fn a_batch_ends_before_an_id_that_it_has_and_before_it_is_long() {
        let mut gather = Gather::new();
        for id in [1, 2, 1, 3] {
            gather.add(job(id, 2));
        }
        assert_eq!(ids(&sent(&mut gather)), [vec![1, 2], vec![1, 3]]);
        let mut gather = Gather::new();
        for (id, bytes) in [(1, BATCH_BYTES_MAX - 2), (2, 2), (3, BATCH_BYTES_MAX + 9)] {
            gather.add(job(id, bytes));
        }
        assert_eq!(ids(&sent(&mut gather)), [vec![1, 2], vec![3]]);
        let mut gather = Gather::new();
        for id in 0..BATCH_LEN_MAX as u128 + 1 {
            gather.add(job(id, 2));
        }
        let lens: Vec<usize> = ids(&sent(&mut gather)).iter().map(Vec::len).collect();
        assert_eq!(lens, [BATCH_LEN_MAX, 1]);
    }

    #[test]
    fn what_nobody_waits_for_is_not_sent() {
        let mut gather = Gather::new();
        let forgotten = gather.add(job(1, 2));
        gather.add(job(2, 2));
        gather.forget(forgotten);
        assert_eq!(ids(&sent(&mut gather)), [[2]]);
    }

    #[test]
    fn what_waits_when_nobody_is_left_to_send_it_goes_alone() {
        let mut gather = Gather::new();
        let tickets = [gather.add(job(1, 2)), gather.add(job(2, 2))];
        assert_eq!(gather.give_up(), tickets.map(|one| (one, Told::Alone)));
        assert!(sent(&mut gather).is_empty());
        assert!(gather.give_up().is_empty());
    }
}
