//! Whoever spawns jobs: an application that knows what it wants to be there.

use std::time::Duration;

use job_engine::planted::{Bug, planted};
use job_engine::store::Spawned;
use job_engine::{Command, Reply, StoreError};
use job_tokio::fault::fault_point;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::client::Client;
use super::process::Process;
use super::world::World;
use crate::event::{Event, Who};
use crate::scenario::{JobSpec, Topic};

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a call whose outcome is unknown is made.
const CALLS_MAX: u32 = 3;
/// The pause before an application tries again what has failed for sure.
const PAUSE: Duration = Duration::from_secs(1);

/// Spawns all jobs that somebody outside spawns, each at its time.
pub(super) async fn run_outside(world: World) -> turmoil::Result {
    let (client, link) = Client::new(&world, Who::OUTSIDE);
    let mut connections = JoinSet::new();
    connections.spawn_local(link.run());
    let process = Process::new(client, None);
    let mut spawns = JoinSet::new();
    for job in &world.scenario().jobs {
        if job.parent.is_none() && job.by.is_none() {
            spawns.spawn(spawn(process.clone(), job.clone(), false));
        }
        if job.again_ms.is_some() {
            spawns.spawn(spawn(process.clone(), job.clone(), true));
        }
    }
    while let Some(joined) = spawns.join_next().await {
        joined?;
    }
    // What they announced is yet to be sent.
    sleep(PAUSE).await;
    Ok(())
}

/// Spawns a job at its time; the second with its id if `again`.
pub(super) async fn spawn(process: Process, job: JobSpec, again: bool) {
    let world = process.world().clone();
    let at_ms = if again { job.again_ms } else { None };
    world.sleep_until_ms(at_ms.unwrap_or(job.spawn_ms)).await;
    let told = call(&process, &job, again).await;
    if let (Some(id), Some(_)) = (process.id, told) {
        fault_point(id, "after_spawn").await;
    }
    let who = process.who();
    let event = Event::Spawned {
        who,
        job: job.key,
        again,
        spawned: told,
    };
    world.record_by(who, &event);
    if world.is_alive(who) {
        world.set_spawned(job.key, again);
    }
    if told == Some(Spawned::Created) {
        process.wake(&crate::scenario::job_type(job.job_type));
    }
}

/// What became of it; `None` if nothing is known.
async fn call(process: &Process, job: &JobSpec, again: bool) -> Option<Spawned> {
    let draws = process.world().scenario().draws();
    let key = u64::from(job.key);
    let mut unknown = 0;
    loop {
        let attempt = match planted(Bug::SpawnRetriesUnderNewToken) {
            true => u64::from(unknown),
            false => 0,
        };
        let token = draws.draw(Topic::SpawnToken, [key, u64::from(again), attempt]);
        let command = Command::Spawn(vec![job.new_job(token.cast_signed())]);
        match timeout(CALL_TIMEOUT, process.client.spawn(&command)).await {
            Ok(Ok(Reply::Spawned(spawned))) => return spawned.first().copied(),
            Ok(Ok(_)) | Ok(Err(StoreError::Rejected(_))) => return None,
            Ok(Err(StoreError::Failed(_))) => sleep(PAUSE).await,
            Ok(Err(StoreError::Unknown(_))) | Err(_) => {
                unknown += 1;
                if unknown >= CALLS_MAX {
                    return None;
                }
            }
        }
    }
}

/// The token of the spawn of a child.
pub(super) fn child_token(world: &World, child: &JobSpec) -> i64 {
    let draws = world.scenario().draws();
    let token = draws.draw(Topic::SpawnToken, [u64::from(child.key), 0, 0]);
    token.cast_signed()
}
