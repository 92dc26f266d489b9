//! The statements.

macro_rules! statements {
    ($($name:ident = $file:literal),* $(,)?) => {
        $(pub(crate) const $name: &str = include_str!(concat!("../queries/", $file, ".sql"));)*

        /// Every statement, by the name of its file.
        pub const QUERIES: &[(&str, &str)] = &[$(($file, $name),)*];
    };
}

statements![
    CHECKPOINT = "checkpoint",
    CLAIM = "claim",
    DATABASE_FILE = "database_file",
    FIND_JOB = "find_job",
    FIND_RUNS = "find_runs",
    FINISH = "finish",
    FINISH_FINAL = "finish_final",
    FINISH_PENDING = "finish_pending",
    FINISHED = "finished",
    HEARTBEAT = "heartbeat",
    HOLD = "hold",
    LAPSED = "lapsed",
    LOCK = "lock",
    NEXT_DUE = "next_due",
    NOW = "now",
    RENEW_CLAIM = "renew_claim",
    SCHEMA_VERSION = "schema_version",
    SPAWN = "spawn",
    SPAWN_LIVE = "spawn_live",
    SPAWNED = "spawned",
    UNIQUE_JOBS = "unique_jobs",
];
