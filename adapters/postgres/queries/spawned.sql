-- Reads the tokens of jobs that could not be created, to tell a repeat of the
-- same spawn from another job with the same id. What is not found was refused
-- for its unique type.
--
-- Invariant: runs after spawn.sql as a statement of its own, so that it sees
-- what the conflict was with.
-- Index: the primary key of job_specs.
SELECT id, spawn_token FROM /*schema*/job_specs WHERE id = ANY($1::uuid[])
