-- Finds the jobs that run by a claim whose reply was lost, and renews their
-- leases. Those beyond the quotas of the repeat come without what is large.
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
        live.interruptions, live.undecodable_since
), placed AS (
    SELECT
        taken.*,
        row_number() OVER (PARTITION BY taken.job_type ORDER BY taken.due_at, taken.id)
            <= coalesce(quota.jobs_max, 0) AS fits
    FROM taken
    LEFT JOIN unnest($6::text[], $7::integer[]) AS quota (job_type, jobs_max)
        ON quota.job_type = taken.job_type
)
SELECT
    placed.id, placed.job_type, placed.fence, placed.attempt, placed.due_at,
    placed.interruptions, placed.undecodable_since, placed.fits,
    CASE WHEN placed.fits THEN specs.config::text END AS config,
    specs.trace, specs.spawned_at,
    clock.now
FROM clock
LEFT JOIN (
    placed LEFT JOIN /*schema*/job_specs AS specs ON specs.id = ANY(ARRAY[placed.id])
) ON true
ORDER BY placed.due_at, placed.id
