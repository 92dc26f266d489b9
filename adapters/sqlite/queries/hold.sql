-- Whether a run goes on.
--
-- Invariant: writes nothing. Nobody else writes until the transaction ends, if it began as
-- a writer.
-- Index: the primary key, as in checkpoint.sql.
SELECT 1 FROM job_live
WHERE id = ?1 AND fence = ?2 AND +worker = ?3 AND +claim_seq = ?4 AND state = 1
