-- Makes the jobs pending again whose run was not their last.
--
-- Invariant: only the run that holds the current fence. The crashes in a row
-- start again unless the run ended by one.
-- Index: the primary key.
UPDATE job_live AS live
SET state = 0,
    due_at = input.value ->> 5,
    attempt = coalesce(input.value ->> 4, live.attempt),
    crashes = input.value ->> 6,
    worker = NULL,
    claim_seq = NULL,
    claimed_at = NULL,
    lease_expires_at = NULL
FROM json_each(?1) AS input
WHERE live.id = unhex(input.value ->> 0)
  AND live.fence = input.value ->> 1
  AND live.state = 1
  AND input.value ->> 5 IS NOT NULL
