-- Which version the tables are: the last that was installed.
--
-- Invariant: writes nothing.
-- Index: the primary key of job_schema, which has one row a version.
SELECT version, compatible_since FROM /*schema*/job_schema ORDER BY version DESC LIMIT 1
