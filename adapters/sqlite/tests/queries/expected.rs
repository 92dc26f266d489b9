//! How each statement finds its rows, and ways to use it.

use job_engine::lifecycle::RunEnd;
use job_engine::limits::HISTORY_LEN_MAX;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::databases::{LATER, MANY, RUNNING, UNIQUE, claim, job, runs};
use crate::fixtures::START;

/// Runs that are read at once.
const PAGE: i64 = HISTORY_LEN_MAX as i64;

/// Sizes of batches.
const SIZES: [usize; 3] = [1, 30, RUNNING as usize];

pub(crate) struct Expected {
    /// The name of its file.
    pub(crate) name: &'static str,
    /// The steps of its plan that are about the tables that grow, sorted.
    pub(crate) plan: &'static [&'static str],
    pub(crate) cases: fn() -> Vec<Case>,
}

/// One way to use a statement.
pub(crate) struct Case {
    pub(crate) what: String,
    /// How many rows it returns or changes.
    pub(crate) concerns: usize,
    pub(crate) parameters: Vec<Value>,
}

/// A parameter.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Number(i64),
    Text(String),
    Id(Uuid),
}

const LIVE_BY_ID: &str = "SEARCH job_live USING PRIMARY KEY (id=?)";
const SPECS_BY_ID: &str = "SEARCH specs USING PRIMARY KEY (id=?)";
const KEPT_BY_ID: &str = "SEARCH kept USING PRIMARY KEY (job_id=?)";

