-- Which version the tables are.
--
-- Invariant: writes nothing.
-- Index: the primary key, its last entry.
SELECT version, compatible_since FROM job_schema ORDER BY version DESC LIMIT 1
