//! What each statement may cost, and how.

use job_engine::limits::{BATCH_LEN_MAX, HISTORY_LEN_MAX};
use uuid::Uuid;

use super::databases::{JOBS, LATER, LONG_HISTORY, Sample, SampleRun, TYPES, UNIQUE};

/// Pages of one look into an index of a million entries, which has three levels,
/// and of the row to which it leads.
const PROBE: u64 = 4;
/// Pages of one more version of a row: the page that it goes to, and at times that
/// of the version before and the map of free space.
const ROW: u64 = 3;
/// Pages of one more entry in such an index, and at times of another page for it.
const ENTRY: u64 = 4;

/// Sizes of batches: one, what a busy worker gathers, and the largest.
const SIZES: [usize; 3] = [1, 30, BATCH_LEN_MAX];

/// Runs that are read at once.
const PAGE: usize = HISTORY_LEN_MAX;

/// Whose connections carry out a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// Those of the worker only.
    Worker,
    /// Those of the application too, also in its own transactions.
    Application,
}

/// What a statement may cost: so many rows and pages for each thing that it takes,
/// and for one more.
pub(crate) struct Expected {
    /// The name of its file.
    pub(crate) name: &'static str,
    pub(crate) by: By,
    /// How it finds its rows, as in [`Cost::scans`](super::explain::Cost::scans).
    pub(crate) scans: &'static [&'static str],
    pub(crate) rows_each: u64,
    pub(crate) blocks_each: u64,
    /// The index of which it reads a range, and so also the entries of dead rows
    /// in that, until they are cleaned up.
    pub(crate) ranges_over: Option<&'static str>,
    pub(crate) cases: fn(&Sample) -> Vec<Case>,
}

/// One way to use a statement.
pub(crate) struct Case {
    pub(crate) what: String,
    /// How many things it takes at most: what it names, what it is to return.
    pub(crate) takes: u64,
    /// How many rows it returns at least, or the case shows nothing.
    pub(crate) returns: u64,
    /// How many rows it has to look at beside those.
    pub(crate) looks_at: u64,
    /// How many pairs of rows its joins may compare in vain.
    pub(crate) pairs_max: u64,
    /// As literals.
    pub(crate) parameters: Vec<String>,
}

impl Case {
    /// Rows that may be read.
    pub(crate) fn rows_max(&self, expected: &Expected) -> u64 {
        expected.rows_each * (self.takes + 1) + self.looks_at
    }

    /// Pages that may be touched, if no dead rows are in the way.
    pub(crate) fn blocks_max(&self, expected: &Expected) -> u64 {
        expected.blocks_each * (self.takes + 1) + self.looks_at
    }
}