pub(crate) const EXPECTED: &[Expected] = &[
    Expected {
        name: "checkpoint",
        plan: &[LIVE_BY_ID],
        cases: || {
            let (job, fence, worker, seq) = first_run();
            let run = [id(job), number(fence), text("{}"), id(worker), number(seq)];
            vec![case("a run", 1, run)]
        },
    },
    Expected {
        name: "claim",
        plan: &[
            "SEARCH job_live USING COVERING INDEX job_live_pending (job_type=? AND due_at<?)",
            LIVE_BY_ID,
            KEPT_BY_ID,
            SPECS_BY_ID,
            SPECS_BY_ID,
            SPECS_BY_ID,
        ],
        cases: claims,
    },
    Expected {
        name: "database_file",
        plan: &[],
        cases: || vec![case("the only one", 1, [])],
    },
    Expected {
        name: "database_mode",
        plan: &[],
        cases: || vec![case("the only one", 1, [])],
    },
    Expected {
        name: "find_job",
        plan: &[
            "SEARCH kept USING PRIMARY KEY (job_id=?) LEFT-JOIN",
            "SEARCH live USING PRIMARY KEY (id=?) LEFT-JOIN",
            SPECS_BY_ID,
        ],
        cases: || finds([1, 1]),
    },
    Expected {
        name: "find_runs",
        plan: &[
            LIVE_BY_ID,
            "SEARCH job_runs USING PRIMARY KEY (job_id=?)",
            "SEARCH runs USING PRIMARY KEY (job_id=? AND fence>? AND fence<?) LEFT-JOIN",
        ],
        cases: histories,
    },
    Expected {
        name: "finish",
        plan: &["SEARCH live USING PRIMARY KEY (id=?)"],
        cases: || finishes(|n| n, |ends| vec![ends, number(START.as_micros())]),
    },
    Expected {
        name: "finish_final",
        plan: &[LIVE_BY_ID],
        cases: || finishes(|n| n.div_ceil(2), |ends| vec![ends]),
    },
    Expected {
        name: "finish_pending",
        plan: &["SEARCH live USING PRIMARY KEY (id=?)"],
        cases: || finishes(|n| n / 2, |ends| vec![ends, number(START.as_micros())]),
    },
    Expected {
        name: "finished",
        plan: &["SEARCH runs USING PRIMARY KEY (job_id=? AND fence=?)"],
        cases: || {
            batches(
                |n| n,
                |n| {
                    let ended = (1..=n as u64).map(|n| json!([hex(job(2 * n)), 1]));
                    vec![array(ended)]
                },
            )
        },
    },
    Expected {
        name: "forget",
        plan: &[
            "SEARCH job_checkpoints USING PRIMARY KEY (job_id=?)",
            LIVE_BY_ID,
        ],
        cases: || finishes(|_| 0, |ends| vec![ends]),
    },
    Expected {
        name: "heartbeat",
        plan: &[LIVE_BY_ID],
        cases: || {
            batches(
                |n| n,
                |n| {
                    let runs = runs().take(n).map(|(job, fence, worker, seq)| {
                        json!([hex(job), fence, hex(worker), seq])
                    });
                    vec![array(runs), number(START.as_micros())]
                },
            )
        },
    },
    Expected {
        name: "hold",
        plan: &[LIVE_BY_ID],
        cases: || {
            let (job, fence, worker, seq) = first_run();
            vec![case(
                "a run",
                1,
                [id(job), number(fence), id(worker), number(seq)],
            )]
        },
    },
    Expected {
        name: "interrupt",
        plan: &["SCAN job_live USING COVERING INDEX job_live_running"],
        cases: interrupts,
    },
    Expected {
        name: "interrupt_runs",
        plan: &["SCAN job_live USING INDEX job_live_running"],
        cases: interrupts,
    },
    Expected {
        name: "lapsed",
        // All of it, which is what runs.
        plan: &["SCAN job_live USING INDEX job_live_running"],
        cases: || {
            SIZES
                .map(|jobs_max| {
                    let types = (0..8).map(|n| json!(format!("t{n}")));
                    let parameters = [
                        array(types),
                        number(START.as_micros()),
                        number(jobs_max as i64),
                    ];
                    case(
                        format!("{jobs_max} at most"),
                        jobs_max.min(RUNNING as usize / 2),
                        parameters,
                    )
                })
                .into()
        },
    },
    Expected {
        name: "lock",
        plan: &[],
        cases: || vec![case("the only one", 0, [])],
    },
    Expected {
        name: "migration_begin",
        plan: &[],
        cases: || vec![case("the only one", 0, [])],
    },
    Expected {
        name: "migration_end",
        plan: &[],
        cases: || vec![case("the only one", 0, [])],
    },
    Expected {
        name: "next_due",
        plan: &["SEARCH job_live USING COVERING INDEX job_live_pending (job_type=? AND due_at>?)"],
        cases: || {
            [(MANY, 1), (LATER, 1), ("none", 0)]
                .map(|(job_type, found)| {
                    case(job_type, found, [text(job_type), number(START.as_micros())])
                })
                .into()
        },
    },
    Expected {
        name: "now",
        plan: &[],
        cases: || vec![case("the only one", 1, [])],
    },
    Expected {
        name: "renew_claim",
        plan: &[
            "SEARCH job_live USING COVERING INDEX job_live_running (worker=? AND claim_seq=?)",
            KEPT_BY_ID,
            SPECS_BY_ID,
            SPECS_BY_ID,
            SPECS_BY_ID,
        ],
        cases: || {
            let (worker, seq) = claim();
            let until = number(START.as_micros());
            vec![case("a claim", 5, [id(worker), number(seq), until])]
        },
    },
    Expected {
        name: "running",
        plan: &["SCAN job_live USING COVERING INDEX job_live_running"],
        cases: || vec![case("some do", 1, [array(std::iter::empty())])],
    },
    Expected {
        name: "schema_parts",
        plan: &[],
        cases: || {
            let names = ["job_live", "job_live_pending", "none"].map(|name| json!(name));
            vec![case("one is missing", 2, [array(names.into_iter())])]
        },
    },
    Expected {
        name: "schema_version",
        plan: &[],
        cases: || vec![case("the only one", 1, [])],
    },
    Expected {
        name: "spawn",
        plan: &[],
        cases: spawns,
    },
    Expected {
        name: "spawn_live",
        plan: &[],
        cases: || {
            batches(
                |n| n,
                |n| {
                    let jobs = (0..n).map(|n| json!([hex(new_job(n)), MANY, START.as_micros()]));
                    vec![array(jobs)]
                },
            )
        },
    },
    Expected {
        name: "spawned",
        plan: &["SEARCH job_specs USING PRIMARY KEY (id=?)"],
        cases: || {
            batches(
                |n| n,
                |n| vec![array((1..=n as u64).map(|n| json!(hex(job(n)))))],
            )
        },
    },
    Expected {
        name: "unique_jobs",
        plan: &["SEARCH job_specs USING INDEX job_specs_unique_type (job_type=?)"],
        cases: || vec![case("a type", 1, [array([json!(UNIQUE)].into_iter())])],
    },
];

