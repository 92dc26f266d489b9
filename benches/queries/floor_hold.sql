-- Claims due jobs for as long as the transaction is open.
-- Index: floor_jobs_due.
SELECT id, config::text
FROM floor_jobs
WHERE job_type = $1::text AND due_at <= now() AND claimed_at IS NULL
ORDER BY due_at, id
LIMIT $2::bigint
FOR UPDATE SKIP LOCKED
