-- Renews the leases of the jobs that run by a claim whose reply was lost.
-- Returns them.
--
-- Invariant: changes only the ends of leases that this very claim granted.
-- Index: job_live_running by (worker, claim_seq); job_specs and job_checkpoints by primary key.
UPDATE job_live
SET lease_expires_at = ?3
WHERE state = 1 AND worker = ?1 AND claim_seq = ?2
RETURNING
    id, job_type, fence, attempt, due_at, interruptions, undecodable_since,
    (SELECT kept.execution_state FROM job_checkpoints AS kept WHERE kept.job_id = job_live.id)
        AS execution_state,
    (SELECT config FROM job_specs AS specs WHERE specs.id = job_live.id) AS config,
    (SELECT trace FROM job_specs AS specs WHERE specs.id = job_live.id) AS trace,
    (SELECT spawned_at FROM job_specs AS specs WHERE specs.id = job_live.id) AS spawned_at
