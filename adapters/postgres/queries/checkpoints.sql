-- What runners have kept of these jobs.
--
-- Invariant: runs after the claim as a statement of its own, so that it sees what came
-- between: a job that others claimed, ran and put back since the claim's snapshot is taken
-- as it is now, and so is what they kept. Nobody else writes it once the job is claimed.
-- Index: the primary key of job_checkpoints.
SELECT job_id, execution_state::text AS execution_state
FROM /*schema*/job_checkpoints
WHERE job_id = ANY($1::uuid[])
