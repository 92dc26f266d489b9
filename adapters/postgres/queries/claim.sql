-- Takes due jobs: for each type a prefix of its pending ones, the longest due
-- first.
--
-- Invariant: a job is taken once. SKIP LOCKED passes over what another claim is
-- taking, and never waits, so claims take part in no deadlock. READ COMMITTED: a
-- row that changed since the snapshot is checked against the conditions again
-- once it is locked, and the update then works on its newest version. The cost
-- depends on the quotas, not on the backlog.
-- Index: job_live_pending, one range for each type; then the primary keys. The
-- ids go through an array, which the planner takes to be short. What a LATERAL
-- with a LIMIT returns it takes to be much: it would merge all of job_live and
-- of job_specs with it.
WITH clock AS (
    SELECT coalesce($6::timestamptz, statement_timestamp()) AS now
), picked AS MATERIALIZED (
    SELECT due.id
    FROM unnest($1::text[], $2::integer[]) AS quota (job_type, jobs_max)
    CROSS JOIN LATERAL (
        SELECT live.id
        FROM /*schema*/job_live AS live
        WHERE live.state = 0
          AND live.job_type = quota.job_type
          AND live.due_at <= coalesce($6::timestamptz, statement_timestamp())
        ORDER BY live.due_at, live.id
        LIMIT quota.jobs_max
        FOR UPDATE SKIP LOCKED
    ) AS due
), taken AS (
    UPDATE /*schema*/job_live AS live
    SET state = 1,
        fence = live.fence + 1,
        worker = $3::uuid,
        claim_seq = $4::bigint,
        claimed_at = clock.now,
        lease_expires_at = least(clock.now + $5::interval, $7::timestamptz)
    FROM clock
    WHERE live.id = ANY(ARRAY(SELECT id FROM picked))
    RETURNING live.id, live.job_type, live.fence, live.attempt, live.due_at,
        live.execution_state
)
SELECT
    taken.id, taken.job_type, taken.fence, taken.attempt, taken.due_at,
    taken.execution_state::text AS execution_state,
    specs.config::text AS config, specs.trace, specs.spawned_at,
    clock.now
FROM clock
LEFT JOIN (taken JOIN /*schema*/job_specs AS specs USING (id)) ON true
ORDER BY taken.due_at, taken.id
