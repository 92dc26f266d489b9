//! What goes wrong in them.

use job_tokio::fault::POINTS;

use super::super::{Direction, Fault, Scenario, StoreTrouble};
use super::Generator;

/// The classes of faults; a seed leaves whole classes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Crashes,
    CrashPoints,
    Pauses,
    Network,
    Partitions,
    Store,
    Refusals,
    Clocks,
    Announcements,
    Deploys,
}

const CLASSES: [Class; 10] = [
    Class::Crashes,
    Class::CrashPoints,
    Class::Pauses,
    Class::Network,
    Class::Partitions,
    Class::Store,
    Class::Refusals,
    Class::Clocks,
    Class::Announcements,
    Class::Deploys,
];

impl Generator {
    pub(super) fn faults(&mut self, scenario: &Scenario) -> Vec<Fault> {
        let mut faults = Vec::new();
        // Messages that arrive late and twice while there is most to claim.
        if let Some(burst_ms) = self.burst_ms
            && self.dice.pct(40)
        {
            let dice = &mut self.dice;
            faults.push(Fault::Net {
                worker: None,
                at_ms: burst_ms.min(scenario.calm_from_ms - 1),
                for_ms: dice.within(2_000, 20_000),
                lose_request_pct: 0,
                lose_reply_pct: dice.within(10, 60) as u8,
                duplicate_pct: dice.within(10, 60) as u8,
                delay_pct: dice.within(0, 60) as u8,
                delay_ms: dice.any_size(1_000, 20_000),
            });
        }
        if let Some(job) = self.blocking {
            faults.extend(self.deploy_amid(scenario, job));
        } else if !scenario.jobs.is_empty() && self.dice.pct(6) {
            let job = self.dice.within(0, scenario.jobs.len() as u64 - 1);
            faults.extend(self.deploy_amid(scenario, job as usize));
        }
        if let (true, Some(burst_ms)) = (self.crowd, self.burst_ms)
            && self.dice.pct(80)
        {
            faults.extend(self.amid_a_crowd(scenario, burst_ms));
        }
        // Answers that are late, and then none for longer than a lease.
        if let Some(lease_ms) = self.enduring_ms
            && self.dice.pct(40)
        {
            faults.extend(self.late_and_then_away(scenario, lease_ms));
        }
        for class in CLASSES {
            if !self.dice.pct(40) {
                continue;
            }
            let count = self.dice.any_size(1, 5);
            for _ in 0..count {
                faults.extend(self.fault(scenario, class));
            }
        }
        faults
    }

    /// What befalls workers while jobs wait in them for a place.
    fn amid_a_crowd(&mut self, scenario: &Scenario, burst_ms: u64) -> Vec<Fault> {
        let dice = &mut self.dice;
        let last_ms = scenario.calm_from_ms - 1;
        let at_ms = (burst_ms + dice.within(200, 1_200)).min(last_ms - 1);
        let worker = dice.within(0, scenario.workers.len() as u64 - 1) as u32;
        let lease_ms = scenario.workers[worker as usize].knobs.lease_ms;
        let fault = match dice.within(0, 5) {
            // All leases run out, their holders think that they have not, and who starts
            // just then looks for those that have.
            0..=2 => {
                let jump = Fault::StoreClockJump {
                    at_ms,
                    by_ms: (lease_ms + dice.within(0, lease_ms)) as i64,
                };
                let start = Fault::Crash {
                    worker,
                    at_ms: at_ms + 1,
                    back_ms: Some(0),
                };
                return vec![jump, start];
            }
            3 => Fault::Restart {
                worker,
                at_ms,
                back_ms: Some(dice.any_size(0, 5_000)),
                knobs: None,
            },
            4 if self.profile.pauses => Fault::Pause {
                worker,
                at_ms,
                for_ms: lease_ms + dice.within(0, lease_ms),
            },
            _ => {
                let for_ms = lease_ms + dice.within(0, lease_ms);
                store(at_ms, for_ms, StoreTrouble::Refuses)
            }
        };
        vec![fault]
    }

