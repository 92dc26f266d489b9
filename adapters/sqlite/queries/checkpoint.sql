-- Keeps the execution state of a running job.
--
-- Invariant: only the run that holds the current fence.
-- Index: the primary key.
UPDATE job_live SET execution_state = ?3 WHERE id = ?1 AND fence = ?2 AND state = 1
