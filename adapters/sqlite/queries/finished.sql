-- How runs ended that finish.sql did not find running, to tell a repeat of the
-- same end from one that is stale.
--
-- Invariant: writes nothing.
-- Index: the primary key of job_runs.
SELECT runs.job_id AS id, runs.fence, runs.worker, runs.claim_seq, runs.run_end
FROM json_each(?1) AS input
CROSS JOIN job_runs AS runs
WHERE runs.job_id = unhex(input.value ->> 0) AND runs.fence = input.value ->> 1
