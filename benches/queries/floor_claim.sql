-- Claims due jobs.
-- Index: floor_jobs_due, then the primary key.
UPDATE floor_jobs SET claimed_at = now()
WHERE id = ANY(ARRAY(
    SELECT id
    FROM floor_jobs
    WHERE job_type = $1::text AND due_at <= now() AND claimed_at IS NULL
    ORDER BY due_at, id
    LIMIT $2::bigint
    FOR UPDATE SKIP LOCKED
))
RETURNING id, config::text
