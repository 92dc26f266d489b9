-- Takes due jobs: for each type a prefix of its pending ones, the longest due
-- first. If there were fewer than it could take, it also tells when the next of each
-- type is due: a row with the type and the time alone. One row, or more, tells what
-- time it is.
--
-- Invariant: a job is taken once. SKIP LOCKED passes over what another claim is
-- taking, and never waits, so claims take part in no deadlock. READ COMMITTED: a
-- row that changed since the snapshot is checked against the conditions again
-- once it is locked, and the update then works on its newest version. The cost
-- depends on the quotas, not on the backlog. A job whose spec is gone is taken as well,
-- without a config: its worker ends it. checkpoints.sql reads what was kept of those that
-- were claimed before.
-- When the next is due is a hint, and of the same snapshot: what another worker puts
-- off meanwhile is neither taken nor told.
-- Index: job_live_pending, one range for each type; then the primary keys, as in
-- heartbeat.sql; and one entry of job_live_pending for each type. The ids go through an
-- array. What a LATERAL with a LIMIT returns the planner takes to be much: it would
-- join all of job_live with it.
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
        live.interruptions, live.undecodable_since
), later AS (
    SELECT quota.job_type, next.due_at
    FROM unnest($1::text[]) AS quota (job_type)
    CROSS JOIN LATERAL (
        SELECT live.due_at
        FROM /*schema*/job_live AS live
        WHERE live.state = 0
          AND live.job_type = quota.job_type
          AND live.due_at > coalesce($6::timestamptz, statement_timestamp())
        ORDER BY live.due_at, live.id
        LIMIT 1
    ) AS next
    WHERE (SELECT count(*) FROM picked) < (SELECT sum(max) FROM unnest($2::integer[]) AS max)
)
SELECT
    taken.id, taken.job_type, taken.fence, taken.attempt, taken.due_at,
    taken.interruptions, taken.undecodable_since,
    specs.config::text AS config, specs.trace, specs.spawned_at,
    clock.now
FROM clock
LEFT JOIN (
    taken LEFT JOIN /*schema*/job_specs AS specs ON specs.id = ANY(ARRAY[taken.id])
) ON true
UNION ALL
SELECT
    NULL, later.job_type, NULL, NULL, later.due_at, NULL, NULL, NULL, NULL, NULL, clock.now
FROM clock, later
ORDER BY due_at, id
