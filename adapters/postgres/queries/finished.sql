-- How runs ended that finish.sql did not find running, to tell a repeat of the
-- same end from one that is stale.
--
-- Invariant: runs after finish.sql as a statement of its own, so that it sees
-- what came between.
-- Index: the primary key of job_runs; the join is written as in heartbeat.sql.
SELECT runs.job_id AS id, runs.fence, runs.worker, runs.claim_seq, runs.run_end
FROM unnest($1::uuid[], $2::bigint[]) AS input (id, fence)
JOIN /*schema*/job_runs AS runs
    ON runs.job_id = ANY(ARRAY[input.id]) AND runs.fence = input.fence
