-- Whether jobs run that none of these workers has claimed.
--
-- Invariant: writes nothing.
-- Index: job_live_running, until the first of them.
SELECT EXISTS (
    SELECT 1 FROM job_live INDEXED BY job_live_running
    WHERE state = 1 AND worker NOT IN (SELECT unhex(value) FROM json_each(?1))
)
