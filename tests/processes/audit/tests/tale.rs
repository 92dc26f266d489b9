//! An honest tale, to be told otherwise in one place.

use super::*;

pub const MS: Micros = 1_000;
pub const SECOND: Micros = 1_000 * MS;

pub const TERMS: Terms = Terms {
    lease: 2 * SECOND,
    shutdown_timeout: SECOND,
    still_max: 400 * MS,
    told_within: 4 * SECOND,
    slack: SECOND,
    one_process: false,
};

/// Lives all along.
pub const STEADY: Uuid = Uuid::from_u128(101);
/// Is stopped from the first second to the fifth.
pub const STOPPED: Uuid = Uuid::from_u128(102);
/// Is killed at the first second.
pub const KILLED: Uuid = Uuid::from_u128(103);
/// Is killed at three and a half seconds.
pub const KILLED_LATER: Uuid = Uuid::from_u128(105);
/// Is asked to shut down at the first second.
pub const ASKED: Uuid = Uuid::from_u128(104);

pub const IN_TX: Uuid = Uuid::from_u128(1);
pub const OUTSIDE: Uuid = Uuid::from_u128(2);
pub const TURNING: Uuid = Uuid::from_u128(3);
pub const KEEPING: Uuid = Uuid::from_u128(4);
pub const PARENT: Uuid = Uuid::from_u128(5);
pub const CHILD: Uuid = Uuid::from_u128(6);
pub const UNIQUE: Uuid = Uuid::from_u128(7);
pub const ERRORING: Uuid = Uuid::from_u128(8);
pub const FRAGILE: Uuid = Uuid::from_u128(9);
pub const NEVER: Uuid = Uuid::from_u128(10);

/// The run that had this claim.
pub fn run(job: Uuid, fence: i64) -> Uuid {
    Uuid::from_u128(job.as_u128() * 1_000 + fence.unsigned_abs() as u128)
}

pub fn process(worker: Uuid) -> Process {
    Process {
        worker,
        started_at: 0,
        asked_at: None,
        stops: Vec::new(),
        ended_at: (100 * SECOND, 100 * SECOND),
        killed: false,
    }
}

#[derive(Clone)]
pub struct Tale(pub Evidence);

impl Tale {
    pub fn job(&mut self, id: Uuid, job_type: &str, order: Order) {
        self.0.specs.push(Spec {
            id,
            job_type: job_type.to_owned(),
            order,
            spawned_at: 0,
            live: false,
        });
    }

    pub fn asked(&mut self, job: Uuid) {
        let asked = Line::Asked {
            job,
            in_op: true,
            due_at: None,
        };
        self.line(0, asked);
        self.line(0, Line::Stands { job });
        self.line(0, Line::Confirmed { job });
    }

    pub fn line(&mut self, at: Micros, line: Line) {
        self.0.diary.push((at, line));
    }

    /// A claim at `at`, whose run begins 10 ms later and ends as it means to
    /// after 100 ms.
    pub fn meant(&mut self, job: Uuid, worker: Uuid, at: Micros, end: RunEnd, how: Meant) {
        self.claim(job, worker, at, at + 100 * MS, end);
        let run = run(job, self.last(job).fence);
        self.line(at + 90 * MS, Line::Ending { run, how });
    }

    pub fn claim(&mut self, job: Uuid, worker: Uuid, at: Micros, ended_at: Micros, end: RunEnd) {
        let mut earlier = self.0.ends.iter().filter(|end| end.job == job);
        let fence = earlier.clone().count() as i64 + 1;
        let attempt = earlier.next_back().map_or(1, |last| match last.end {
            RunEnd::Rescheduled => 1,
            RunEnd::Released | RunEnd::Interrupted => last.attempt,
            _ => last.attempt + 1,
        });
        let failed = matches!(end, RunEnd::Retried | RunEnd::Errored);
        let backoff = Kind::Erroring.retry().backoff(attempt).as_micros() as Micros;
        self.0.ends.push(End {
            job,
            fence,
            attempt,
            worker,
            claimed_at: at,
            ended_at,
            end,
            error: failed.then(|| AS_ORDERED.to_owned()),
            next_due_at: match end {
                RunEnd::Retried => Some(ended_at + backoff),
                end if end.is_final() => None,
                _ => Some(ended_at),
            },
        });
        let started = Line::Started {
            run: run(job, fence),
            job,
            attempt,
            worker,
            place: fence.unsigned_abs(),
            found: None,
        };
        self.line(at + 10 * MS, started);
    }

