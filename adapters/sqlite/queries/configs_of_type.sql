-- The configs of all jobs of a type, in the order of their ids. For tests of
-- applications, which look at what they have spawned.
--
-- Invariant: writes nothing. On the connection of a caller's transaction, it sees what
-- that has spawned.
-- Index: none. The tables of a test are small.
SELECT config FROM job_specs WHERE job_type = ?1 ORDER BY id