    /// All are deployed while a job runs; some die while they put back what they have.
    fn deploy_amid(&mut self, scenario: &Scenario, job: usize) -> Vec<Fault> {
        let last_ms = scenario.calm_from_ms - 1;
        let at_ms = (scenario.jobs[job].spawn_ms + self.dice.within(20, 1_500)).min(last_ms);
        let dies = self.dice.pct(50);
        let mut faults = Vec::new();
        for worker in &scenario.workers {
            let (worker, back_ms) = (worker.key, self.dice.any_size(0, 5_000));
            if dies {
                faults.push(Fault::CrashAt {
                    worker,
                    point: "before_release".to_owned(),
                    nth: 1,
                    back_ms,
                });
            }
            faults.push(Fault::Restart {
                worker,
                at_ms,
                back_ms: Some(back_ms),
                knobs: None,
            });
        }
        faults
    }

    /// The store slows down amid a long run, and is then away.
    fn late_and_then_away(&mut self, scenario: &Scenario, lease_ms: u64) -> [Fault; 2] {
        let dice = &mut self.dice;
        let job = dice.within(0, scenario.jobs.len() as u64 - 1);
        let last_ms = scenario.calm_from_ms - 1;
        let at_ms = (scenario.jobs[job as usize].spawn_ms + dice.within(50, lease_ms)).min(last_ms);
        let slow_for_ms = dice.within(lease_ms / 4, lease_ms);
        let slow_ms = dice.within(lease_ms / 4, lease_ms / 2);
        let away_ms = (at_ms + slow_for_ms).min(last_ms);
        let away = dice.one_of(&[StoreTrouble::Refuses, StoreTrouble::Hangs]);
        [
            store(at_ms, slow_for_ms, StoreTrouble::SlowMs(slow_ms)),
            store(away_ms, lease_ms * 3 / 2, away),
        ]
    }

    /// When a process dies or is deployed: often just when a job is spawned, and
    /// so while a claim is under way.
    fn instant(&mut self, scenario: &Scenario, at_ms: u64) -> u64 {
        if self.dice.pct(70) {
            return at_ms;
        }
        let Some(moment_ms) = self.any_moment() else {
            return at_ms;
        };
        (moment_ms + self.dice.within(0, 2)).min(scenario.calm_from_ms - 1)
    }

    /// When a fault begins: at any time, or when there is something to disturb.
    fn moment(&mut self, scenario: &Scenario) -> u64 {
        let last_ms = scenario.calm_from_ms - 1;
        if self.dice.pct(30) {
            return self.dice.within(0, last_ms);
        }
        let Some(moment_ms) = self.any_moment() else {
            return self.dice.within(0, last_ms);
        };
        let after_ms = self.dice.any_size(0, 4_000);
        (moment_ms + after_ms).min(last_ms)
    }

    fn any_moment(&mut self) -> Option<u64> {
        let last = self.moments.len().checked_sub(1)?;
        let place = self.dice.within(0, last as u64);
        Some(self.moments[place as usize])
    }

