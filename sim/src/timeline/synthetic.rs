//! A simulation by hand: a worker stands still, its job is taken back, and both
//! run it.

use std::time::Duration;

use job_engine::lifecycle::RunEnd;
use job_engine::store::{
    Claim, Claimed, ClaimedJob, Finish, Heartbeat, Outcome, Quota, Reclaim, Reclaimed, Written,
};
use job_engine::worker::{Ended, StopReason};
use job_engine::{ClaimId, Command, ErrorText, Fence, Payload, Reply, Run, StoreError, WorkerId};
use uuid::Uuid;

use crate::Report;
use crate::check::Violation;
use crate::event::{Call, Event, Moment, Who};
use crate::scenario::{Fault, Knobs, RetrySpec, START, Scenario, TypeSpec, WorkerSpec};
use crate::scenario::{job_id, job_type};

pub(super) const LEASE_MS: u64 = 1_000;

pub(super) struct Synthetic {
    pub(super) scenario: Scenario,
    pub(super) report: Report,
    now_us: u64,
    ops: u64,
}

impl Synthetic {
    pub(super) fn new(workers: u32, faults: Vec<Fault>) -> Self {
        let knobs = Knobs {
            jobs_max: 4,
            jobs_min: 1,
            lease_ms: LEASE_MS,
            poll_ms: 500,
            poll_deaf_ms: 100,
            shutdown_timeout_ms: 1_000,
            poll_only: false,
            edition: 0,
            types: vec![],
        };
        let retry = RetrySpec {
            attempts_max: Some(5),
            min_backoff_ms: 100,
            max_backoff_ms: 1_000,
            jitter_pct: 0,
            reset_after_multiples: 3,
            crashes_max: None,
            undecodable_max_ms: 3_600_000,
        };
        let workers = (1..=workers).map(|key| WorkerSpec {
            key,
            start_ms: 0,
            clock_ahead_ms: 0,
            clock_drift_ppm: 0,
            knobs: knobs.clone(),
        });
        Self {
            scenario: Scenario {
                seed: 7,
                horizon_ms: 10_000,
                calm_from_ms: 5_000,
                latency_us: (100, 1_000),
                types: vec![TypeSpec {
                    retries: vec![retry],
                }],
                workers: workers.collect(),
                jobs: vec![],
                faults,
                claimed_job_ms: 0,
                left_out: Vec::new(),
            },
            report: Report::default(),
            now_us: 0,
            ops: 0,
        }
    }

    pub(super) fn at(&mut self, us: u64) -> &mut Self {
        self.now_us = us;
        self
    }

    pub(super) fn push(&mut self, event: Event<'_>) -> &mut Self {
        let store = START.saturating_add(Duration::from_micros(self.now_us));
        let now = Moment {
            true_us: self.now_us,
            store,
        };
        self.report.trace.push(&self.scenario, now, &event);
        self.report.events += 1;
        self.report.simulated_us = self.now_us;
        self
    }

    /// Sends a command and has it carried out; the answer arrives, or not.
    pub(super) fn call(&mut self, who: Who, command: &Command, reply: Reply, heard: bool) {
        self.ops += 1;
        let op = self.ops;
        let call = Call { who, op };
        self.push(Event::Sent { call, command });
        self.now_us += 400;
        self.push(Event::Applied {
            call,
            command,
            reply: &reply,
        });
        self.now_us += 300;
        let result = match heard {
            true => Ok(reply),
            false => Err(StoreError::Unknown("no reply".to_owned())),
        };
        self.push(Event::Answered {
            call,
            result: &result,
        });
    }

    pub(super) fn claim(&mut self, who: Who, runs: &[Run]) {
        let command = Command::Claim(Claim {
            id: ClaimId {
                worker: WorkerId(Uuid::nil()),
                seq: 1,
            },
            repeat: false,
            quotas: vec![Quota {
                job_type: job_type(0),
                jobs_max: 4,
            }],
            lease: Duration::from_millis(LEASE_MS),
        });
        let jobs: Vec<ClaimedJob> = runs.iter().map(|run| claimed(*run)).collect();
        let reply = Reply::Claimed(Claimed {
            now: START,
            jobs: jobs.clone(),
            left: vec![],
            next_due: vec![],
        });
        self.call(who, &command, reply, true);
        for job in &jobs {
            self.push(Event::Started { who, job });
        }
    }

    pub(super) fn heartbeat(&mut self, who: Who, runs: &[Run], heard: bool) {
        let command = Command::Heartbeat(Heartbeat {
            runs: runs.to_vec(),
            lease: Duration::from_millis(LEASE_MS),
        });
        let reply = Reply::Heartbeat(vec![Written::Applied; runs.len()]);
        self.call(who, &command, reply, heard);
    }

    pub(super) fn reclaim(&mut self, who: Who, runs: &[Run]) {
        let command = Command::Reclaim(Reclaim {
            policies: vec![],
            jobs_max: 10,
        });
        let lost = runs.iter().map(|run| Reclaimed {
            run: *run,
            job_type: job_type(0),
            attempt: 1,
            end: RunEnd::Lost,
        });
        self.call(who, &command, Reply::Reclaimed(lost.collect()), true);
    }

