-- Which version the tables are.
--
-- Invariant: writes nothing.
-- Index: none; the table has one row.
SELECT version, compatible_since FROM /*schema*/job_schema
