-- How a connection treats the file: its journal mode, and for how long it waits
-- for another that writes, in milliseconds.
--
-- Invariant: changes neither.
-- Index: none.
SELECT journal_mode, timeout FROM pragma_journal_mode, pragma_busy_timeout
