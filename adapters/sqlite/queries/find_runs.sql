-- Reads the history of a job.
--
-- Invariant: writes nothing.
-- Index: the primary key.
SELECT fence, attempt, worker, claim_seq, claimed_at, ended_at, run_end, error, next_due_at
FROM job_runs
WHERE job_id = ?1
ORDER BY fence
