-- Makes the jobs pending again whose run was not their last.
--
-- Invariant: only the run that holds the current fence. The crashes in a row
-- start again unless the run ended by one, or was put back. It inserts rows that are all there
-- already, and so updates them: an UPDATE with a FROM may read all of job_live
-- first, if the planner believes that there are few jobs; here CROSS JOIN tells
-- it in which order to join.
-- Index: the primary key.
INSERT INTO job_live (
    id, job_type, due_at, attempt, crashes, interruptions, undecodable_since
)
SELECT
    live.id, live.job_type, input.value ->> 5,
    coalesce(input.value ->> 4, live.attempt),
    coalesce(input.value ->> 6, live.crashes),
    -- 5 released, 8 interrupted, 9 undecodable, 6 lost.
    CASE
        WHEN input.value ->> 2 = 8 THEN min(live.interruptions + 1, 2147483647)
        WHEN input.value ->> 2 IN (5, 6, 9) THEN live.interruptions
        ELSE 0
    END,
    CASE
        WHEN input.value ->> 2 = 9 THEN coalesce(live.undecodable_since, ?2)
        WHEN input.value ->> 2 IN (5, 6) THEN live.undecodable_since
    END
FROM json_each(?1) AS input
CROSS JOIN job_live AS live
WHERE live.id = unhex(input.value ->> 0)
  AND live.fence = input.value ->> 1
  AND +live.worker = unhex(input.value ->> 7)
  AND +live.claim_seq = input.value ->> 8
  AND live.state = 1
  AND input.value ->> 5 IS NOT NULL
ON CONFLICT (id) DO UPDATE
SET state = 0,
    due_at = excluded.due_at,
    attempt = excluded.attempt,
    crashes = excluded.crashes,
    interruptions = excluded.interruptions,
    undecodable_since = excluded.undecodable_since,
    worker = NULL,
    claim_seq = NULL,
    claimed_at = NULL,
    lease_expires_at = NULL
