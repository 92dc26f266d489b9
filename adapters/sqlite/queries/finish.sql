-- Records how runs ended, of those that hold the current fence, and claimed it. Returns them.
--
-- Invariant: each end is recorded once. finish_final.sql and finish_pending.sql
-- follow in the same transaction and find the same rows.
-- Index: the primary keys of job_live and job_runs.
INSERT INTO job_runs (
    job_id, fence, attempt, worker, claim_seq, claimed_at, ended_at, run_end, error, next_due_at
)
SELECT
    live.id, live.fence, live.attempt, live.worker, live.claim_seq, live.claimed_at, ?2,
    input.value ->> 2, input.value ->> 3, input.value ->> 5
FROM json_each(?1) AS input
CROSS JOIN job_live AS live
WHERE live.id = unhex(input.value ->> 0)
  AND live.fence = input.value ->> 1
  AND +live.worker = unhex(input.value ->> 7)
  AND +live.claim_seq = input.value ->> 8
  AND live.state = 1
RETURNING job_id AS id, fence, worker, claim_seq
