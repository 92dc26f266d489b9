-- The runs whose lease has run out, of the types that are named.
--
-- Invariant: writes nothing; what follows from each is decided by the policy of
-- its type and written in the same transaction.
-- Index: job_live_running, read whole; it holds no more than what runs. It is
-- named because the order by id tempts the planner to read all jobs instead.
SELECT id, job_type, fence, worker, claim_seq, attempt, crashes, claimed_at, lease_expires_at
FROM job_live INDEXED BY job_live_running
WHERE state = 1
  AND lease_expires_at <= ?2
  AND job_type IN (SELECT value FROM json_each(?1))
ORDER BY id
LIMIT ?3
