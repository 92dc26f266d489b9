-- Keeps the execution state of a running job. Returns the job if it was kept.
--
-- Invariant: only the run that holds the current fence, and claimed it, writes, and until
-- the transaction ends nobody ends that run or takes it back: who does locks the row FOR
-- UPDATE, or deletes it. A row that was locked so and changed since the snapshot is checked
-- again here, or the statement fails where the transaction works on a snapshot, although what
-- changed is no key: the stronger lock is what counts. Pinned by
-- `a_run_that_was_taken_back_keeps_nothing_whatever_it_saw`. Heartbeats change the row
-- beside this lock, but for a transaction that works on a snapshot, as in hold.sql: its end
-- could not be recorded once they had. A run keeps one thing after the other: of two transactions that keep
-- something of it at once, the second waits for the first with this lock in its hand, and
-- if the first then ends the run, the server has to fail one of them.
-- Index: the primary keys, that of job_live by one of the two; not pending is written as in
-- heartbeat.sql.
WITH alone AS MATERIALIZED (
    SELECT id
    FROM /*schema*/job_live
    WHERE id = $1::uuid AND fence = $2::bigint AND worker = $4::uuid AND claim_seq = $5::bigint
      AND state <> 0
      AND current_setting('transaction_isolation') IN ('repeatable read', 'serializable')
    FOR UPDATE
), shared AS MATERIALIZED (
    SELECT id
    FROM /*schema*/job_live
    WHERE id = $1::uuid AND fence = $2::bigint AND worker = $4::uuid AND claim_seq = $5::bigint
      AND state <> 0
      AND current_setting('transaction_isolation') NOT IN ('repeatable read', 'serializable')
    FOR KEY SHARE
), running AS (
    SELECT id FROM alone UNION ALL SELECT id FROM shared
)
INSERT INTO /*schema*/job_checkpoints (job_id, execution_state)
SELECT id, $3::text::json FROM running
ON CONFLICT (job_id) DO UPDATE SET execution_state = excluded.execution_state
RETURNING job_id
