-- Records that runs were interrupted, because the process that they ran in is
-- gone: all but those of these workers, which are of this process.
--
-- Invariant: no other process uses the file, so nobody is at work on them.
-- interrupt.sql follows in the same transaction and finds the same rows.
-- Index: job_live_running, read whole; it holds no more than what runs.
INSERT INTO job_runs (
    job_id, fence, attempt, worker, claim_seq, claimed_at, ended_at, run_end, error, next_due_at
)
-- 8 interrupted.
SELECT id, fence, attempt, worker, claim_seq, claimed_at, ?2, 8, NULL, ?2
FROM job_live INDEXED BY job_live_running
WHERE state = 1 AND worker NOT IN (SELECT unhex(value) FROM json_each(?1))
