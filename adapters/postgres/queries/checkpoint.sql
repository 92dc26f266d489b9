-- Keeps the execution state of a running job. Returns the job if it was kept.
--
-- Invariant: only the run that holds the current fence, and claimed it, writes. READ COMMITTED:
-- if it has to wait for the row, it checks the fence again afterwards.
-- Index: the primary key of job_live; not pending is written as in heartbeat.sql.
UPDATE /*schema*/job_live
SET execution_state = $3::text::json
WHERE id = $1::uuid AND fence = $2::bigint AND worker = $4::uuid AND claim_seq = $5::bigint
  AND state <> 0
RETURNING id
