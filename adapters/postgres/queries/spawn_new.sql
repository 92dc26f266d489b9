-- Creates jobs of which none is there yet: spawn.sql at two thirds of its cost. It
-- fails when one of them is; then spawn.sql tells which.
--
-- Invariant: a job is in job_specs and job_live, or in neither; all of them are, or
-- none. It waits for an open transaction that creates one of them, and callers sort
-- the jobs as for spawn.sql.
-- Index: the primary keys, and job_specs_unique_type, as constraints.
WITH clock AS (
    SELECT coalesce($9::timestamptz, statement_timestamp()) AS now
), input AS MATERIALIZED (
    SELECT *
    FROM unnest(
        $1::uuid[], $2::text[], $3::boolean[], $4::text[], $5::text[], $6::bigint[],
        $7::timestamptz[], $8::interval[]
    ) AS input (
        id, job_type, unique_type, config, trace, spawn_token, due_at, delay
    )
), specs AS (
    INSERT INTO /*schema*/job_specs (
        id, job_type, unique_type, config, trace, spawn_token, spawned_at
    )
    SELECT
        input.id, input.job_type, input.unique_type, input.config::json, input.trace,
        input.spawn_token, clock.now
    FROM input, clock
)
INSERT INTO /*schema*/job_live (id, job_type, due_at)
SELECT
    input.id,
    input.job_type,
    coalesce(input.due_at, least(clock.now + input.delay, $10::timestamptz))
FROM input, clock
