-- Reads a job with its history: a row with the job, then one for each ended run,
-- the oldest first. The config, which may be large, comes once.
--
-- Invariant: writes nothing. One statement, so one snapshot: a run that ends
-- meanwhile is either still live or in the history, never both or neither.
-- Index: the primary keys. The history is read through a subquery, or the planner
-- may know that it is long and read all of job_runs instead. Nothing is joined to
-- anything but the id: to join two tables, the planner asks their indexes for the
-- greatest id, and steps over all dead entries on its way.
SELECT
    specs.job_type, specs.unique_type, specs.config::text AS config, specs.trace,
    specs.spawned_at,
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
        fence, attempt, worker, claim_seq, claimed_at, ended_at, run_end, error, next_due_at
    FROM /*schema*/job_runs
    WHERE job_id = (SELECT $1::uuid)
) AS runs
LEFT JOIN /*schema*/job_specs AS specs ON specs.id = $1::uuid AND runs.fence IS NULL
LEFT JOIN /*schema*/job_live AS live ON live.id = $1::uuid AND runs.fence IS NULL
LEFT JOIN /*schema*/job_checkpoints AS kept ON kept.job_id = $1::uuid AND runs.fence IS NULL
ORDER BY runs.fence NULLS FIRST
