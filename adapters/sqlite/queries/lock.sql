-- Takes the place of the one writer, as the first statement of a transaction.
-- It changes no row; that it could is what takes the lock.
--
-- Invariant: what the transaction reads from here on stays true until it ends,
-- and no statement in it fails because another has written meanwhile.
-- Index: none; the table has one row, and it is not read.
UPDATE job_schema SET version = version WHERE false
