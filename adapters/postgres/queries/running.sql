-- Which of these runs go on, of those that heartbeat.sql did not renew: their
-- rows were locked. All others are over.
--
-- Invariant: writes and locks nothing; runs after heartbeat.sql as a statement
-- of its own, so that it sees what came between.
-- Index: the primary key of job_live; not pending and the join are written as in
-- heartbeat.sql.
SELECT live.id, live.fence
FROM unnest($1::uuid[], $2::bigint[]) AS input (id, fence)
JOIN /*schema*/job_live AS live
    ON live.id = ANY(ARRAY[input.id]) AND live.fence = ANY(ARRAY[input.fence])
WHERE live.state <> 0
