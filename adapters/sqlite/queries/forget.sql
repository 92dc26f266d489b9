-- Forgets what runners have kept of these jobs, which have ended.
--
-- Invariant: after finish.sql and finish_final.sql, in their transaction. Of a job that goes
-- on, the row in job_live is there, and nothing is forgotten.
-- Index: the primary keys.
DELETE FROM job_checkpoints
WHERE job_id IN (SELECT unhex(value ->> 0) FROM json_each(?1))
  AND NOT EXISTS (SELECT 1 FROM job_live WHERE job_live.id = job_checkpoints.job_id)
