-- What a job is: written once, when it is spawned.
CREATE TABLE job_specs (
    id uuid PRIMARY KEY,
    -- Compared byte by byte, so that its indexes outlive an upgrade of the
    -- system's collations.
    job_type text COLLATE "C" NOT NULL,
    unique_type boolean NOT NULL,
    -- json, not jsonb: kept to the letter, \u0000 included.
    config json NOT NULL,
    -- The W3C traceparent of the spawn.
    trace text,
    -- Tells a repeated spawn from another one with the same id.
    spawn_token bigint NOT NULL,
    spawned_at timestamptz NOT NULL
);

-- At most one unique job a type, ever.
CREATE UNIQUE INDEX job_specs_unique_type ON job_specs (job_type) WHERE unique_type;

-- What a job is about to do or does: the narrow table that all workers write.
-- A job leaves it when it ends. Its columns, and those of job_runs, are in an order that
-- leaves little room between them.
CREATE TABLE job_live (
    id uuid PRIMARY KEY,
    due_at timestamptz NOT NULL,
    -- Counts the claims. Writes of a run name it.
    fence bigint NOT NULL DEFAULT 0,
    -- The attempt that runs or runs next, from 1.
    attempt integer NOT NULL DEFAULT 1,
    -- Crashes in a row.
    crashes integer NOT NULL DEFAULT 0,
    -- Interruptions since a run last ended otherwise.
    interruptions integer NOT NULL DEFAULT 0,
    -- 0 pending, 1 running.
    state smallint NOT NULL DEFAULT 0,
    job_type text COLLATE "C" NOT NULL,
    -- The lease; null while the job is pending.
    worker uuid,
    claim_seq bigint,
    claimed_at timestamptz,
    lease_expires_at timestamptz,
    -- Since when no program that took the job could decode its config, if that is so.
    undecodable_since timestamptz
) WITH (
    -- Room in each page for the next version of its rows, so that heartbeats
    -- need touch no index.
    fillfactor = 70,
    -- Dead rows slow the claim down, so they are removed early.
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 500,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_analyze_threshold = 500,
    autovacuum_vacuum_cost_delay = 0
);

-- The claim reads a prefix of this for each type.
CREATE INDEX job_live_pending ON job_live (job_type, due_at, id) WHERE state = 0;

-- Recovery and repeated claims read this. Without the end of the lease, which
-- every heartbeat changes.
CREATE INDEX job_live_running ON job_live (worker, claim_seq) WHERE state = 1;

-- What runners keep between their runs, a row for each job that has kept anything. It goes
-- when the job ends; one that a run keeps first while its end is recorded stays behind, and is
-- of no more use. Apart from job_live, so that a transaction in which a runner keeps
-- something, which is open for as long as the runner likes, has no row that heartbeats write.
CREATE TABLE job_checkpoints (
    job_id uuid PRIMARY KEY,
    execution_state json NOT NULL
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 500,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_analyze_threshold = 500,
    autovacuum_vacuum_cost_delay = 0
);

-- What has happened: one row for each run that ended. Only ever appended to.
CREATE TABLE job_runs (
    job_id uuid NOT NULL,
    fence bigint NOT NULL,
    worker uuid NOT NULL,
    claim_seq bigint NOT NULL,
    claimed_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    attempt integer NOT NULL,
    -- 1 completed, 2 rescheduled, 3 retried, 4 errored, 5 released, 6 lost,
    -- 7 abandoned, 8 interrupted, 9 undecodable, 10 snoozed.
    run_end smallint NOT NULL,
    error text,
    -- When the next run was due; null if the job was over.
    next_due_at timestamptz,
    PRIMARY KEY (job_id, fence)
);

-- Which versions of these tables were installed. The last is what they are, and says
-- which is the oldest version of the program that can still work with them.
CREATE TABLE job_schema (
    version integer PRIMARY KEY,
    compatible_since integer NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO job_schema (version, compatible_since) VALUES (1, 1);
