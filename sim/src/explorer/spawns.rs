//! Spawning jobs, from outside and from within the process of a worker.

use job_engine::store::Spawned;
use job_engine::worker::Input;
use job_engine::{Command, Reply, StoreError};

use super::World;
use super::process::Waiting;
use super::runners::CALL_TIMEOUT;
use crate::event::Event;
use crate::scenario::job_type;

/// How often a spawn of unknown outcome is sent.
const TRIES_MAX: u32 = 3;

impl World<'_> {
    pub(super) fn spawn(&mut self, job: usize, again: bool) {
        let by = self.scenario.jobs[job].by.filter(|_| !again);
        let outside = self.processes.len() - 1;
        let alive = |place: &usize| {
            let process = &self.processes[*place];
            process.alive && process.deferred.is_none()
        };
        let by = by.and_then(|key| self.place_of(key)).filter(alive);
        self.send_spawn(by.unwrap_or(outside), job, again, 1);
    }

    fn send_spawn(&mut self, place: usize, job: usize, again: bool, tries: u32) {
        let spec = &self.scenario.jobs[job];
        let token = self.token(spec.key, again);
        let command = Command::Spawn(vec![spec.new_job(token)]);
        let call = self.processes[place].spawn_call();
        let waiting = Waiting::Spawn(job, again, tries);
        self.send(place, call, command, Vec::new(), waiting, CALL_TIMEOUT);
    }

    pub(super) fn spawn_answered(
        &mut self,
        place: usize,
        job: usize,
        again: bool,
        tries: u32,
        result: &Result<Reply, StoreError>,
    ) {
        let spawned = match result {
            Ok(Reply::Spawned(spawned)) => spawned.first().copied(),
            Err(StoreError::Unknown(_)) if tries < TRIES_MAX => {
                self.send_spawn(place, job, again, tries + 1);
                return;
            }
            _ => None,
        };
        let spec = &self.scenario.jobs[job];
        let who = self.processes[place].who;
        self.observe(&Event::Spawned {
            who,
            job: spec.key,
            again,
            spawned,
        });
        if spawned == Some(Spawned::Created) {
            let of_type = job_type(spec.job_type);
            self.announce(place, &of_type);
            if self.processes[place].engine.is_some() {
                let job_type = &of_type;
                self.observe(&Event::Woken { who, job_type });
                self.input(place, Input::Woken(of_type));
            }
        }
    }

    /// The place of the worker with this key.
    pub(super) fn place_of(&self, key: u32) -> Option<usize> {
        self.scenario
            .workers
            .iter()
            .position(|worker| worker.key == key)
    }
}
