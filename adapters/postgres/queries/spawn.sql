-- Creates jobs, in the order in which they come. No id twice. Returns the ids of
-- those that were created.
--
-- Invariant: a job is in job_specs and job_live, or in neither. A conflict on
-- the id or on the unique type leaves the job out and the others in; that goes
-- for conflicts among these jobs too. It waits for an open transaction that
-- created the other job, and so never guesses; callers sort the jobs so that
-- two batches wait for each other in one direction only. What the conflict was
-- with may be younger than the snapshot: spawned.sql asks.
-- Index: the primary keys, and job_specs_unique_type.
WITH clock AS (
    SELECT coalesce($9::timestamptz, statement_timestamp()) AS now
), input AS MATERIALIZED (
    SELECT *
    FROM unnest(
        $1::uuid[], $2::text[], $3::boolean[], $4::text[], $5::text[], $6::bigint[],
        $7::timestamptz[], $8::interval[]
    ) WITH ORDINALITY AS input (
        id, job_type, unique_type, config, trace, spawn_token, due_at, delay, position
    )
), specs AS (
    INSERT INTO /*schema*/job_specs (
        id, job_type, unique_type, config, trace, spawn_token, spawned_at
    )
    SELECT
        input.id, input.job_type, input.unique_type, input.config::json, input.trace,
        input.spawn_token, clock.now
    FROM input, clock
    ORDER BY input.position
    ON CONFLICT DO NOTHING
    RETURNING id
)
INSERT INTO /*schema*/job_live (id, job_type, due_at)
SELECT
    input.id,
    input.job_type,
    coalesce(input.due_at, least(clock.now + input.delay, $10::timestamptz))
FROM specs
JOIN input USING (id), clock
RETURNING id
