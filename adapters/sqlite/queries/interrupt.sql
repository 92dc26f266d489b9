-- Makes the jobs pending again whose runs interrupt_runs.sql recorded, due now.
--
-- Invariant: what finish_pending.sql makes of an interruption. It is neither a
-- failure nor a crash: the attempt does not count, and the crashes in a row stay
-- what they were.
-- Index: job_live_running, read whole; it holds no more than what runs.
UPDATE job_live INDEXED BY job_live_running
SET state = 0,
    due_at = ?2,
    interruptions = min(interruptions + 1, 2147483647),
    undecodable_since = NULL,
    worker = NULL,
    claim_seq = NULL,
    claimed_at = NULL,
    lease_expires_at = NULL
WHERE state = 1 AND worker NOT IN (SELECT unhex(value) FROM json_each(?1))
