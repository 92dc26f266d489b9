//! What goes wrong with processes and clocks. What goes wrong with messages is
//! decided by the [`Network`](crate::network::Network).

use job_engine::worker::Input;

use super::process::Back;
use super::{Task, World};
use crate::event::{Disturbance, Event, Who};
use crate::scenario::Fault;

impl World<'_> {
    pub(super) fn fault(&mut self, place: usize) {
        self.observe(&Event::Fault { place });
        let now_us = self.now_us;
        let calm_us = self.scenario.calm_from_ms * 1_000;
        let until = |for_ms: u64| (now_us + for_ms * 1_000).min(calm_us);
        let fault = &self.scenario.faults[place];
        let process = fault.worker().and_then(|key| self.place_of(key));
        match (fault, process) {
            (Fault::Crash { back_ms, .. }, Some(process)) => self.crash(process, *back_ms),
            (Fault::Pause { for_ms, .. }, Some(process)) => self.pause(process, until(*for_ms)),
            (Fault::Lag { for_ms, lag_ms, .. }, Some(process)) => {
                let (lag_us, until_us) = (lag_ms * 1_000, until(*for_ms));
                self.processes[process].lag = Some((lag_us, until_us));
                let who = self.processes[process].who;
                self.disturb(Some(who), until_us + lag_us, Disturbance::Lag);
            }
            (Fault::ClockJump { by_ms, .. }, Some(process)) => {
                let process_now = &mut self.processes[process];
                process_now.clock.jump(now_us, *by_ms);
                process_now.timer_at = None;
                let who = process_now.who;
                // After a jump back it stands still until its clock has caught up.
                let back_us = u64::try_from(-by_ms).unwrap_or(0) * 1_000;
                let process_still = &mut self.processes[process].still_until_us;
                *process_still = (*process_still).max(now_us) + back_us;
                let still_until_us = *process_still;
                // A lease that ran out meanwhile is noticed at the next heartbeat.
                let half_us = self.processes[process].knobs.lease_ms * 500;
                self.disturb(Some(who), still_until_us + half_us, Disturbance::OwnClock);
                self.set_timer(process);
            }
            (Fault::StoreClockJump { by_ms, .. }, _) => {
                self.store_ahead_us += by_ms * 1_000;
                // Leases that ran out early are noticed at the next heartbeat.
                let leases = self.processes.iter().map(|process| process.knobs.lease_ms);
                let half_us = leases.max().unwrap_or(0) * 500;
                self.disturb(None, now_us + half_us, Disturbance::StoreClock);
            }
            (Fault::Deaf { for_ms, silent, .. }, Some(process)) => {
                let who = self.processes[process].who;
                if !self.processes[process].connected {
                    return;
                }
                if !*silent {
                    self.queue.push(now_us, Task::Listen(process, who, false));
                }
                let again_us = until(*for_ms) + 1;
                self.reconnect(process, who, again_us);
            }
            (Fault::Partition { for_ms, .. }, Some(process)) => {
                let who = self.processes[process].who;
                if self.processes[process].connected {
                    let again_us = until(*for_ms) + 1;
                    self.reconnect(process, who, again_us);
                }
            }
            (Fault::Restart { back_ms, knobs, .. }, Some(process)) => {
                let back = back_ms.map_or(Back::Never, |ms| Back::After(ms, knobs.clone()));
                self.shut_down(process, back);
            }
            _ => {}
        }
    }

    /// The listener notices that it was cut off, and is connected again.
    fn reconnect(&mut self, process: usize, who: Who, at_us: u64) {
        self.queue.push(at_us, Task::Listen(process, who, false));
        let again_us = at_us + self.scenario.latency_us.1;
        self.queue.push(again_us, Task::Listen(process, who, true));
    }

    fn shut_down(&mut self, process: usize, back: Back) {
        if self.processes[process].engine.is_none() || self.processes[process].deferred.is_some() {
            return;
        }
        let who = self.processes[process].who;
        self.processes[process].back = back;
        self.observe(&Event::ShutdownAsked { who });
        self.input(process, Input::ShutdownRequested);
    }

    fn pause(&mut self, process: usize, until_us: u64) {
        if !self.processes[process].alive || self.processes[process].deferred.is_some() {
            return;
        }
        let who = self.processes[process].who;
        self.processes[process].deferred = Some(Vec::new());
        self.observe(&Event::Paused { who });
        self.disturb(Some(who), until_us, Disturbance::StandingStill);
        self.queue.push(until_us, Task::Resume(process, who));
    }

    pub(super) fn resume(&mut self, process: usize, who: Who) {
        if !self.processes[process].is(who) {
            return;
        }
        let Some(deferred) = self.processes[process].deferred.take() else {
            return;
        };
        self.observe(&Event::Resumed { who });
        for task in deferred {
            self.perform(task);
            if self.recorder.is_over() {
                return;
            }
        }
        self.set_timer(process);
    }

    /// From here on nothing goes wrong: whoever is down comes back, whatever
    /// hangs goes on.
    pub(super) fn calm(&mut self) {
        self.calm = true;
        self.observe(&Event::Calm);
        let workers = self.processes.len() - 1;
        for place in 0..workers {
            let process = &self.processes[place];
            if process.deferred.is_some() {
                self.resume(place, process.who);
            }
            let process = &mut self.processes[place];
            process.lag = None;
            process.timer_at = None;
            if !process.alive && process.back == Back::WithCalm {
                self.start(place);
            } else {
                self.set_timer(place);
            }
        }
        let alive = |process: &super::Process| process.alive;
        if workers > 0 && !self.processes[..workers].iter().any(alive) {
            self.start(0);
        }
        self.release_hanging();
    }
}