fn claims() -> Vec<Case> {
    let claim = |what: &str, job_type: &str, jobs_max: i64, taken: usize| {
        let now = START.as_micros();
        let (worker, seq) = (id(Uuid::nil()), number(1));
        let parameters = [
            text(job_type),
            number(now),
            number(jobs_max),
            worker,
            seq,
            number(now),
        ];
        case(what, taken, parameters)
    };
    vec![
        claim("one job", MANY, 1, 1),
        claim("many jobs", MANY, 100, 100),
        claim("nothing is due", LATER, 100, 0),
        claim("no such type", "none", 100, 0),
    ]
}

/// `found` for a job with a long history and one with a short one.
fn finds(found: [usize; 2]) -> Vec<Case> {
    vec![
        case("a long history", found[0], [id(job(1))]),
        case("a short history", found[1], [id(job(2))]),
        case("no such job", 0, [id(Uuid::max())]),
    ]
}

fn histories() -> Vec<Case> {
    let history = |what: &str, found: usize, job: Uuid, before: i64| {
        case(what, found, [id(job), number(before), number(PAGE)])
    };
    vec![
        history("the end of a long history", PAGE as usize, job(1), i64::MAX),
        history("the start of a long history", 9, job(1), 10),
        history("a short history", 2, job(2), i64::MAX),
        // A row tells where the page begins.
        history("no such job", 1, Uuid::max(), i64::MAX),
    ]
}

/// All that runs, and what runs by other workers than the one of a claim.
fn interrupts() -> Vec<Case> {
    let all = RUNNING as usize;
    let (worker, _) = claim();
    let workers = array([json!(hex(worker))].into_iter());
    let now = || number(START.as_micros());
    vec![
        case("all", all, [array(std::iter::empty()), now()]),
        // It is one of five.
        case("of others", all / 5 * 4, [workers, now()]),
    ]
}

/// Completes the ones and retries the others. `concerns` says how many of so many
/// a statement is about.
fn finishes(
    concerns: impl Fn(usize) -> usize,
    parameters: impl Fn(Value) -> Vec<Value>,
) -> Vec<Case> {
    let end = |(n, (job, fence, worker, seq)): (usize, (Uuid, i64, Uuid, i64))| {
        let (job, worker) = (hex(job), hex(worker));
        if n % 2 == 0 {
            json!([
                job,
                fence,
                RunEnd::Completed.code(),
                null,
                null,
                null,
                null,
                worker,
                seq
            ])
        } else {
            let due_at = START.as_micros();
            json!([
                job,
                fence,
                RunEnd::Retried.code(),
                "why",
                2,
                due_at,
                0,
                worker,
                seq
            ])
        }
    };
    batches(concerns, |n| {
        parameters(array(runs().take(n).enumerate().map(end)))
    })
}

/// Every second job exists already; the last of several is of a unique type that
/// exists.
fn spawns() -> Vec<Case> {
    batches(
        |size| size.div_ceil(2),
        |size| {
            let spawn = |n: usize| {
                let id = if n.is_multiple_of(2) {
                    new_job(n)
                } else {
                    job(n as u64)
                };
                let unique = n > 0 && n + 1 == size;
                let job_type = if unique { UNIQUE } else { MANY };
                json!([hex(id), job_type, i64::from(unique), "null", null, 7])
            };
            vec![array((0..size).map(spawn)), number(START.as_micros())]
        },
    )
}

fn batches(
    concerns: impl Fn(usize) -> usize,
    parameters: impl Fn(usize) -> Vec<Value>,
) -> Vec<Case> {
    SIZES
        .map(|n| case(format!("{n} of them"), concerns(n), parameters(n)))
        .into()
}

fn case(
    what: impl Into<String>,
    concerns: usize,
    parameters: impl IntoIterator<Item = Value>,
) -> Case {
    Case {
        what: what.into(),
        concerns,
        parameters: parameters.into_iter().collect(),
    }
}

fn first_run() -> (Uuid, i64, Uuid, i64) {
    runs().next().expect("some run")
}

fn new_job(n: usize) -> Uuid {
    Uuid::from_u128((1 << 64) + n as u128)
}

fn hex(job: Uuid) -> String {
    job.as_simple().to_string()
}

fn array(rows: impl Iterator<Item = Json>) -> Value {
    text(Json::Array(rows.collect()).to_string())
}

fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

fn number(number: i64) -> Value {
    Value::Number(number)
}

fn id(id: Uuid) -> Value {
    Value::Id(id)
}
