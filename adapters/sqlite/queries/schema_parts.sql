-- Which of these tables and indexes exist.
--
-- Invariant: writes nothing.
-- Index: none; it reads what there is in the file, not what is in it.
SELECT name FROM sqlite_schema
WHERE name IN (SELECT value FROM json_each(?1))
ORDER BY name
