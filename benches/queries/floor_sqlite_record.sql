-- Copies jobs that were done to the history. Their ids are hexadecimal, in JSON.
-- Index: the primary key.
INSERT INTO floor_runs (job_id, job_type, due_at, config, claimed_at, ended_at)
SELECT id, job_type, due_at, config, claimed_at, ?2
FROM floor_jobs
WHERE id IN (SELECT unhex(value) FROM json_each(?1))
