-- The least that jobs with a history need: what is to be done, in the order in
-- which it is due, and what was done. No fences, no retries.
CREATE TABLE floor_jobs (
    id uuid PRIMARY KEY,
    job_type text COLLATE "C" NOT NULL,
    due_at timestamptz NOT NULL DEFAULT now(),
    -- Null until the job is claimed.
    claimed_at timestamptz,
    config json NOT NULL
) WITH (
    -- As for the table that this is compared with.
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 500,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_analyze_threshold = 500,
    autovacuum_vacuum_cost_delay = 0
);

CREATE INDEX floor_jobs_due ON floor_jobs (job_type, due_at, id) WHERE claimed_at IS NULL;

CREATE TABLE floor_runs (
    job_id uuid PRIMARY KEY,
    job_type text COLLATE "C" NOT NULL,
    due_at timestamptz NOT NULL,
    config json NOT NULL,
    claimed_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL
);