pub(crate) const EXPECTED: &[Expected] = &[
    Expected {
        name: "announce",
        by: By::Application,
        scans: &[],
        rows_each: 0,
        blocks_each: 0,
        ranges_over: None,
        cases: |_| {
            vec![case(
                "types",
                0,
                TYPES.len(),
                [text("job_wake"), array(TYPES), text("tag/")],
            )]
        },
    },
    Expected {
        name: "checkpoint",
        by: By::Application,
        scans: &["job_live_pkey", "job_live_pkey"],
        rows_each: 2,
        // Looks for what was kept before, and writes it anew.
        blocks_each: (PROBE + 1) + PROBE + ROW + ENTRY,
        ranges_over: None,
        cases: checkpoint,
    },
    Expected {
        name: "checkpoints",
        by: By::Worker,
        scans: &["job_checkpoints_pkey"],
        rows_each: 2,
        blocks_each: PROBE,
        ranges_over: None,
        cases: |sample| batches(&sample.kept, |kept| vec![array(kept)]),
    },
    Expected {
        name: "claim",
        by: By::Worker,
        scans: &[
            "job_live_pending",
            "job_live_pending",
            "job_live_pkey",
            "job_specs_pkey",
        ],
        rows_each: 4,
        // Locks the row, finds it again, writes it, and finds what the job is.
        blocks_each: 2 + PROBE + ROW + 2 * ENTRY + PROBE,
        ranges_over: Some("job_live_pending"),
        cases: claim,
    },
    Expected {
        name: "clock_hold",
        by: By::Application,
        scans: &[],
        rows_each: 0,
        blocks_each: 0,
        ranges_over: None,
        cases: |_| vec![case("a clock", 0, 1, [text("job_live"), text(1)])],
    },
    Expected {
        name: "clock_other",
        by: By::Application,
        scans: &[],
        rows_each: 0,
        blocks_each: 0,
        ranges_over: None,
        cases: |_| vec![case("no other clock", 0, 0, [text("job_live"), text(1)])],
    },
    Expected {
        name: "clock_turn",
        by: By::Application,
        scans: &[],
        rows_each: 0,
        blocks_each: 0,
        ranges_over: None,
        cases: |_| vec![case("the only one", 0, 1, [text("job_live")])],
    },
    Expected {
        name: "find",
        by: By::Application,
        scans: &[
            "job_checkpoints_pkey",
            "job_live_pkey",
            "job_live_pkey",
            "job_runs_pkey",
            "job_runs_pkey",
            "job_specs_pkey",
        ],
        rows_each: 5,
        blocks_each: 5 * PROBE,
        ranges_over: None,
        cases: find,
    },
    Expected {
        name: "finish",
        by: By::Application,
        scans: &[
            "job_checkpoints_pkey",
            "job_live_pkey",
            "job_live_pkey",
            "job_live_pkey",
        ],
        rows_each: 5,
        // Locks the row, finds it again, writes it, writes to the history, and looks for
        // what was kept.
        blocks_each: (PROBE + 1) + (PROBE + ROW + 2 * ENTRY) + (ROW + ENTRY) + (PROBE + 1),
        ranges_over: None,
        cases: finish,
    },
    Expected {
        name: "finish_final",
        by: By::Application,
        scans: &["job_checkpoints_pkey", "job_live_pkey"],
        rows_each: 4,
        blocks_each: (PROBE + ROW) + (ROW + ENTRY) + (PROBE + 1),
        ranges_over: None,
        cases: finish_final,
    },
    Expected {
        name: "finished",
        by: By::Application,
        scans: &["job_runs_pkey"],
        rows_each: 2,
        blocks_each: PROBE,
        ranges_over: None,
        cases: |sample| batches(&sample.ended, |ended| columns(ended).to_vec()),
    },
    Expected {
        name: "heartbeat",
        by: By::Application,
        scans: &["job_live_pkey", "job_live_pkey"],
        rows_each: 4,
        blocks_each: (PROBE + 1) + (PROBE + ROW + 2 * ENTRY),
        ranges_over: None,
        cases: heartbeat,
    },
    Expected {
        name: "history",
        by: By::Application,
        scans: &["job_live_pkey", "job_runs_pkey", "job_runs_pkey"],
        rows_each: 4,
        blocks_each: 3 * PROBE,
        ranges_over: None,
        cases: history,
    },
    Expected {
        name: "hold",
        by: By::Application,
        scans: &["job_live_pkey", "job_live_pkey"],
        rows_each: 2,
        blocks_each: PROBE + 1,
        ranges_over: None,
        cases: hold,
    },
    Expected {
        name: "look",
        by: By::Application,
        scans: &[],
        rows_each: 0,
        blocks_each: 0,
        ranges_over: None,
        cases: look,
    },
    Expected {
        name: "migration_holder",
        by: By::Application,
        scans: &[],
        rows_each: 0,
        blocks_each: 0,
        ranges_over: None,
        cases: |_| vec![case("nobody", 0, 0, [])],
    },
    Expected {
        name: "migration_lock",
        by: By::Application,
        scans: &[],
        rows_each: 0,
        blocks_each: 0,
        ranges_over: None,
        cases: |_| vec![case("nobody else", 0, 1, [])],
    },
    Expected {
        name: "reclaim",
        by: By::Worker,
        scans: &[
            "all of job_live_running",
            "job_checkpoints_pkey",
            "job_live_pkey",
            "job_live_pkey",
            "job_live_pkey",
        ],
        rows_each: 4,
        blocks_each: (PROBE + 1) + (PROBE + ROW + 2 * ENTRY) + (ROW + ENTRY) + (PROBE + 1),
        ranges_over: Some("job_live_running"),
        cases: reclaim,
    },
    Expected {
        name: "renew_claim",
        by: By::Worker,
        scans: &[
            "job_live_pkey",
            "job_live_pkey",
            "job_live_running",
            "job_specs_pkey",
        ],
        rows_each: 5,
        blocks_each: 2 + PROBE + PROBE + ROW + 2 * ENTRY + PROBE,
        ranges_over: None,
        cases: renew_claim,
    },
    Expected {
        name: "running",
        by: By::Application,
        scans: &["job_live_pkey"],
        rows_each: 2,
        blocks_each: PROBE,
        ranges_over: None,
        cases: |sample| {
            batches(&sample.runs, |runs| {
                columns(runs).into_iter().chain(claims(runs)).collect()
            })
        },
    },
    Expected {
        name: "schema_version",
        by: By::Application,
        scans: &[],
        rows_each: 0,
        // The one page of the table and that of its index.
        blocks_each: 2,
        ranges_over: None,
        cases: |_| vec![case("the only one", 0, 1, [])],
    },
    Expected {
        name: "spawn",
        by: By::Application,
        // Indexes tell of conflicts, without a scan.
        scans: &[],
        rows_each: 0,
        // Looks for a job with the id, and writes two rows with three entries.
        blocks_each: PROBE + (ROW + ENTRY) + (ROW + 2 * ENTRY),
        ranges_over: None,
        cases: spawn,
    },
    Expected {
        name: "spawn_new",
        by: By::Application,
        scans: &[],
        rows_each: 0,
        blocks_each: PROBE + (ROW + ENTRY) + (ROW + 2 * ENTRY),
        ranges_over: None,
        cases: spawn_new,
    },
    Expected {
        name: "spawned",
        by: By::Application,
        scans: &["job_specs_pkey"],
        rows_each: 2,
        blocks_each: PROBE,
        ranges_over: None,
        cases: |sample| batches(&sample.jobs, |jobs| vec![array(jobs)]),
    },
    Expected {
        name: "unique_jobs",
        by: By::Application,
        scans: &["job_specs_unique_type"],
        rows_each: 2,
        blocks_each: PROBE,
        ranges_over: None,
        cases: |_| vec![case("a type", 1, 1, [array([UNIQUE])])],
    },
];

