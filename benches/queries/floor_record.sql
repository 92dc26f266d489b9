-- Moves jobs that were done to the history.
-- Index: the primary key.
WITH done AS (
    DELETE FROM floor_jobs WHERE id = ANY($1::uuid[])
    RETURNING id, job_type, due_at, config, claimed_at
)
INSERT INTO floor_runs (job_id, job_type, due_at, config, claimed_at, ended_at)
SELECT id, job_type, due_at, config, coalesce(claimed_at, now()), clock_timestamp() FROM done
