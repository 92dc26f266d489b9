-- All times are microseconds since 1970, UTC. Ids are UUIDs of 16 bytes.
--
-- Each statement can be repeated: an application may run this among its own
-- migrations on a file in which the service has made the tables already.
-- Pinned by `an_application_may_run_the_migrations_among_its_own_at_any_time`.

-- What a job is: written once, when it is spawned.
CREATE TABLE IF NOT EXISTS job_specs (
    id BLOB PRIMARY KEY NOT NULL,
    job_type TEXT NOT NULL,
    unique_type INTEGER NOT NULL,
    config TEXT NOT NULL,
    -- The W3C traceparent of the spawn.
    trace TEXT,
    -- Tells a repeated spawn from another one with the same id.
    spawn_token INTEGER NOT NULL,
    spawned_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- At most one unique job a type, ever.
CREATE UNIQUE INDEX IF NOT EXISTS job_specs_unique_type ON job_specs (job_type) WHERE unique_type;

-- What a job is about to do or does. A job leaves it when it ends.
CREATE TABLE IF NOT EXISTS job_live (
    id BLOB PRIMARY KEY NOT NULL,
    job_type TEXT NOT NULL,
    -- 0 pending, 1 running.
    state INTEGER NOT NULL DEFAULT 0,
    due_at INTEGER NOT NULL,
    -- Counts the claims. Writes of a run name it.
    fence INTEGER NOT NULL DEFAULT 0,
    -- The attempt that runs or runs next, from 1.
    attempt INTEGER NOT NULL DEFAULT 1,
    -- Crashes in a row.
    crashes INTEGER NOT NULL DEFAULT 0,
    -- Interruptions since a run last ended otherwise.
    interruptions INTEGER NOT NULL DEFAULT 0,
    -- Since when no program that took the job could decode its config, if that is so.
    undecodable_since INTEGER,
    -- The lease; null while the job is pending.
    worker BLOB,
    claim_seq INTEGER,
    claimed_at INTEGER,
    lease_expires_at INTEGER
) STRICT, WITHOUT ROWID;

-- The claim reads a prefix of this for each type.
CREATE INDEX IF NOT EXISTS job_live_pending ON job_live (job_type, due_at, id) WHERE state = 0;

-- Recovery and repeated claims read this. Without the end of the lease, which
-- every heartbeat changes.
CREATE INDEX IF NOT EXISTS job_live_running ON job_live (worker, claim_seq) WHERE state = 1;

-- What runners keep between their runs, a row for each job that has kept anything. It goes
-- when the job ends.
CREATE TABLE IF NOT EXISTS job_checkpoints (
    job_id BLOB PRIMARY KEY NOT NULL,
    execution_state TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What has happened: one row for each run that ended. Only ever appended to.
CREATE TABLE IF NOT EXISTS job_runs (
    job_id BLOB NOT NULL,
    fence INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    worker BLOB NOT NULL,
    claim_seq INTEGER NOT NULL,
    claimed_at INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    -- 1 completed, 2 rescheduled, 3 retried, 4 errored, 5 released, 6 lost,
    -- 7 abandoned, 8 interrupted, 9 undecodable, 10 snoozed.
    run_end INTEGER NOT NULL,
    error TEXT,
    -- When the next run was due; null if the job was over.
    next_due_at INTEGER,
    PRIMARY KEY (job_id, fence)
) STRICT, WITHOUT ROWID;

-- Which versions of these tables were installed, a row each, and the oldest
-- version of the program that can still work with it. The newest row counts.
CREATE TABLE IF NOT EXISTS job_schema (
    version INTEGER PRIMARY KEY,
    compatible_since INTEGER NOT NULL,
    installed_at INTEGER NOT NULL
) STRICT;

INSERT INTO job_schema (version, compatible_since, installed_at)
VALUES (1, 1, CAST(round(unixepoch('now', 'subsec') * 1000) AS INTEGER) * 1000)
ON CONFLICT DO NOTHING;
