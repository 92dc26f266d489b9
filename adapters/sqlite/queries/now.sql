-- The clock of the machine, in microseconds, to the millisecond. SQLite runs in
-- the one process that uses the file, so this is the clock of all its workers.
--
-- Invariant: writes nothing.
-- Index: none.
SELECT CAST(round(unixepoch('now', 'subsec') * 1000) AS INTEGER) * 1000
