-- Locks the row of a running job until the transaction ends. Returns the job if the run
-- goes on.
--
-- Invariant: only the run that holds the current fence, and claimed it; writes nothing.
-- As the first statement of a transaction at any isolation it takes the snapshot and the
-- row together, so nobody can have changed the row since the snapshot when the end of the
-- run comes to be written.
-- Index: the primary key of job_live; not pending is written as in heartbeat.sql.
SELECT id
FROM /*schema*/job_live
WHERE id = $1::uuid AND fence = $2::bigint AND worker = $3::uuid AND claim_seq = $4::bigint
  AND state <> 0
FOR UPDATE
