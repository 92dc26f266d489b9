-- Keeps the execution state of a running job.
--
-- Invariant: only the run that holds the current fence, and claimed it.
-- Index: the primary keys; the claim is written so that job_live_running does not fit.
INSERT INTO job_checkpoints (job_id, execution_state)
SELECT id, ?3 FROM job_live
WHERE id = ?1 AND fence = ?2 AND +worker = ?4 AND +claim_seq = ?5 AND state = 1
ON CONFLICT (job_id) DO UPDATE SET execution_state = excluded.execution_state
