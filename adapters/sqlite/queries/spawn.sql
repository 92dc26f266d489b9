-- Creates what jobs are. Returns those that were created.
--
-- Invariant: a conflict on the id or on the unique type leaves the job out and
-- the others in. spawn_live.sql follows in the same transaction.
-- Index: the primary key, and job_specs_unique_type.
INSERT INTO job_specs (id, job_type, unique_type, config, trace, spawn_token, spawned_at)
SELECT
    unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, ?2
FROM json_each(?1)
WHERE true
ORDER BY key
ON CONFLICT DO NOTHING
RETURNING id, spawn_token