fn checkpoint(sample: &Sample) -> Vec<Case> {
    let (job, fence, worker, seq) = sample.runs[0];
    let parameters = [text(job), text(fence), text("{}"), text(worker), text(seq)];
    vec![case("a run", 1, 1, parameters)]
}

fn hold(sample: &Sample) -> Vec<Case> {
    let (job, fence, worker, seq) = sample.runs[0];
    let parameters = [text(job), text(fence), text(worker), text(seq)];
    vec![case("a run", 1, 1, parameters)]
}

fn claim(_: &Sample) -> Vec<Case> {
    let claim = |what: &str, types: &[&str], jobs_max: usize, returns: usize| {
        let quotas = vec![jobs_max; types.len()];
        let takes = types.len() * (jobs_max + 1);
        let (worker, seq) = (Uuid::nil(), 1);
        let mut parameters = vec![array(types), array(quotas), text(worker), text(seq)];
        parameters.extend(lease());
        case(what, takes, returns, parameters)
    };
    // One row tells the time if there is no job. Fewer are due where most are gone.
    vec![
        claim("one job", &TYPES[..1], 1, 1),
        claim("some of each type", &TYPES, 10, 70),
        claim("the most", &TYPES, BATCH_LEN_MAX / TYPES.len(), 150),
        claim("nothing is due", &[LATER], 100, 1),
        claim("no such type", &["none"], 100, 1),
    ]
}

