-- Renews leases. Returns the runs whose lease was renewed.
--
-- Invariant: only the run that holds the current fence.
-- Index: the primary key.
UPDATE job_live
SET lease_expires_at = ?2
WHERE (id, fence) IN (SELECT unhex(value ->> 0), value ->> 1 FROM json_each(?1)) AND state = 1
RETURNING id, fence
