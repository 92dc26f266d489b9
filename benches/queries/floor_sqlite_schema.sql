-- The least that jobs with a history need, in SQLite.
CREATE TABLE floor_jobs (
    id BLOB PRIMARY KEY,
    job_type TEXT NOT NULL,
    due_at INTEGER NOT NULL,
    -- Null until the job is claimed.
    claimed_at INTEGER,
    config TEXT NOT NULL
) WITHOUT ROWID;

CREATE INDEX floor_jobs_due ON floor_jobs (job_type, due_at, id) WHERE claimed_at IS NULL;

CREATE TABLE floor_runs (
    job_id BLOB PRIMARY KEY,
    job_type TEXT NOT NULL,
    due_at INTEGER NOT NULL,
    config TEXT NOT NULL,
    claimed_at INTEGER NOT NULL,
    ended_at INTEGER NOT NULL
) WITHOUT ROWID;
