-- Reads the tokens of jobs that could not be created, to tell a repeat of the
-- same spawn from another job with the same id.
--
-- Invariant: writes nothing.
-- Index: the primary key.
SELECT id, spawn_token FROM job_specs WHERE id IN (SELECT unhex(value) FROM json_each(?1))
