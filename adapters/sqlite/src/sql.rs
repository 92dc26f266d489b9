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
    CONFIGS_OF_TYPE = "configs_of_type",
    DATABASE_FILE = "database_file",
    DATABASE_MODE = "database_mode",
    FIND_JOB = "find_job",
    FIND_RUNS = "find_runs",
    FINISH = "finish",
    FINISH_FINAL = "finish_final",
    FINISH_PENDING = "finish_pending",
    FINISHED = "finished",
    FORGET = "forget",
    HEARTBEAT = "heartbeat",
    HOLD = "hold",
    INTERRUPT = "interrupt",
    INTERRUPT_RUNS = "interrupt_runs",
    LAPSED = "lapsed",
    LOCK = "lock",
    MIGRATION_BEGIN = "migration_begin",
    MIGRATION_END = "migration_end",
    NEXT_DUE = "next_due",
    NOW = "now",
    RENEW_CLAIM = "renew_claim",
    RUNNING = "running",
    SCHEMA_PARTS = "schema_parts",
    SCHEMA_VERSION = "schema_version",
    SPAWN = "spawn",
    SPAWN_LIVE = "spawn_live",
    SPAWNED = "spawned",
    UNIQUE_JOBS = "unique_jobs",
];
