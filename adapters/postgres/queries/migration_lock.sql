-- Takes the lock of those who make or change the tables, until the transaction ends, if
-- nobody has it.
--
-- Invariant: never waits, and so holds no snapshot meanwhile that others wait for, such
-- as a CREATE INDEX CONCURRENTLY. The number is that of migration_holder.sql and of
-- `MIGRATION_LOCK`, the same in all versions, and no lock of others.
-- Index: none.
SELECT pg_try_advisory_xact_lock(7593020161124)
