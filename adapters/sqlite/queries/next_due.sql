-- When the next job of a type is due, if none is due now.
--
-- Invariant: none; a hint for when to claim again.
-- Index: job_live_pending, one probe.
SELECT due_at FROM job_live
WHERE state = 0 AND job_type = ?1 AND due_at > ?2
ORDER BY due_at
LIMIT 1
