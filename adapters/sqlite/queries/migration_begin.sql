-- Takes the place of the one writer, as the first statement of a transaction,
-- where lock.sql has no table yet. migration_end.sql takes it away again in the
-- same transaction, so nobody ever sees this table.
--
-- Invariant: what the transaction reads from here on stays true until it ends.
-- Index: none.
CREATE TABLE job_migration (migrating INTEGER) STRICT
