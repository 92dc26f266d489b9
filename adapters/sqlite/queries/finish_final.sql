-- Removes the jobs from job_live whose run was their last.
--
-- Invariant: only the run that holds the current fence, and claimed it.
-- Index: the primary key.
DELETE FROM job_live
WHERE (id, fence, +worker, +claim_seq) IN (
    SELECT unhex(value ->> 0), value ->> 1, unhex(value ->> 7), value ->> 8
    FROM json_each(?1)
    WHERE value ->> 5 IS NULL
) AND state = 1
