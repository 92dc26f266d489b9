-- Renews leases. Returns the runs whose lease was renewed.
--
-- Invariant: only the run that holds the current fence, and claimed it.
-- Index: the primary key.
UPDATE job_live
SET lease_expires_at = ?2
WHERE (id, fence, +worker, +claim_seq) IN (
    SELECT unhex(value ->> 0), value ->> 1, unhex(value ->> 2), value ->> 3
    FROM json_each(?1)
) AND state = 1
RETURNING id, fence, worker, claim_seq
