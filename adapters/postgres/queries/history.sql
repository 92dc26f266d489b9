-- Reads the runs of a job that ended before this one, a page of them, the oldest first: rows
-- with the run and where the page begins, or one without a run.
--
-- Invariant: writes nothing.
-- Index: the primary keys.
-- A page is a range of fences with two ends, so that no plan reads more of a long history:
-- where few runs have been counted, the planner would read and sort them all rather than
-- stop after some. It may do so to find the last fence of a job that is over.
WITH last AS MATERIALIZED (
    SELECT coalesce(
        (SELECT live.fence - live.state FROM /*schema*/job_live AS live WHERE live.id = $1::uuid),
        (
            SELECT runs.fence FROM /*schema*/job_runs AS runs
            WHERE runs.job_id = (SELECT $1::uuid)
            ORDER BY runs.fence DESC LIMIT 1
        ),
        0
    ) AS fence
), page AS MATERIALIZED (
    SELECT before, greatest(before - $2::bigint, 1) AS first
    FROM last, greatest(least($3::bigint, last.fence + 1), 1) AS before
)
SELECT
    page.first,
    runs.fence AS run_fence, runs.attempt AS run_attempt, runs.worker AS run_worker,
    runs.claim_seq AS run_claim_seq, runs.claimed_at AS run_claimed_at,
    runs.ended_at AS run_ended_at, runs.run_end, runs.error AS run_error,
    runs.next_due_at AS run_next_due_at
FROM page
LEFT JOIN (
    SELECT
        runs.fence, runs.attempt, runs.worker, runs.claim_seq, runs.claimed_at, runs.ended_at,
        runs.run_end, runs.error, runs.next_due_at
    FROM /*schema*/job_runs AS runs
    WHERE runs.job_id = (SELECT $1::uuid)
      AND runs.fence >= (SELECT first FROM page) AND runs.fence < (SELECT before FROM page)
) AS runs ON true
ORDER BY runs.fence
