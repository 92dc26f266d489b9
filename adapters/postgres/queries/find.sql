-- Reads a job with the last of its history: a row with the job, then one for each of its
-- last ended runs, the oldest first. The config, which may be large, comes once.
--
-- Invariant: writes nothing. One statement, so one snapshot: a run that ends
-- meanwhile is either still live or in the history, never both or neither.
-- Index: the primary keys. The history is read through a subquery, or the planner
-- may know that it is long and read all of job_runs instead. Nothing is joined to
-- anything but the id: to join two tables, the planner asks their indexes for the
-- greatest id, and steps over all dead entries on its way.
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
    SELECT fence + 1 AS before, greatest(fence + 1 - $2::bigint, 1) AS first FROM last
)
SELECT
    specs.job_type, specs.unique_type, specs.config::text AS config, specs.trace,
    specs.spawned_at, (SELECT first FROM page) AS first,
    live.id IS NOT NULL AS is_live,
    live.due_at, live.fence, live.attempt, live.crashes, live.interruptions,
    live.undecodable_since,
    kept.execution_state::text AS execution_state,
    live.worker, live.claim_seq, live.claimed_at, live.lease_expires_at,
    runs.fence AS run_fence, runs.attempt AS run_attempt, runs.worker AS run_worker,
    runs.claim_seq AS run_claim_seq,
    runs.claimed_at AS run_claimed_at, runs.ended_at AS run_ended_at, runs.run_end,
    runs.error AS run_error, runs.next_due_at AS run_next_due_at
FROM (
    SELECT
        NULL::bigint AS fence, NULL::integer AS attempt, NULL::uuid AS worker,
        NULL::bigint AS claim_seq,
        NULL::timestamptz AS claimed_at, NULL::timestamptz AS ended_at,
        NULL::smallint AS run_end, NULL::text AS error, NULL::timestamptz AS next_due_at
    UNION ALL
    SELECT
        runs.fence, runs.attempt, runs.worker, runs.claim_seq, runs.claimed_at, runs.ended_at,
        runs.run_end, runs.error, runs.next_due_at
    FROM /*schema*/job_runs AS runs
    WHERE runs.job_id = (SELECT $1::uuid)
      AND runs.fence >= (SELECT first FROM page) AND runs.fence < (SELECT before FROM page)
) AS runs
LEFT JOIN /*schema*/job_specs AS specs ON specs.id = $1::uuid AND runs.fence IS NULL
LEFT JOIN /*schema*/job_live AS live ON live.id = $1::uuid AND runs.fence IS NULL
LEFT JOIN /*schema*/job_checkpoints AS kept ON kept.job_id = $1::uuid AND runs.fence IS NULL
ORDER BY runs.fence NULLS FIRST
