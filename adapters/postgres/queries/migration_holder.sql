-- Who has the lock of migration_lock.sql.
--
-- Invariant: writes nothing.
-- Index: none; it reads the locks that are held on the server.
SELECT
    holder.pid,
    (SELECT activity.application_name FROM pg_stat_get_activity(holder.pid) AS activity)
FROM pg_locks AS holder
WHERE holder.locktype = 'advisory' AND holder.granted
    AND holder.database = (
        SELECT own.oid FROM pg_database AS own WHERE own.datname = current_database()
    )
    AND holder.classid = (7593020161124 >> 32)::oid
    AND holder.objid = (7593020161124 & 4294967295)::oid
    -- Of the two kinds of advisory locks, the one that has one number.
    AND holder.objsubid = 1
LIMIT 1
