//! One round of one measure.

use std::time::Duration;

use crate::database::{Database, Server};
use crate::meter::Meter;
use crate::{Reading, Result};

/// Who is measured.
pub const OURS: &str = "job";

/// So often the subjects of a short measure take turns within a round: a machine
/// drifts within one, too.
pub const TURNS: usize = 10;

/// How much is done in a round.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// Jobs enqueued one after the other by one task.
    pub enqueue_one: usize,
    /// Jobs enqueued by 16 tasks together.
    pub enqueue_many: usize,
    /// Jobs enqueued in bulk.
    pub bulk: usize,
    /// Jobs drained.
    pub drain: usize,
    /// Jobs that wait, of which the first [`Sizes::drain`] are drained.
    pub backlogs: [usize; 2],
    /// Jobs whose latency is measured, one after the other.
    pub pickups: usize,
    /// How long a load lasts.
    pub load: Duration,
    /// The loads, in jobs a second.
    pub loads: &'static [u32],
    /// Jobs drained while a transaction stays open.
    pub pinned: usize,
    /// How long a worker is watched that has nothing to do.
    pub idle: Duration,
    /// Jobs drained by the worker whose memory is watched.
    pub memory: usize,
    /// Jobs whose runners take their time.
    pub real_runners: usize,
    /// Inputs that the engine handles.
    pub engine: u64,
}

impl Sizes {
    /// For figures.
    pub const FULL: Self = Self {
        enqueue_one: 3_000,
        enqueue_many: 20_000,
        bulk: 100_000,
        drain: 20_000,
        backlogs: [200_000, 1_000_000],
        pickups: 1_000,
        load: Duration::from_secs(5),
        loads: &[100, 300, 1_000, 2_000, 4_000, 8_000],
        pinned: 200_000,
        idle: Duration::from_secs(60),
        memory: 1_000_000,
        real_runners: 10_000,
        engine: 20_000_000,
    };

    /// To see whether it works.
    pub const QUICK: Self = Self {
        enqueue_one: 200,
        enqueue_many: 1_000,
        bulk: 10_000,
        drain: 2_000,
        backlogs: [10_000, 20_000],
        pickups: 50,
        load: Duration::from_millis(500),
        loads: &[100, 1_000],
        pinned: 5_000,
        idle: Duration::from_secs(10),
        memory: 10_000,
        real_runners: 1_000,
        engine: 500_000,
    };
}

/// What a measure works with: the server, how much to do, and where to write what
/// came of it.
#[derive(Debug)]
pub struct Round {
    /// The server, apart from its databases.
    pub server: Server,
    /// What the server did.
    pub meter: Meter,
    /// How much to do.
    pub sizes: Sizes,
    number: u32,
    readings: Vec<Reading>,
}

impl Round {
    /// A round of this number, from 1.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn new(server: Server, sizes: Sizes, number: u32) -> Result<Self> {
        let meter = Meter::new(&server).await?;
        Ok(Self {
            server,
            meter,
            sizes,
            number,
            readings: Vec::new(),
        })
    }

    /// Makes a database for a subject.
    ///
    /// # Errors
    ///
    /// When the server does not.
    pub async fn database(&self) -> Result<Database> {
        self.server.create_database().await
    }

    /// The subjects in the order of this round: each round begins with another one,
    /// so that none always comes first, and the other way round once each has, so that
    /// none always comes after the same.
    pub fn in_turn<T, const N: usize>(&self, mut subjects: [T; N]) -> [T; N] {
        let before = self.number as usize + N - 1;
        subjects.rotate_left(before % N);
        if (before / N).is_multiple_of(2) {
            subjects.reverse();
        }
        subjects
    }

    /// Writes down what came of it.
    pub fn record(&mut self, measure: &str, subject: &str, unit: &str, value: f64) {
        self.readings.push(Reading {
            measure: measure.to_owned(),
            subject: subject.to_owned(),
            unit: unit.to_owned(),
            round: self.number,
            value,
        });
    }

    /// All that was written down.
    pub fn into_readings(self) -> Vec<Reading> {
        self.readings
    }
}
