-- The jobs that run by a claim.
--
-- Invariant: writes nothing.
-- Index: job_live_running by (worker, claim_seq); job_specs by primary key.
SELECT
    live.id, live.job_type, live.fence, live.attempt, live.due_at, live.execution_state,
    specs.config, specs.trace, specs.spawned_at
FROM job_live AS live
JOIN job_specs AS specs ON specs.id = live.id
WHERE live.state = 1 AND live.worker = ?1 AND live.claim_seq = ?2
ORDER BY live.due_at, live.id
