//! A worker on a bench: a test is its driver, its clock and its network.

use super::*;

pub(super) const TYPE: JobType = JobType::new("mail");
pub(super) const LEASE: Duration = Duration::from_secs(40);

/// A worker, its store, and the wire between them, which a test can cut.
pub(super) struct Bench {
    pub(super) now: Timestamp,
    pub(super) worker: Worker,
    pub(super) model: ModelStore,
    /// Commands that were sent and not answered yet.
    pub(super) wire: VecDeque<(OpId, Command)>,
    /// Whether commands are answered at once.
    pub(super) connected: bool,
    /// What comes of every end of a run, instead of its being recorded.
    pub(super) refused: Option<StoreError>,
    pub(super) started: Vec<ClaimedJob>,
    pub(super) stops: Vec<(Run, StopReason)>,
    pub(super) aborts: Vec<Run>,
    pub(super) seen: Vec<Observation>,
    /// The types of which others were told.
    pub(super) announced: Vec<BTreeSet<JobType>>,
    /// The number of the last claim, and how many were sent, repeats included.
    pub(super) claims: (i64, u32),
    pub(super) stopped: bool,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut WorkerConfig)) -> Self {
        let mut config = WorkerConfig {
            types: vec![TypeConfig {
                job_type: TYPE,
                retry: RetrySettings::default(),
                crashes_max: Some(3),
                undecodable_max: Duration::from_secs(3600),
            }],
            jobs_max: 4,
            jobs_min: 4,
            lease: LEASE,
            poll_interval: Duration::from_secs(60),
            poll_interval_deaf: Duration::from_secs(1),
            shutdown_timeout: Duration::from_secs(5),
        };
        change(&mut config);
        let now = Timestamp::EPOCH;
        Self {
            now,
            worker: Worker::new(now, config, Entropy::from_seed([1; 32])),
            model: ModelStore::new(),
            wire: VecDeque::new(),
            connected: true,
            refused: None,
            started: Vec::new(),
            stops: Vec::new(),
            aborts: Vec::new(),
            seen: Vec::new(),
            announced: Vec::new(),
            claims: (0, 0),
            stopped: false,
        }
    }

    pub(super) fn spawn(&mut self, n: u128, due: Due) -> JobId {
        let id = JobId(uuid::Uuid::from_u128(n));
        let job = NewJob {
            id,
            job_type: TYPE,
            unique_type: false,
            due,
            config: Payload::from_json("{}"),
            trace: None,
            token: 0,
        };
        let command = Command::Spawn(vec![job]);
        self.model.apply(self.now, &command).unwrap();
        id
    }

    pub(super) fn spawn_many(&mut self, ids: std::ops::RangeInclusive<u128>) {
        for n in ids {
            self.spawn(n, Due::Now);
        }
    }

    pub(super) fn input(&mut self, input: Input) {
        self.worker.handle_input(self.now, input);
        self.drain();
    }

    pub(super) fn drain(&mut self) {
        while let Some(action) = self.worker.poll_action() {
            assert!(!self.stopped, "{action:?} after Stopped");
            match action {
                Action::Execute { op, command } => {
                    if let Command::Claim(claim) = &command {
                        self.claims_with(claim);
                    }
                    self.wire.push_back((op, command));
                }
                Action::Start(job) => self.started.push(job),
                Action::Stop { run, reason } => self.stops.push((run, reason)),
                Action::Abort(run) => self.aborts.push(run),
                Action::Observe(observation) => self.seen.push(observation),
                Action::Announce(types) => {
                    assert!(!types.is_empty());
                    self.announced.push(types);
                }
                Action::Stopped => self.stopped = true,
            }
        }
        if self.connected && !self.wire.is_empty() {
            self.answer();
        }
    }

    /// Each claim asks for something, under a number of its own, unless it is a repeat.
    fn claims_with(&mut self, claim: &Claim) {
        assert!(claim.quotas.iter().all(|quota| quota.jobs_max > 0));
        if !claim.repeat {
            assert!(!claim.quotas.is_empty());
            assert!(claim.id.seq > self.claims.0);
        }
        self.claims = (claim.id.seq, self.claims.1 + 1);
    }

    /// Carries out the oldest command and delivers its reply.
    pub(super) fn answer(&mut self) {
        let (op, command) = self.wire.pop_front().expect("a command was sent");
        let result = match (&self.refused, &command) {
            (Some(error), Command::Finish(_)) => Err(error.clone()),
            _ => self
                .model
                .apply(self.now, &command)
                .map_err(StoreError::from),
        };
        self.input(Input::Replied { op, result });
    }

    /// Carries out the oldest command or not, and delivers an error.
    pub(super) fn fail(&mut self, carry_out: bool, error: StoreError) {
        let (op, command) = self.wire.pop_front().expect("a command was sent");
        if carry_out {
            self.model.apply(self.now, &command).unwrap();
        }
        self.input(Input::Replied {
            op,
            result: Err(error),
        });
    }

    /// Takes the first such command off the wire. It is for the test to answer.
    pub(super) fn take(&mut self, is: impl Fn(&Command) -> bool) -> OpId {
        let place = self.wire.iter().position(|(_, command)| is(command));
        let taken = place.and_then(|place| self.wire.remove(place));
        taken.expect("such a command was sent").0
    }

    /// Lets time pass, with the timer fired whenever it is due.
    pub(super) fn pass(&mut self, duration: Duration) {
        let until = self.now.saturating_add(duration);
        while let Some(at) = self.worker.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.input(Input::TimerFired);
        }
        self.now = until;
    }

    pub(super) fn end(&mut self, run: Run, ended: Ended) {
        self.input(Input::RunEnded { run, ended });
    }

    pub(super) fn job(&self, id: JobId) -> &Snapshot {
        self.model.find(id).expect("the job was spawned")
    }

    pub(super) fn ends(&self, id: JobId) -> Vec<RunEnd> {
        self.job(id).runs.iter().map(|run| run.end).collect()
    }
}

/// A claim by a worker that is never heard of again.
pub(super) fn stolen_claim() -> Command {
    Command::Claim(Claim {
        id: ClaimId {
            worker: WorkerId(uuid::Uuid::from_u128(99)),
            seq: 1,
        },
        repeat: false,
        quotas: vec![Quota {
            job_type: TYPE,
            jobs_max: 1,
        }],
        lease: LEASE,
    })
}

pub(super) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(super) fn unknown() -> StoreError {
    StoreError::Unknown("timeout".into())
}

pub(super) fn failed(text: &str) -> Ended {
    Ended::Failed(ErrorText::new(text))
}