    pub fn dropped(&mut self, job: Uuid, fence: i64, at: Micros) {
        self.undropped(job, fence);
        let run = run(job, fence);
        self.line(at, Line::Dropped { run, at });
    }

    pub fn undropped(&mut self, job: Uuid, fence: i64) {
        let of = run(job, fence);
        self.forget(|line| matches!(line, Line::Dropped { run, .. } if *run == of));
    }

    pub fn last(&mut self, job: Uuid) -> &mut End {
        let mut ends = self.0.ends.iter_mut();
        ends.rfind(|end| end.job == job).expect("it has one")
    }

    pub fn end(&mut self, job: Uuid, fence: i64) -> &mut End {
        let mut ends = self.0.ends.iter_mut();
        let end = ends.find(|end| (end.job, end.fence) == (job, fence));
        end.expect("the tale has it")
    }

    pub fn completes(&mut self, job: Uuid, worker: Uuid, at: Micros) {
        self.meant(job, worker, at, RunEnd::Completed, Meant::Complete);
    }

    pub fn enters(&mut self, job: Uuid, fence: i64, turn: u32) {
        let run = run(job, fence);
        self.0.ledger.push(Entry { job, run, turn });
    }

    pub fn found(&mut self, job: Uuid, fence: i64, state: Option<State>) {
        for (_, line) in &mut self.0.diary {
            if let Line::Started { run: of, found, .. } = line
                && *of == run(job, fence)
            {
                *found = state;
            }
        }
    }

    pub fn forget(&mut self, forgotten: impl Fn(&Line) -> bool) {
        self.0.diary.retain(|(_, line)| !forgotten(line));
    }

    pub fn spec(&mut self, id: Uuid) -> &mut Spec {
        let mut specs = self.0.specs.iter_mut();
        specs.find(|spec| spec.id == id).expect("the tale has it")
    }

    pub fn process(&mut self, worker: Uuid) -> &mut Process {
        let mut processes = self.0.processes.iter_mut();
        let process = processes.find(|process| process.worker == worker);
        process.expect("the tale has it")
    }
}

