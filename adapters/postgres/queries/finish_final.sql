-- Ends runs of one worker of which none goes back to pending: finish.sql at half of its
-- cost. Their rows leave job_live, and each becomes a row of the history. Returns how many
-- were ended, and their places in the input, unless all were.
--
-- Invariant: only the run that holds the current fence, and claimed it, is ended, and each end
-- is recorded once. The rows are locked in the order in which they come, which is that
-- of their ids, as in every statement that waits for several. They are deleted without
-- being locked before, which would find and write each once more. READ COMMITTED: a
-- row that the statement had to wait for is checked again, so a run that was ended or
-- lost meanwhile is left out; its newest version is what is deleted and recorded.
-- Index: the primary keys of job_live, job_checkpoints and job_runs; not pending and the
-- joins are written as in heartbeat.sql.
WITH ended AS (
    DELETE FROM /*schema*/job_live AS live
    USING unnest(
        $1::uuid[], $2::bigint[], $3::smallint[], $4::text[], $7::bigint[]
    ) WITH ORDINALITY AS input (id, fence, run_end, error, claim_seq, place)
    WHERE live.id = ANY(ARRAY[input.id]) AND live.fence = ANY(ARRAY[input.fence])
      AND live.worker = $6::uuid
      AND live.claim_seq = ANY(ARRAY[input.claim_seq])
      AND live.state <> 0
    RETURNING
        live.id, live.fence, live.attempt, live.worker, live.claim_seq, live.claimed_at,
        input.run_end, input.error, input.place
), forgotten AS (
    DELETE FROM /*schema*/job_checkpoints AS kept
    USING ended
    WHERE kept.job_id = ANY(ARRAY[ended.id])
), recorded AS (
    INSERT INTO /*schema*/job_runs (
        job_id, fence, attempt, worker, claim_seq, claimed_at, ended_at, run_end, error
    )
    SELECT
        id, fence, attempt, worker, claim_seq, claimed_at,
        coalesce($5::timestamptz, statement_timestamp()), run_end, error
    FROM ended
)
SELECT
    count(*) AS ended,
    CASE WHEN count(*) < cardinality($1::uuid[]) THEN array_agg(place) END AS places
FROM ended
