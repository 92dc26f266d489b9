-- The file of the database: its whole path; empty if there is none.
--
-- Invariant: reads nothing of the file.
-- Index: none.
SELECT file FROM pragma_database_list WHERE name = 'main'