fn find(sample: &Sample) -> Vec<Case> {
    // Each run is compared with what the job is, which belongs to none of them.
    let find = |what: &str, runs: usize, returns: usize, id: Uuid| Case {
        pairs_max: 3 * runs as u64,
        ..case(what, 1 + runs, returns, [text(id), text(PAGE)])
    };
    vec![
        find("a short history", 2, 3, sample.ended[0].0),
        find("a long history", PAGE, 1 + PAGE, sample.oldest),
        find("no such job", 0, 1, Uuid::max()),
    ]
}

fn history(sample: &Sample) -> Vec<Case> {
    let history = |what: &str, returns: usize, id: Uuid, before: i64| {
        case(
            what,
            1 + returns,
            returns,
            [text(id), text(PAGE), text(before)],
        )
    };
    // One row tells where the page begins if there is no run.
    vec![
        history("a short history", 1, sample.ended[0].0, 2),
        history("the end of a long history", PAGE, sample.oldest, i64::MAX),
        history(
            "the middle of a long history",
            PAGE,
            sample.oldest,
            LONG_HISTORY / 2,
        ),
        history("the start of a long history", 1, sample.oldest, 3),
    ]
}

/// Completes the ones and retries the others.
fn finish(sample: &Sample) -> Vec<Case> {
    batches(&sample.runs, |runs| {
        let every_other = |of: [&'static str; 2]| array((0..runs.len()).map(|n| of[n % 2]));
        let mut parameters = columns(runs).to_vec();
        parameters.extend([
            every_other(["1", "3"]),
            every_other(["NULL", "why"]),
            every_other(["NULL", "2"]),
            every_other(["NULL", "NULL"]),
            every_other(["NULL", "1000 d"]),
            null(),
            text("9999-12-31"),
        ]);
        parameters.extend(claims(runs));
        parameters
    })
}

/// One row tells that all are ended.
fn finish_final(sample: &Sample) -> Vec<Case> {
    SIZES
        .map(|size| {
            let runs = &sample.runs_of_one[..size.min(sample.runs_of_one.len())];
            let all = |what: &str| array(vec![what; runs.len()]);
            let [_, seqs] = claims(runs);
            let (worker, ..) = sample.claim;
            let mut parameters = columns(runs).to_vec();
            parameters.extend([all("1"), all("NULL"), null(), text(worker), seqs]);
            let what = format!("{} of them", runs.len());
            case(what, runs.len(), 1, parameters)
        })
        .into()
}

fn heartbeat(sample: &Sample) -> Vec<Case> {
    batches(&sample.runs, |runs| {
        let named = columns(runs).into_iter().chain(lease());
        named.chain(claims(runs)).collect()
    })
}

fn reclaim(sample: &Sample) -> Vec<Case> {
    let each = |what: &str| array([what; TYPES.len()]);
    // Not of the type that is not named.
    let lapsed = sample.running as usize / 3;
    let reclaim = |jobs_max: usize| {
        let parameters = [
            array(TYPES),
            each("5"),
            each("NULL"),
            each("1 h"),
            text(jobs_max),
            null(),
            text("crashed too often"),
            text("lost at the last attempt"),
        ];
        // All that runs, and again what has lapsed, each with each type.
        Case {
            looks_at: 2 * sample.running as u64,
            pairs_max: 2 * (TYPES.len() as i64 * sample.running) as u64,
            ..case(
                format!("{jobs_max} at most"),
                jobs_max,
                lapsed.min(jobs_max),
                parameters,
            )
        }
    };
    SIZES.map(reclaim).into()
}

fn renew_claim(sample: &Sample) -> Vec<Case> {
    let (worker, seq, jobs) = sample.claim;
    let quotas = [array(TYPES), array([1_000; TYPES.len()])];
    let parameters = [text(worker), text(seq)].into_iter().chain(lease());
    let parameters = parameters.chain(quotas);
    vec![case("a claim", jobs as usize, jobs as usize, parameters)]
}

/// Every second job exists already; the last of several is of a unique type that
/// exists.
fn spawn(sample: &Sample) -> Vec<Case> {
    SIZES
        .map(|size| {
            let new = (0..).map(|n| Uuid::from_u128(2 * JOBS as u128 + n));
            let ids = new.zip(sample.jobs.iter().cycle());
            let ids = ids.enumerate().map(|(n, (new, old))| {
                if n % 2 == 0 || n + 1 == size {
                    new
                } else {
                    *old
                }
            });
            let all = |what: &str| array(vec![what; size]);
            let last = |of: [&'static str; 2]| {
                array((1..=size).map(|n| of[usize::from(n == size && n > 1)]))
            };
            let parameters = [
                array(ids.take(size)),
                last([TYPES[0], UNIQUE]),
                last(["false", "true"]),
                all("1"),
                all("NULL"),
                all("1"),
                all("NULL"),
                all("1000 d"),
                null(),
                text("9999-12-31"),
            ];
            case(format!("{size} jobs"), size, size.div_ceil(2), parameters)
        })
        .into()
}

/// None of them exists. It returns nothing.
fn spawn_new(_: &Sample) -> Vec<Case> {
    SIZES
        .map(|size| {
            let new = (0..size as u128).map(|n| Uuid::from_u128(4 * JOBS as u128 + n));
            let all = |what: &str| array(vec![what; size]);
            let parameters = [
                array(new),
                all(TYPES[0]),
                all("false"),
                all("1"),
                all("NULL"),
                all("1"),
                all("NULL"),
                all("1000 d"),
                null(),
                text("9999-12-31"),
            ];
            case(format!("{size} jobs"), size, 0, parameters)
        })
        .into()
}

/// Cases that name the first so many of `all`, of each size.
fn batches<T>(all: &[T], parameters: impl Fn(&[T]) -> Vec<String>) -> Vec<Case> {
    SIZES
        .map(|size| {
            let some = &all[..size.min(all.len())];
            case(
                format!("{} of them", some.len()),
                some.len(),
                some.len(),
                parameters(some),
            )
        })
        .into()
}

fn case(
    what: impl Into<String>,
    takes: usize,
    returns: usize,
    parameters: impl IntoIterator<Item = String>,
) -> Case {
    Case {
        what: what.into(),
        takes: takes as u64,
        returns: returns as u64,
        looks_at: 0,
        pairs_max: 0,
        parameters: parameters.into_iter().collect(),
    }
}

/// The length of a lease, the clock of the database, and the last of all times.
fn lease() -> [String; 3] {
    [text("5 min"), null(), text("9999-12-31")]
}

fn columns(runs: &[SampleRun]) -> [String; 2] {
    [
        array(runs.iter().map(|(job, ..)| job)),
        array(runs.iter().map(|(_, fence, ..)| fence)),
    ]
}

fn claims(runs: &[SampleRun]) -> [String; 2] {
    [
        array(runs.iter().map(|(_, _, worker, _)| worker)),
        array(runs.iter().map(|(.., seq)| seq)),
    ]
}

fn null() -> String {
    "NULL".to_owned()
}

/// It joins a handful of tables of the catalog as it likes.
fn look(_: &Sample) -> Vec<Case> {
    vec![Case {
        pairs_max: 10_000,
        ..case("all tables", 0, 4, [text("public"), text("public")])
    }]
}

fn text(value: impl ToString) -> String {
    format!("'{}'", value.to_string())
}

fn array<T: ToString>(values: impl IntoIterator<Item = T>) -> String {
    let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    format!("'{{{}}}'", values.join(","))
}
