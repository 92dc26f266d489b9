-- Reads which unique job each of these types has, to tell a job that was refused for its
-- type of the one that is there.
--
-- Invariant: writes nothing.
-- Index: job_specs_unique_type.
SELECT job_type, id FROM job_specs
WHERE unique_type AND job_type IN (SELECT value FROM json_each(?1))
