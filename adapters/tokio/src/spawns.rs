//! Sends the spawns of concurrent tasks together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use job_engine::gather::{BatchId, Gather, Ticket, Told};
use job_engine::store::NewJob;
use job_engine::{Command, Reply, StoreError, WorkerId};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::clock::ClockHandle;
use crate::guarded::{Panic, caught, guarded};
use crate::store::Store;
use crate::turn::in_turn;

/// How long a batch may take before its spawns are sent one by one.
const BATCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The spawns of one process. What is decided is decided by a [`Gather`]. A batch is
/// sent by a task that the spawn starts which begins it, and that goes on with what has
/// gathered meanwhile: a spawn that is dropped, or not polled any longer, holds up no
/// other.
#[derive(Clone, Debug)]
pub struct Spawns<S> {
    worker: WorkerId,
    store: S,
    clock: ClockHandle,
    shared: Arc<Shared>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    gather: Gather,
    waiting: BTreeMap<Ticket, oneshot::Sender<Told>>,
}

impl<S: Store> Spawns<S> {
    /// Those of the process of this worker; none wait. Its tasks end with the last
    /// clone.
    pub fn new(worker: WorkerId, store: S, clock: ClockHandle) -> Self {
        Self {
            worker,
            store,
            clock,
            shared: Arc::default(),
            tasks: Arc::default(),
        }
    }

    /// Spawns a job with whatever others spawn at the same time. If the future is
    /// dropped, the job may or may not be created.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn spawn(&self, job: NewJob) -> Told {
        let (teller, told) = oneshot::channel();
        let (ticket, next) = {
            let mut state = self.shared.state();
            let ticket = state.gather.add(job);
            state.waiting.insert(ticket, teller);
            (ticket, state.gather.next_batch())
        };
        let _waiting = Waiting {
            shared: &self.shared,
            ticket,
        };
        if let Some(first) = next {
            let (store, clock) = (self.store.clone(), self.clock.clone());
            let shared = Arc::clone(&self.shared);
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that are done.
            while let Some(done) = tasks.try_join_next() {
                drop(done.map_err(Panic::of_task));
            }
            let sends = async move { send_all(&store, &clock, &shared, first).await };
            tasks.spawn(in_turn(self.worker, None, sends));
        }
        // Nobody is left who could tell: nobody knows.
        told.await.unwrap_or(Told::Alone)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tell(&mut self, all_told: Vec<(Ticket, Told)>) {
        for (ticket, told) in all_told {
            if let Some(teller) = self.waiting.remove(&ticket) {
                // An error means that nobody waits any longer.
                let _ = teller.send(told);
            }
        }
    }
}

/// Sends a batch, and then what has gathered meanwhile.
async fn send_all<S: Store>(
    store: &S,
    clock: &ClockHandle,
    shared: &Shared,
    first: (BatchId, Command),
) {
    let mut next = Some(first);
    while let Some((batch, command)) = next {
        let sent = Sent { shared, batch };
        let result = send(store, clock, &command).await;
        next = sent.answered(&result);
    }
}

async fn send<S: Store>(
    store: &S,
    clock: &ClockHandle,
    command: &Command,
) -> Result<Reply, StoreError> {
    let call = || async {
        let call = store.spawn_together(clock.store_time(), command);
        timeout(BATCH_TIMEOUT, call).await
    };
    let result = match caught(call).await {
        Ok(Ok(result)) => result,
        Err(panic) => Err(StoreError::Unknown(format!(
            "the store panicked: {}",
            panic.message()
        ))),
        Ok(Err(_)) => Err(StoreError::Unknown(format!(
            "no answer within {BATCH_TIMEOUT:?}"
        ))),
    };
    if let Err(error) = &result {
        guarded(|| tracing::debug!(%error, "spawns that were sent together are sent one by one"));
    }
    result
}

/// A batch is under way.
struct Sent<'a> {
    shared: &'a Shared,
    batch: BatchId,
}

impl Sent<'_> {
    /// Tells its spawns, and returns the next batch.
    fn answered(self, result: &Result<Reply, StoreError>) -> Option<(BatchId, Command)> {
        let mut state = self.shared.state();
        let told = state.gather.answered(self.batch, result);
        state.tell(told);
        let next = state.gather.next_batch();
        drop(state);
        std::mem::forget(self);
        next
    }
}

impl Drop for Sent<'_> {
    /// The runtime is gone, and whoever waits in another one is to know.
    fn drop(&mut self) {
        let mut state = self.shared.state();
        let dropped = StoreError::Unknown("its runtime is gone".to_owned());
        let mut told = state.gather.answered(self.batch, &Err(dropped));
        told.extend(state.gather.give_up());
        state.tell(told);
    }
}

