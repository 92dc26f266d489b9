-- Makes the jobs pending that spawn.sql created.
--
-- Invariant: a job that is not over is in job_specs and in job_live, or in
-- neither.
-- Index: the primary key.
INSERT INTO job_live (id, job_type, due_at)
SELECT unhex(value ->> 0), value ->> 1, value ->> 2
FROM json_each(?1)
