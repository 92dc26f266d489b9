//! What befalls worker processes: killed, stopped and continued, asked to shut
//! down, one after the other in the same place.

use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use job_engine::worker::SETTLE_TIMEOUT;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::audit::Process;
use super::books::{Clock, Micros};
use super::dice::Dice;
use super::process::{Brief, LEASE, SHUTDOWN_TIMEOUT};
use super::{Role, Signal, Worker};

/// How long a process may take to end that was asked to, beyond what is
/// promised: the machine may be busy, and a thread may be blocked.
const SLACK: Duration = Duration::from_secs(15);
const LEASE_MS: u64 = LEASE.as_millis() as u64;
/// A process that is killed before it is this old has hardly begun.
const STILLBORN_MS_MAX: u64 = 300;
/// How often a process is asked whether it has ended.
const LOOK: Duration = Duration::from_millis(10);

/// A place for one process at a time.
pub struct Slot {
    pub role: Role,
    /// For every process in this place, apart from its number.
    pub brief: Brief,
    pub numbers: Arc<AtomicU64>,
    pub clock: Clock,
    /// Kills whoever is there, or comes next.
    pub calamity: Arc<Notify>,
    /// The longest that nothing befalls a process.
    pub quiet_ms_max: u64,
    /// What befalls processes here, and how often. Each of them comes once, then
    /// chance decides.
    pub fates: &'static [(u64, Fate)],
    /// How many of them came.
    pub fated: usize,
}

/// What befalls a process.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    Kill,
    /// And continue.
    Stop,
    StopAndKill,
    /// To shut down.
    Ask,
    AskAndKill,
    AskAndStop,
}

impl Slot {
    /// One process after the other, until the season is over. Returns those
    /// that ended, and one that lives.
    pub async fn torment(&mut self, dice: &mut Dice) -> (Vec<Process>, Subject) {
        let mut ended = Vec::new();
        loop {
            let subject = self.start();
            match self.life(subject, dice).await {
                Ok(process) => ended.push(process),
                Err(survivor) => return (ended, survivor),
            }
            sleep(dice.millis(0, 1_500)).await;
        }
    }

    pub fn start(&self) -> Subject {
        let mut brief = self.brief.clone();
        brief.number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let worker = brief.worker();
        let brief = serde_json::to_string(&brief).expect("a brief is JSON");
        // Before it can do anything: it may be quicker than this process.
        let started_at = self.clock.now();
        Subject {
            worker: Worker::start(self.role, &brief),
            clock: self.clock,
            process: Process {
                worker,
                started_at,
                asked_at: None,
                stops: Vec::new(),
                ended_at: (Micros::MAX, Micros::MAX),
                killed: false,
            },
        }
    }

    fn fate(&mut self, dice: &mut Dice) -> Fate {
        let nth = self.fates.get(self.fated);
        self.fated += 1;
        nth.map_or_else(|| dice.weighted(self.fates), |(_, fate)| *fate)
    }

    /// The subject itself if it outlives the season.
    async fn life(&mut self, mut subject: Subject, dice: &mut Dice) -> Result<Process, Subject> {
        let stillborn = dice.pct(15);
        let mut quiet = if stillborn {
            dice.millis(0, STILLBORN_MS_MAX)
        } else {
            dice.millis(STILLBORN_MS_MAX, self.quiet_ms_max)
        };
        loop {
            let left = self.brief.season.until - self.clock.now();
            let left = Duration::from_micros(u64::try_from(left).unwrap_or(0));
            tokio::select! {
                () = sleep(quiet.min(left)) => {}
                () = self.calamity.notified() => return Ok(subject.kill()),
            }
            subject.expect_alive();
            if quiet >= left {
                return Err(subject);
            }
            let fate = if stillborn {
                Fate::Kill
            } else {
                self.fate(dice)
            };
            match fate {
                Fate::Kill => return Ok(subject.kill()),
                Fate::Stop => {
                    subject.stop_for(stop(dice)).await;
                    // Longer: what it lost meanwhile is to be told and ended.
                    quiet = dice.millis(100, self.quiet_ms_max * 3 / 2);
                }
                Fate::StopAndKill => {
                    let stopped = subject.stop();
                    sleep(stop(dice)).await;
                    let mut process = subject.kill();
                    process.stops.push((stopped, process.ended_at.1));
                    return Ok(process);
                }
                Fate::Ask => {
                    subject.ask();
                    return Ok(subject.end_by_itself(shutdown_max()).await);
                }
                Fate::AskAndKill => {
                    subject.ask();
                    sleep(dice.millis(0, 1_200)).await;
                    return Ok(subject.kill());
                }
                Fate::AskAndStop => {
                    subject.ask();
                    sleep(dice.millis(0, 500)).await;
                    subject.stop_for(stop(dice)).await;
                    return Ok(subject.end_by_itself(shutdown_max()).await);
                }
            }
        }
    }
}

/// How long a shutdown may take.
pub fn shutdown_max() -> Duration {
    SHUTDOWN_TIMEOUT + SETTLE_TIMEOUT + SLACK
}

/// How long a process is stopped: too short to lose its leases as often as not.
fn stop(dice: &mut Dice) -> Duration {
    if dice.pct(50) {
        dice.millis(100, LEASE_MS)
    } else {
        dice.millis(LEASE_MS, 3 * LEASE_MS)
    }
}

/// A process, and what has befallen it.
pub struct Subject {
    worker: Worker,
    clock: Clock,
    process: Process,
}

impl Subject {
    /// A process that ends without being asked to has failed.
    fn expect_alive(&mut self) {
        let exited = self.worker.exited();
        assert!(exited.is_none(), "a worker ended by itself: {exited:?}");
    }

    pub fn kill(mut self) -> Process {
        let before = self.clock.now();
        drop(self.worker);
        self.process.ended_at = (before, self.clock.now());
        self.process.killed = true;
        self.process
    }

    fn stop(&self) -> Micros {
        let before = self.clock.now();
        self.worker.signal(Signal::Stop);
        before
    }

    async fn stop_for(&mut self, span: Duration) {
        let stopped = self.stop();
        sleep(span).await;
        self.worker.signal(Signal::Continue);
        self.process.stops.push((stopped, self.clock.now()));
    }

    pub fn ask(&mut self) {
        self.process.asked_at = Some(self.clock.now());
        self.worker.signal(Signal::Terminate);
    }

    /// Waits for its end, which must come and be a good one.
    pub async fn end_by_itself(mut self, within: Duration) -> Process {
        let deadline = Instant::now() + within;
        let mut alive_at = self.clock.now();
        let status = loop {
            if let Some(status) = self.worker.exited() {
                break status;
            }
            assert!(Instant::now() < deadline, "not ended within {within:?}");
            alive_at = self.clock.now();
            sleep(LOOK).await;
        };
        // It may have been asked before it was able to listen.
        let deaf = status.signal() == Some(TERMINATE) && self.process.asked_at.is_some();
        assert!(status.success() || deaf, "a worker failed: {status}");
        self.process.killed = deaf;
        self.process.ended_at = (alive_at, self.clock.now());
        self.process
    }
}

/// The number of the signal.
const TERMINATE: i32 = 15;
