-- Claims due jobs.
-- Index: floor_jobs_due, then the primary key.
UPDATE floor_jobs SET claimed_at = ?2
WHERE id IN (
    SELECT id
    FROM floor_jobs
    WHERE job_type = ?1 AND due_at <= ?2 AND claimed_at IS NULL
    ORDER BY due_at, id
    LIMIT ?3
)
RETURNING id, config
