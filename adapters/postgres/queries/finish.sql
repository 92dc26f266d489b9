-- Ends runs: final ones leave job_live, the others go back to pending, and each
-- becomes a row of the history. Returns the runs that were ended.
--
-- Invariant: only the run that holds the current fence, and claimed it, is ended, and each end
-- is recorded once. The rows are locked in the order of their ids, as in every
-- statement that waits for several. READ COMMITTED: a row that the statement had
-- to wait for is checked again, so a run that was ended or lost meanwhile is left
-- out; the delete and the update then work on the newest version of what is
-- locked. What was kept since the snapshot stays behind when its job ends, and is of no
-- more use.
-- Index: the primary keys of job_live, job_checkpoints and job_runs; not pending and the
-- joins are written as in heartbeat.sql.
WITH clock AS (
    SELECT coalesce($8::timestamptz, statement_timestamp()) AS now
), input AS (
    SELECT
        input.id, input.fence, input.worker, input.claim_seq, input.run_end, input.error,
        input.attempt,
        -- 1 completed, 4 errored.
        input.run_end IN (1, 4) AS final,
        coalesce(
            input.due_at,
            least(clock.now + input.delay, $9::timestamptz)
        ) AS due_at
    FROM unnest(
        $1::uuid[], $2::bigint[], $3::smallint[], $4::text[], $5::integer[],
        $6::timestamptz[], $7::interval[], $10::uuid[], $11::bigint[]
    ) AS input (id, fence, run_end, error, attempt, due_at, delay, worker, claim_seq), clock
), locked AS MATERIALIZED (
    SELECT
        live.id, live.fence, live.attempt, live.worker, live.claim_seq, live.claimed_at,
        input.run_end, input.error, input.final, input.due_at,
        coalesce(input.attempt, live.attempt) AS next_attempt
    FROM /*schema*/job_live AS live
    JOIN input ON live.id = ANY(ARRAY[input.id]) AND live.fence = ANY(ARRAY[input.fence])
        AND live.worker = ANY(ARRAY[input.worker])
        AND live.claim_seq = ANY(ARRAY[input.claim_seq])
    WHERE live.state <> 0
    ORDER BY input.id
    FOR UPDATE OF live
), deleted AS (
    DELETE FROM /*schema*/job_live AS live
    USING locked
    WHERE live.id = ANY(ARRAY[locked.id]) AND locked.final
), forgotten AS (
    DELETE FROM /*schema*/job_checkpoints AS kept
    USING locked
    WHERE kept.job_id = ANY(ARRAY[locked.id]) AND locked.final
), updated AS (
    UPDATE /*schema*/job_live AS live
    SET state = 0,
        due_at = locked.due_at,
        attempt = locked.next_attempt,
        -- 5 released, 8 interrupted and 9 undecodable say nothing of how its runs end.
        crashes = CASE WHEN locked.run_end IN (5, 8, 9) THEN live.crashes ELSE 0 END,
        interruptions = CASE
            WHEN locked.run_end = 8 THEN least(live.interruptions::bigint + 1, 2147483647)::integer
            WHEN locked.run_end IN (5, 9) THEN live.interruptions
            ELSE 0
        END,
        undecodable_since = CASE
            WHEN locked.run_end = 9 THEN coalesce(live.undecodable_since, clock.now)
            WHEN locked.run_end = 5 THEN live.undecodable_since
        END,
        worker = NULL,
        claim_seq = NULL,
        claimed_at = NULL,
        lease_expires_at = NULL
    FROM locked, clock
    WHERE live.id = ANY(ARRAY[locked.id]) AND NOT locked.final
), recorded AS (
    INSERT INTO /*schema*/job_runs (
        job_id, fence, attempt, worker, claim_seq, claimed_at, ended_at, run_end, error,
        next_due_at
    )
    SELECT
        locked.id, locked.fence, locked.attempt, locked.worker, locked.claim_seq,
        locked.claimed_at, clock.now,
        locked.run_end, locked.error, CASE WHEN NOT locked.final THEN locked.due_at END
    FROM locked, clock
)
SELECT id, fence, worker, claim_seq FROM locked