pub fn honest() -> Tale {
    let mut tale = Tale(Evidence::default());
    tale.0.processes = [STEADY, STOPPED, KILLED, KILLED_LATER, ASKED]
        .map(process)
        .into();
    for worker in [STEADY, STOPPED, KILLED, KILLED_LATER, ASKED] {
        tale.line(0, Line::Polls { worker });
    }
    tale.process(STOPPED).stops = vec![(SECOND, 5 * SECOND)];
    tale.process(KILLED).killed = true;
    tale.process(KILLED).ended_at = (SECOND, SECOND + MS);
    tale.process(KILLED_LATER).killed = true;
    tale.process(KILLED_LATER).ended_at = (3_500 * MS, 3_500 * MS);
    tale.process(ASKED).asked_at = Some(SECOND);
    tale.process(ASKED).ended_at = (2 * SECOND, 2 * SECOND);

    // Its first run is stopped, loses its lease, is told and dropped. While it
    // is stopped, another one does the work.
    tale.job(IN_TX, "in_tx", Order::default());
    tale.claim(IN_TX, STOPPED, 500 * MS, 4 * SECOND, RunEnd::Lost);
    tale.completes(IN_TX, STEADY, 4 * SECOND);
    let loser = run(IN_TX, 1);
    tale.line(5_100 * MS, Line::Told { run: loser });
    tale.dropped(IN_TX, 1, 6 * SECOND);
    tale.enters(IN_TX, 2, 0);

    // The first run is killed after it wrote, the second put back.
    tale.job(OUTSIDE, "outside", Order::default());
    tale.claim(OUTSIDE, KILLED, 500 * MS, 3 * SECOND, RunEnd::Lost);
    tale.claim(OUTSIDE, ASKED, 3 * SECOND, 3_100 * MS, RunEnd::Interrupted);
    tale.dropped(OUTSIDE, 2, 3_050 * MS);
    tale.completes(OUTSIDE, STEADY, 4 * SECOND);
    tale.enters(OUTSIDE, 1, 0);
    tale.enters(OUTSIDE, 3, 0);
    tale.process(ASKED).ended_at = (4 * SECOND, 4 * SECOND);

    let two_turns = || Order {
        turns: 1,
        ..Order::default()
    };
    let again = Meant::RescheduleIn { micros: 300 };
    for (job, job_type) in [(TURNING, "turning"), (KEEPING, "keeping")] {
        tale.job(job, job_type, two_turns());
        tale.meant(job, STEADY, SECOND, RunEnd::Rescheduled, again);
        tale.last(job).next_due_at = Some(1_100 * MS + 300);
        tale.completes(job, STEADY, 2 * SECOND);
        let (turn, by) = (1, run(job, 1));
        tale.found(job, 2, Some(State { turn, by }));
    }
    tale.enters(TURNING, 1, 1);
    tale.enters(TURNING, 2, 2);
    let kept = Line::Kept {
        run: run(KEEPING, 1),
        turn: 1,
    };
    tale.line(1_050 * MS, kept);
    tale.enters(KEEPING, 2, 0);

    let with_child = Order {
        children: 1,
        ..Order::default()
    };
    tale.job(PARENT, "parent", with_child);
    let of_parent = Order {
        parent: Some(PARENT),
        ..Order::default()
    };
    tale.job(CHILD, "in_tx", of_parent);
    tale.job(UNIQUE, "unique_3", Order::default());
    for job in [PARENT, CHILD, UNIQUE] {
        tale.completes(job, STEADY, SECOND);
        tale.enters(job, 1, 0);
    }
    let job_type = "unique_3".to_owned();
    tale.line(0, Line::Unique { job_type });

    tale.job(ERRORING, "erroring", Order::default());
    for attempt in 1..=4 {
        let end = if attempt < 4 {
            RunEnd::Retried
        } else {
            RunEnd::Errored
        };
        tale.meant(ERRORING, STEADY, attempt * SECOND, end, Meant::Fail);
    }

    tale.job(FRAGILE, "fragile", Order::default());
    tale.claim(FRAGILE, KILLED, 500 * MS, 3 * SECOND, RunEnd::Lost);
    tale.claim(
        FRAGILE,
        KILLED_LATER,
        3 * SECOND,
        6 * SECOND,
        RunEnd::Abandoned,
    );
    tale.last(FRAGILE).error = Some(CRASHED_TOO_OFTEN.to_owned());

    for job in [IN_TX, OUTSIDE, TURNING, KEEPING, PARENT, ERRORING, FRAGILE] {
        tale.asked(job);
    }
    let in_op = true;
    let never = Line::Asked {
        job: NEVER,
        in_op,
        due_at: None,
    };
    tale.line(0, never);
    tale.line(0, Line::RolledBack { job: NEVER });
    tale
}

/// A tale of one process at a time: a killed one, and the next. It takes back what
/// the first left, before it polls at the second second.
pub fn one_after_the_other() -> Tale {
    let mut tale = Tale(Evidence::default());
    tale.0.processes = [KILLED, STEADY].map(process).into();
    tale.process(KILLED).killed = true;
    tale.process(KILLED).ended_at = (SECOND, SECOND + MS);
    tale.process(STEADY).started_at = SECOND + 2 * MS;
    for (worker, at) in [(KILLED, 0), (STEADY, 2 * SECOND)] {
        tale.line(at, Line::Polls { worker });
    }
    tale.job(IN_TX, "in_tx", Order::default());
    tale.asked(IN_TX);
    tale.claim(IN_TX, KILLED, 500 * MS, 1_900 * MS, RunEnd::Interrupted);
    tale.completes(IN_TX, STEADY, 2 * SECOND);
    tale.enters(IN_TX, 2, 0);
    tale
}
