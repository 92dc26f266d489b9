-- Keeps the execution state of a running job.
--
-- Invariant: only the run that holds the current fence, and claimed it.
-- Index: the primary key; the claim is written so that job_live_running does not fit.
UPDATE job_live SET execution_state = ?3
WHERE id = ?1 AND fence = ?2 AND +worker = ?4 AND +claim_seq = ?5 AND state = 1
