-- Reads the runs of a job that ended before this one, a page of them, the oldest first: rows
-- with the run and where the page begins, or one without a run.
--
-- Invariant: writes nothing.
-- Index: the primary keys; of job_runs one range with two ends, and its last entry.
WITH page AS MATERIALIZED (
    SELECT before, max(before - ?3, 1) AS first
    FROM (
        SELECT max(
            min(
                ?2,
                1 + coalesce(
                    (SELECT fence - state FROM job_live WHERE id = ?1),
                    (SELECT fence FROM job_runs WHERE job_id = ?1 ORDER BY fence DESC LIMIT 1),
                    0
                )
            ),
            1
        ) AS before
    )
)
SELECT
    page.first, runs.fence, runs.attempt, runs.worker, runs.claim_seq, runs.claimed_at,
    runs.ended_at, runs.run_end, runs.error, runs.next_due_at
FROM page
LEFT JOIN job_runs AS runs
    ON runs.job_id = ?1 AND runs.fence >= page.first AND runs.fence < page.before
ORDER BY runs.fence
