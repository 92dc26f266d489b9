-- Renews leases. Returns the runs whose lease was renewed.
--
-- Invariant: only the run that holds the current fence, and claimed it, is renewed: a
-- fence is given twice where the database fails over and forgets a claim. SKIP LOCKED
-- passes over rows that somebody writes right now, as a transaction does that ends its run
-- and stays open: that holds up its own row only, not the heartbeats of its whole worker.
-- Recovery passes over locked rows too, so such a lease is not lost meanwhile; running.sql
-- says whether the run goes on. What a checkpoint locks can be renewed.
-- READ COMMITTED: a row that changed since the snapshot is checked again after
-- it is locked; it stays locked until the update. No indexed column changes, so
-- that the update needs no new index entries.
-- Index: the primary key of job_live. Not pending is written so that
-- job_live_running does not fit: the planner would read all of that for each
-- run, if it believes that few jobs run. Ids and fences are compared as ones of a list
-- of one, so that they can only be looked up, for each run: by equations, the planner
-- would read all of the primary key instead, and compare each job that runs with each
-- run that is named, if it believes that none runs. The order is that of the input for
-- the same reason. Pinned by
-- `no_statement_costs_more_where_jobs_were_counted_before_they_ran`.
WITH clock AS (
    SELECT coalesce($4::timestamptz, statement_timestamp()) AS now
), held AS MATERIALIZED (
    SELECT live.id
    FROM unnest($1::uuid[], $2::bigint[], $6::uuid[], $7::bigint[])
        AS input (id, fence, worker, claim_seq)
    JOIN /*schema*/job_live AS live
        ON live.id = ANY(ARRAY[input.id]) AND live.fence = ANY(ARRAY[input.fence])
        AND live.worker = ANY(ARRAY[input.worker])
        AND live.claim_seq = ANY(ARRAY[input.claim_seq])
    WHERE live.state <> 0
    ORDER BY input.id
    FOR NO KEY UPDATE OF live SKIP LOCKED
)
UPDATE /*schema*/job_live AS live
SET lease_expires_at = least(clock.now + $3::interval, $5::timestamptz)
FROM held, clock
WHERE live.id = ANY(ARRAY[held.id])
RETURNING live.id, live.fence, live.worker, live.claim_seq
