-- Takes away what migration_begin.sql made.
--
-- Invariant: leaves nothing of it.
-- Index: none.
DROP TABLE IF EXISTS job_migration
