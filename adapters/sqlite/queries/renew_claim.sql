-- Renews the leases of the jobs that run by a claim whose reply was lost.
--
-- Invariant: changes only the ends of leases that this very claim granted.
-- Index: job_live_running by (worker, claim_seq).
UPDATE job_live
SET lease_expires_at = ?3
WHERE state = 1 AND worker = ?1 AND claim_seq = ?2
