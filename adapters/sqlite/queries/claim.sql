-- Takes due jobs of one type, the longest due first. Returns them.
--
-- Invariant: SQLite has one writer, so a job is taken once. The cost depends on
-- the quota, not on the backlog. A job whose spec is gone is taken as well, without a
-- config: its worker ends it.
-- Index: job_live_pending, one range; job_specs and job_checkpoints by primary key.
UPDATE job_live
SET state = 1,
    fence = fence + 1,
    worker = ?4,
    claim_seq = ?5,
    claimed_at = ?2,
    lease_expires_at = ?6
WHERE id IN (
    SELECT id FROM job_live
    WHERE state = 0 AND job_type = ?1 AND due_at <= ?2
    ORDER BY due_at, id
    LIMIT ?3
)
RETURNING
    id, job_type, fence, attempt, due_at, interruptions, undecodable_since,
    (SELECT kept.execution_state FROM job_checkpoints AS kept WHERE kept.job_id = job_live.id)
        AS execution_state,
    (SELECT config FROM job_specs AS specs WHERE specs.id = job_live.id) AS config,
    (SELECT trace FROM job_specs AS specs WHERE specs.id = job_live.id) AS trace,
    (SELECT spawned_at FROM job_specs AS specs WHERE specs.id = job_live.id) AS spawned_at