    pub(super) fn ended(&mut self, who: Who, run: Run, ended: &Ended) {
        self.push(Event::Ended { who, run, ended });
        let outcome = match ended {
            Ended::Completed => Outcome::Completed,
            _ => Outcome::Retried {
                delay: Duration::from_millis(100),
                attempt: 2,
                error: ErrorText::new("no luck"),
            },
        };
        let command = Command::Finish(vec![Finish { run, outcome }]);
        self.now_us += 100;
        self.call(who, &command, Reply::Finished(vec![Written::Applied]), true);
    }
}

fn claimed(run: Run) -> ClaimedJob {
    ClaimedJob {
        run,
        job_type: job_type(0),
        attempt: 1,
        due_at: START,
        spawned_at: START,
        interruptions: 0,
        undecodable_since: None,
        config: Payload::from_json("null"),
        state: None,
        trace: None,
    }
}

pub(super) fn who(worker: u32) -> Who {
    Who {
        worker,
        incarnation: 1,
    }
}

pub(super) fn run(job: u32, fence: i64) -> Run {
    Run {
        job: job_id(job),
        fence: Fence(fence),
        claim: ClaimId {
            worker: WorkerId(Uuid::nil()),
            seq: 1,
        },
    }
}

/// Worker 1 stands still with jobs 1 and 2, worker 3 crashes, worker 2 takes
/// job 1 back; then worker 1 goes on.
pub(super) fn overlap() -> Synthetic {
    let mut s = Synthetic::new(
        3,
        vec![
            Fault::Pause {
                worker: 1,
                at_ms: 700,
                for_ms: 1_500,
            },
            Fault::Crash {
                worker: 3,
                at_ms: 900,
                back_ms: Some(600),
            },
        ],
    );
    let (w1, w2, w3) = (who(1), who(2), who(3));
    for w in [w1, w2, w3] {
        let id = WorkerId(Uuid::nil());
        s.push(Event::Up { who: w, id });
    }
    s.at(100_000).claim(w1, &[run(1, 1), run(2, 1)]);
    s.at(120_000).claim(w3, &[run(3, 1)]);
    s.at(150_000).claim(w2, &[]);
    s.at(500_000).heartbeat(w1, &[run(1, 1), run(2, 1)], true);
    s.at(600_000).ended(w1, run(2, 1), &Ended::Completed);
    s.at(700_000).push(Event::Fault { place: 0 });
    s.push(Event::Paused { who: w1 });
    s.at(900_000).push(Event::Fault { place: 1 });
    s.push(Event::Crashed { who: w3 });
    s.at(1_500_000).push(Event::Up {
        who: Who {
            incarnation: 2,
            ..w3
        },
        id: WorkerId(Uuid::nil()),
    });
    s.at(1_600_000).reclaim(w2, &[run(1, 1), run(3, 1)]);
    s.at(1_700_000).claim(w2, &[run(1, 2)]);
    s.at(2_100_000).heartbeat(w2, &[run(1, 2)], false);
    s.at(2_200_000).push(Event::Resumed { who: w1 });
    s.at(2_200_500).push(Event::Told {
        who: w1,
        run: run(1, 1),
        reason: StopReason::LeaseLost,
    });
    s.at(2_300_000).push(Event::Ended {
        who: w1,
        run: run(1, 1),
        ended: &Ended::Failed(ErrorText::new("</script><b>broken & \"bad\"</b>")),
    });
    s.report.violation = Some(Violation {
        check: "overlap/one-at-a-time".to_owned(),
        text: "job 1 ran as 1#1 in w1.1 while 1#2 ran in w2.1, </script><b>though no clock was off"
            .to_owned(),
        job: Some(1),
        worker: Some(1),
    });
    s
}

/// Many workers and jobs, for a look at a page that is full.
pub(super) fn busy(events: u64) -> Synthetic {
    let net = Fault::Net {
        worker: None,
        at_ms: 4_000,
        for_ms: 3_000,
        lose_request_pct: 10,
        lose_reply_pct: 10,
        duplicate_pct: 0,
        delay_pct: 20,
        delay_ms: 300,
    };
    let mut s = Synthetic::new(
        6,
        vec![
            net,
            Fault::StoreRestart {
                at_ms: 9_000,
                for_ms: 500,
            },
        ],
    );
    for worker in 1..=6 {
        let id = WorkerId(Uuid::nil());
        s.push(Event::Up {
            who: who(worker),
            id,
        });
    }
    let mut job = 0;
    let mut open: Vec<(u32, Run, u64)> = vec![];
    let mut now = 1_000;
    while s.report.events < events {
        now += 9_000 + u64::from(job) * 7_919 % 5_000;
        let worker = job % 6 + 1;
        job += 1;
        s.at(now).claim(who(worker), &[run(job, 1)]);
        open.push((
            worker,
            run(job, 1),
            now + u64::from(job) * 104_729 % 400_000,
        ));
        let (over, rest): (Vec<_>, Vec<_>) = open.into_iter().partition(|(.., end)| *end < now);
        open = rest;
        for (worker, run, _) in over {
            let ended = match run.job.0.as_u128() % 5 {
                0 => Ended::Failed(ErrorText::new("no luck")),
                _ => Ended::Completed,
            };
            s.ended(who(worker), run, &ended);
        }
        if job % 8 == 0 {
            s.heartbeat(who(worker), &[run(job, 1)], job % 40 != 0);
        }
        now = s.report.simulated_us;
    }
    s.report.violation = Some(Violation {
        check: "liveness/every-job-ends".to_owned(),
        text: format!("job {job} is still pending"),
        job: Some(job),
        worker: None,
    });
    s
}
