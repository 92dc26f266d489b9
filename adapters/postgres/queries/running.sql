-- Which of these runs go on, of those that heartbeat.sql did not renew: their
-- rows were locked. All others are over.
--
-- Invariant: writes and locks nothing; runs after heartbeat.sql as a statement
-- of its own, so that it sees what came between.
-- Index: the primary key of job_live; not pending and the join are written as in
-- heartbeat.sql.
SELECT live.id, live.fence, live.worker, live.claim_seq
FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::bigint[])
    AS input (id, fence, worker, claim_seq)
JOIN /*schema*/job_live AS live
    ON live.id = ANY(ARRAY[input.id]) AND live.fence = ANY(ARRAY[input.fence])
    AND live.worker = ANY(ARRAY[input.worker])
    AND live.claim_seq = ANY(ARRAY[input.claim_seq])
WHERE live.state <> 0