/// A spawn waits to be told.
struct Waiting<'a> {
    shared: &'a Shared,
    ticket: Ticket,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if state.waiting.remove(&self.ticket).is_some() {
            state.gather.forget(self.ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use job_engine::store::Spawned;
    use job_engine::{Due, JobId, JobType, Payload, Timestamp};
    use tokio::sync::Semaphore;

    use super::*;
    use crate::memory::MemoryStore;

    /// A store that answers once it is let.
    #[derive(Clone)]
    struct Gate {
        store: MemoryStore,
        open: Arc<Semaphore>,
        batches: Arc<Mutex<Vec<usize>>>,
    }

    impl Gate {
        fn new() -> Self {
            Self {
                store: MemoryStore::new(|| Timestamp::EPOCH),
                open: Arc::new(Semaphore::new(0)),
                batches: Arc::default(),
            }
        }
    }

    impl Store for Gate {
        async fn execute(
            &self,
            now: Option<Timestamp>,
            command: &Command,
        ) -> Result<Reply, StoreError> {
            if let Command::Spawn(jobs) = command {
                self.batches.lock().unwrap().push(jobs.len());
            }
            self.open.acquire().await.unwrap().forget();
            self.store.execute(now, command).await
        }
    }

    fn spawns(gate: Gate) -> Spawns<Gate> {
        let worker = WorkerId(uuid::Uuid::from_u128(1));
        Spawns::new(worker, gate, ClockHandle::realtime())
    }

    fn job(id: u128) -> NewJob {
        NewJob {
            id: JobId(uuid::Uuid::from_u128(id)),
            job_type: JobType::new("mail"),
            unique_type: false,
            due: Due::Now,
            config: Payload::from_json("{}".to_owned()),
            trace: None,
            token: i64::try_from(id).unwrap(),
        }
    }

    #[tokio::test]
    async fn concurrent_spawns_share_batches_and_each_is_told_of_its_own() {
        let gate = Gate::new();
        let spawns = spawns(gate.clone());
        gate.open.add_permits(1);
        assert_eq!(spawns.spawn(job(1)).await, Told::Spawned(Spawned::Created));
        let mut tasks = JoinSet::new();
        for id in 1..=20 {
            let spawns = spawns.clone();
            tasks.spawn(async move {
                (
                    id,
                    spawns
                        .spawn(NewJob {
                            token: 99,
                            ..job(id)
                        })
                        .await,
                )
            });
        }
        while gate.batches.lock().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
        gate.open.add_permits(100);
        while let Some(told) = tasks.join_next().await {
            let (id, told) = told.unwrap();
            let expected = match id {
                1 => Spawned::DuplicateId,
                _ => Spawned::Created,
            };
            assert_eq!(told, Told::Spawned(expected), "{id}");
        }
        let batches = gate.batches.lock().unwrap().clone();
        assert!(batches.len() < 10, "{batches:?}");
        assert_eq!(batches.iter().sum::<usize>(), 21);
    }

    #[tokio::test]
    async fn a_spawn_that_is_dropped_before_it_is_sent_never_is() {
        let gate = Gate::new();
        let spawns = spawns(gate.clone());
        let mut tasks = JoinSet::new();
        for id in 1..=2 {
            let spawns = spawns.clone();
            tasks.spawn(async move { spawns.spawn(job(id)).await });
            while gate.batches.lock().unwrap().len() < id as usize {
                tokio::task::yield_now().await;
            }
        }
        // Two are under way, so this one waits.
        assert!(spawns.spawn(job(3)).now_or_never().is_none());
        gate.open.add_permits(100);
        while let Some(told) = tasks.join_next().await {
            assert_eq!(told.unwrap(), Told::Spawned(Spawned::Created));
        }
        assert_eq!(spawns.spawn(job(4)).await, Told::Spawned(Spawned::Created));
        assert_eq!(gate.store.jobs().await.len(), 3);
    }

    #[tokio::test]
    async fn spawns_that_are_not_polled_or_given_up_hold_up_no_other() {
        let gate = Gate::new();
        let spawns = spawns(gate.clone());
        let mut parked: Vec<_> = (1..=2).map(|id| Box::pin(spawns.spawn(job(id)))).collect();
        for spawn in &mut parked {
            assert!(spawn.now_or_never().is_none());
        }
        // Two are under way, so this one gathers.
        let mut given_up = Box::pin(spawns.spawn(job(3)));
        let mut last = Box::pin(spawns.spawn(job(4)));
        assert!((&mut given_up).now_or_never().is_none());
        assert!((&mut last).now_or_never().is_none());
        while gate.batches.lock().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
        gate.open.add_permits(100);
        while gate.batches.lock().unwrap().len() < 3 {
            tokio::task::yield_now().await;
        }
        drop(given_up);
        assert_eq!(last.await, Told::Spawned(Spawned::Created));
        assert_eq!(*gate.batches.lock().unwrap(), [1, 1, 2]);
        for spawn in parked {
            assert_eq!(spawn.await, Told::Spawned(Spawned::Created));
        }
    }

    #[test]
    fn a_spawn_whose_runtime_is_gone_is_told_to_go_alone() {
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().build().unwrap()
        };
        let (first, second) = (runtime(), runtime());
        let spawns = spawns(Gate::new());
        let on = |runtime: &tokio::runtime::Runtime, id| {
            let spawns = spawns.clone();
            runtime.spawn(async move { spawns.spawn(job(id)).await })
        };
        let turns = async || {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        };
        // Two are under way on the first runtime, so the third waits for those.
        let _under_way = [on(&first, 1), on(&first, 2)];
        first.block_on(turns());
        let waits = on(&second, 3);
        second.block_on(turns());
        drop(first);
        assert_eq!(second.block_on(waits).unwrap(), Told::Alone);
    }

    #[tokio::test]
    async fn a_store_whose_panic_panics_when_it_is_dropped_holds_up_no_spawn() {
        #[derive(Clone)]
        struct Panics;
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        impl Store for Panics {
            async fn execute(
                &self,
                _: Option<Timestamp>,
                _: &Command,
            ) -> Result<Reply, StoreError> {
                std::panic::panic_any(Bomb)
            }
        }
        let worker = WorkerId(uuid::Uuid::from_u128(1));
        let spawns = Spawns::new(worker, Panics, ClockHandle::realtime());
        for id in 1..=3 {
            assert_eq!(spawns.spawn(job(id)).await, Told::Alone);
        }
    }
}