    fn fault(&mut self, scenario: &Scenario, class: Class) -> Option<Fault> {
        let explores = self.profile.explores;
        let types = scenario.types.len() as u32;
        let workers = scenario.workers.len() as u64;
        let worker = self.dice.within(0, workers - 1) as u32;
        let lease_ms = scenario.workers[worker as usize].knobs.lease_ms;
        let at_ms = self.moment(scenario);
        let instant_ms = self.instant(scenario, at_ms);
        // Around the length of a lease it gets interesting.
        let longest_ms = match scenario.is_of_application() {
            // Those of an application: a job is not to lose all the leases that it may.
            true => lease_ms * 3 / 2,
            false => lease_ms * 3,
        };
        let for_ms = self.dice.any_size(10, longest_ms);
        let dice = &mut self.dice;
        // What lasts has begun when what it disturbs begins.
        let before_ms = if dice.pct(50) {
            dice.within(0, for_ms)
        } else {
            0
        };
        let mut from_ms = at_ms.saturating_sub(before_ms);
        let mut for_ms = for_ms;
        match (self.enduring_ms, self.burst_ms) {
            // Amid a long run, and for longer than its lease.
            (Some(lease_ms), _) if dice.pct(60) => {
                let job = dice.within(0, scenario.jobs.len() as u64 - 1);
                let spawn_ms = scenario.jobs[job as usize].spawn_ms;
                let last_ms = scenario.calm_from_ms - 1;
                from_ms = (spawn_ms + dice.within(0, lease_ms)).min(last_ms);
                for_ms = dice.within(lease_ms / 2, lease_ms);
            }
            (_, Some(burst_ms)) if dice.pct(50) => {
                from_ms = burst_ms;
                for_ms = for_ms.max(2_000);
            }
            _ => {}
        }
        let (mut at_ms, mut instant_ms) = (at_ms, instant_ms);
        if let (true, Some(burst_ms)) = (self.crowd, self.burst_ms)
            && dice.pct(70)
        {
            // While jobs wait for a place.
            at_ms = burst_ms + dice.within(50, 2_500);
            (from_ms, instant_ms) = (at_ms, at_ms);
        }
        Some(match class {
            Class::Crashes => Fault::Crash {
                worker,
                at_ms: instant_ms,
                back_ms: dice.pct(80).then(|| dice.any_size(0, lease_ms * 2)),
            },
            Class::CrashPoints => Fault::CrashAt {
                worker,
                point: dice.one_of(&POINTS).to_owned(),
                nth: dice.any_size(1, 6) as u32,
                back_ms: dice.any_size(0, lease_ms * 2),
            },
            Class::Pauses if !self.profile.pauses => return None,
            Class::Pauses if explores && dice.pct(30) => Fault::Lag {
                worker,
                at_ms: from_ms,
                for_ms,
                lag_ms: dice.any_size(1, lease_ms),
            },
            Class::Pauses => Fault::Pause {
                worker,
                at_ms: from_ms,
                for_ms: for_ms * 2,
            },
            Class::Network => {
                let mut rate = || match dice.within(0, 3) {
                    0 | 1 => 0,
                    2 => dice.any_size(1, 60) as u8,
                    _ => dice.within(30, 90) as u8,
                };
                Fault::Net {
                    lose_request_pct: rate(),
                    lose_reply_pct: rate(),
                    duplicate_pct: rate(),
                    delay_pct: rate(),
                    worker: dice.pct(60).then_some(worker),
                    at_ms: from_ms,
                    for_ms: for_ms * 2,
                    delay_ms: dice.any_size(10, lease_ms * 2),
                }
            }
            Class::Partitions => Fault::Partition {
                worker,
                at_ms: from_ms,
                for_ms: for_ms * 2,
                direction: dice.one_of(&[
                    Direction::Both,
                    Direction::ToStore,
                    Direction::FromStore,
                ]),
                hold: dice.pct(30),
            },
            Class::Store => match dice.within(0, 4) {
                0 => Fault::StoreRestart {
                    at_ms: from_ms,
                    for_ms,
                },
                1 => store(from_ms, for_ms, StoreTrouble::Refuses),
                2 => store(from_ms, for_ms, StoreTrouble::Hangs),
                3 => {
                    let slow_ms = dice.any_size(10, lease_ms);
                    store(from_ms, for_ms * 8, StoreTrouble::SlowMs(slow_ms))
                }
                _ => {
                    let pct = dice.any_size(1, 80) as u8;
                    store(from_ms, for_ms * 4, StoreTrouble::ErrorsPct(pct))
                }
            },
            // What the store refuses is the application's fault.
            Class::Refusals if scenario.is_of_application() => return None,
            Class::Refusals => {
                let pct = dice.any_size(1, 80) as u8;
                store(from_ms, for_ms * 4, StoreTrouble::RejectsPct(pct))
            }
            Class::Clocks => {
                let by_ms = dice.any_size(1, lease_ms) as i64 * dice.one_of(&[-1, 1]);
                if dice.pct(30) {
                    Fault::StoreClockJump { at_ms, by_ms }
                } else if explores {
                    Fault::ClockJump {
                        worker,
                        at_ms,
                        by_ms,
                    }
                } else {
                    return None;
                }
            }
            Class::Announcements if dice.pct(50) => Fault::Deaf {
                worker,
                at_ms: from_ms,
                for_ms: for_ms * 4,
                silent: dice.pct(50),
            },
            Class::Announcements => Fault::Announcements {
                at_ms: from_ms,
                for_ms: for_ms * 4,
                lose_pct: dice.any_size(1, 100) as u8,
                double_pct: dice.any_size(1, 100) as u8,
            },
            Class::Deploys => {
                let back_ms = dice.any_size(0, 5_000);
                let knobs = dice.pct(50);
                let never = dice.pct(5);
                Fault::Restart {
                    worker,
                    at_ms: instant_ms,
                    back_ms: (!never).then_some(back_ms),
                    knobs: knobs.then(|| self.knobs(types)),
                }
            }
        })
    }
}

fn store(at_ms: u64, for_ms: u64, trouble: StoreTrouble) -> Fault {
    Fault::Store {
        at_ms,
        for_ms,
        trouble,
    }
}
