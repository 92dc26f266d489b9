-- Finds the jobs that run by a claim whose reply was lost, and renews their
-- leases.
--
-- Invariant: changes only the ends of leases that this very claim granted, the
-- rows locked in the order of their ids. READ COMMITTED: a job that was taken
-- back while this waited for its row no longer fits and is left out. What the claim
-- took after this looked is found by the next repeat, or its lease runs out.
-- Index: job_live_running by (worker, claim_seq), apart from the ordered part as in
-- reclaim.sql; then the primary keys, as in heartbeat.sql.
WITH clock AS (
    SELECT coalesce($4::timestamptz, statement_timestamp()) AS now
), candidate AS MATERIALIZED (
    SELECT live.id
    FROM /*schema*/job_live AS live
    WHERE live.state = 1 AND live.worker = $1::uuid AND live.claim_seq = $2::bigint
), held AS MATERIALIZED (
    SELECT live.id
    FROM /*schema*/job_live AS live
    WHERE live.id = ANY(ARRAY(SELECT id FROM candidate))
      AND live.state <> 0 AND live.worker = $1::uuid AND live.claim_seq = $2::bigint
    ORDER BY live.id
    FOR UPDATE
), taken AS (
    UPDATE /*schema*/job_live AS live
    SET lease_expires_at = least(clock.now + $3::interval, $5::timestamptz)
    FROM clock
    WHERE live.id = ANY(ARRAY(SELECT id FROM held))
    RETURNING live.id, live.job_type, live.fence, live.attempt, live.due_at,
        live.execution_state
)
SELECT
    taken.id, taken.job_type, taken.fence, taken.attempt, taken.due_at,
    taken.execution_state::text AS execution_state,
    specs.config::text AS config, specs.trace, specs.spawned_at,
    clock.now
FROM clock
LEFT JOIN (taken JOIN /*schema*/job_specs AS specs ON specs.id = ANY(ARRAY[taken.id])) ON true
ORDER BY taken.due_at, taken.id
