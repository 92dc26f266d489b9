-- Keeps others from ending a running job, or taking it back, until the transaction ends.
-- Returns the job if the run goes on.
--
-- Invariant: only the run that holds the current fence, and claimed it; writes nothing.
-- Whoever ends a run waits for either lock, as in checkpoint.sql; heartbeats renew beside
-- the weaker one. A transaction that works on a snapshot takes the stronger one: as its first
-- statement this takes the snapshot and the row together, so nobody, no heartbeat either,
-- can have changed the row since the snapshot when the end of the run comes to be written.
-- Index: the primary key of job_live, by one of the two; not pending is written as in
-- heartbeat.sql.
WITH alone AS MATERIALIZED (
    SELECT id
    FROM /*schema*/job_live
    WHERE id = $1::uuid AND fence = $2::bigint AND worker = $3::uuid AND claim_seq = $4::bigint
      AND state <> 0
      AND current_setting('transaction_isolation') IN ('repeatable read', 'serializable')
    FOR UPDATE
), shared AS MATERIALIZED (
    SELECT id
    FROM /*schema*/job_live
    WHERE id = $1::uuid AND fence = $2::bigint AND worker = $3::uuid AND claim_seq = $4::bigint
      AND state <> 0
      AND current_setting('transaction_isolation') NOT IN ('repeatable read', 'serializable')
    FOR KEY SHARE
)
SELECT id FROM alone UNION ALL SELECT id FROM shared
