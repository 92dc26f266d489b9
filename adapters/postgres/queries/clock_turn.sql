-- Waits until nobody else looks whether he may use these tables with his artificial
-- clock, and keeps others from it until the transaction ends.
--
-- Invariant: comes before clock_other.sql in its transaction, so that of two that
-- start at once the second sees the lock of the first. No clock is the object 0.
-- Index: none.
SELECT pg_advisory_xact_lock($1::text::regclass::oid::int4, 0)
