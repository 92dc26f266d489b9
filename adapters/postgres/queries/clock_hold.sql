-- Shows to all others that these tables are used with an artificial clock, for as
-- long as the session lasts. Its table stands for the schema.
--
-- Invariant: after clock_turn.sql and clock_other.sql in their transaction; never
-- waits, since only those with the same clock have the same lock, and they share it.
-- The server does not end the session for being idle.
-- Index: none.
SELECT
    pg_advisory_lock_shared($1::text::regclass::oid::int4, $2::int4),
    set_config('idle_session_timeout', '0', false)
