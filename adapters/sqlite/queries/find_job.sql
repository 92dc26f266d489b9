-- Reads a job. find_runs.sql follows in the same transaction.
--
-- Invariant: writes nothing.
-- Index: the primary keys.
SELECT
    specs.job_type, specs.unique_type, specs.config, specs.trace, specs.spawned_at,
    live.id IS NOT NULL AS is_live,
    live.due_at, live.fence, live.attempt, live.crashes, live.interruptions,
    live.undecodable_since, kept.execution_state,
    live.worker, live.claim_seq, live.claimed_at, live.lease_expires_at
FROM job_specs AS specs
LEFT JOIN job_live AS live ON live.id = specs.id
LEFT JOIN job_checkpoints AS kept ON kept.job_id = specs.id
WHERE specs.id = ?1
