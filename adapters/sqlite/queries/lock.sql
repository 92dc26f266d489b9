-- Takes the place of the one writer, as the first statement of a transaction.
-- It changes no row; that it could is what takes the lock.
--
-- Invariant: what the transaction reads from here on stays true until it ends,
-- and no statement in it fails because another has written meanwhile.
-- Index: none; the table is not read.
UPDATE job_schema SET compatible_since = compatible_since WHERE false
