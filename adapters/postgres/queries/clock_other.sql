-- Who uses these tables with another artificial clock: one of the sessions that hold
-- the lock of clock_hold.sql with another object.
--
-- Invariant: writes nothing; what it sees does not change until the transaction of
-- clock_turn.sql ends, unless a session ends.
-- Index: none; it reads the locks that are held on the server.
SELECT
    other.pid,
    (SELECT activity.application_name FROM pg_stat_get_activity(other.pid) AS activity)
FROM pg_locks AS other
WHERE other.locktype = 'advisory' AND other.granted
    AND other.database = (
        SELECT own.oid FROM pg_database AS own WHERE own.datname = current_database()
    )
    AND other.classid = $1::text::regclass::oid
    -- Of the two kinds of advisory locks, the one that has two numbers.
    AND other.objsubid = 2
    AND other.objid <> 0 AND other.objid <> $2::int4::oid
ORDER BY other.pid
LIMIT 1
