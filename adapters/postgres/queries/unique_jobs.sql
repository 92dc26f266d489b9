-- Reads which unique job each of these types has, to tell a job that was refused for its
-- type of the one that is there.
--
-- Invariant: runs after spawn.sql as a statement of its own, so that it sees what the
-- conflict was with.
-- Index: job_specs_unique_type.
SELECT job_type, id FROM /*schema*/job_specs WHERE unique_type AND job_type = ANY($1::text[])
