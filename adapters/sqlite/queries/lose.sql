-- Sets the crashes in a row of jobs that go back to pending after a crash;
-- finish.sql and the others have recorded the rest.
--
-- Invariant: in the transaction that took the jobs back.
-- Index: the primary key.
UPDATE job_live AS live
SET crashes = input.value ->> 6
FROM json_each(?1) AS input
WHERE live.id = unhex(input.value ->> 0) AND live.state = 0 AND input.value ->> 6 IS NOT NULL
