-- Takes back jobs whose lease ran out: back to pending one attempt later, or
-- ended if they have no attempt left or crashed too often.
--
-- Invariant: only leases that have run out by the clock of the database are
-- touched, only of the types that are named, and all that is read is acted on,
-- so a full page never hides the next. SKIP LOCKED passes over runs that are
-- being renewed or ended right now, and never waits. READ COMMITTED: what was
-- renewed, ended or claimed again since the snapshot is checked again once it is
-- locked, hence the conditions stand twice; then nobody else can change it.
-- Index: job_live_running, read whole; it holds no more than what runs. Apart
-- from the ordered part, or the planner may walk the primary key, which holds
-- the backlog too. Then the primary key, for what lapsed; job_live_running does
-- not fit there, since only what runs has a lease and the state need not be
-- asked again. The ids go through arrays, as in claim.sql and heartbeat.sql.
WITH clock AS (
    SELECT coalesce($6::timestamptz, statement_timestamp()) AS now
), policy AS MATERIALIZED (
    SELECT policy.job_type, policy.attempts_max, policy.crashes_max, policy.healthy_after
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::interval[])
        AS policy (job_type, attempts_max, crashes_max, healthy_after)
), candidate AS MATERIALIZED (
    SELECT live.id
    FROM /*schema*/job_live AS live
    JOIN policy USING (job_type)
    WHERE live.state = 1
      AND live.lease_expires_at <= coalesce($6::timestamptz, statement_timestamp())
), lapsed AS MATERIALIZED (
    SELECT
        live.id, live.job_type, live.fence, live.attempt, live.worker, live.claim_seq,
        live.claimed_at, live.crashes, policy.attempts_max, policy.crashes_max,
        -- A clock that went back does not make a life negative.
        greatest(live.lease_expires_at, live.claimed_at)
            >= live.claimed_at + policy.healthy_after AS healthy
    FROM /*schema*/job_live AS live
    JOIN policy USING (job_type)
    WHERE live.id = ANY(ARRAY(SELECT id FROM candidate))
      AND live.lease_expires_at <= coalesce($6::timestamptz, statement_timestamp())
    ORDER BY live.id
    LIMIT $5::bigint
    FOR UPDATE OF live SKIP LOCKED
), next AS (
    SELECT
        *,
        -- The first has nothing to start again.
        CASE
            WHEN healthy AND attempt > 1 THEN 1
            ELSE least(attempt::bigint + 1, 2147483647)
        END AS next_attempt,
        CASE WHEN healthy THEN 1 ELSE least(crashes::bigint + 1, 2147483647) END AS next_crashes
    FROM lapsed
), decided AS MATERIALIZED (
    SELECT
        *,
        CASE
            WHEN next_crashes >= crashes_max THEN $7::text
            WHEN next_attempt > attempts_max THEN $8::text
        END AS error
    FROM next
), deleted AS (
    DELETE FROM /*schema*/job_live AS live
    USING decided
    WHERE live.id = ANY(ARRAY[decided.id]) AND decided.error IS NOT NULL
), forgotten AS (
    DELETE FROM /*schema*/job_checkpoints AS kept
    USING decided
    WHERE kept.job_id = ANY(ARRAY[decided.id]) AND decided.error IS NOT NULL
), updated AS (
    UPDATE /*schema*/job_live AS live
    SET state = 0,
        due_at = clock.now,
        attempt = decided.next_attempt::integer,
        crashes = decided.next_crashes::integer,
        worker = NULL,
        claim_seq = NULL,
        claimed_at = NULL,
        lease_expires_at = NULL
    FROM decided, clock
    WHERE live.id = ANY(ARRAY[decided.id]) AND decided.error IS NULL
), recorded AS (
    INSERT INTO /*schema*/job_runs (
        job_id, fence, attempt, worker, claim_seq, claimed_at, ended_at, run_end, error,
        next_due_at
    )
    SELECT
        decided.id, decided.fence, decided.attempt, decided.worker, decided.claim_seq,
        decided.claimed_at,
        clock.now,
        -- 6 lost, 7 abandoned.
        CASE WHEN decided.error IS NULL THEN 6 ELSE 7 END,
        decided.error,
        CASE WHEN decided.error IS NULL THEN clock.now END
    FROM decided, clock
)
SELECT id, job_type, fence, worker, claim_seq, attempt, error IS NOT NULL AS abandoned
FROM decided
ORDER BY id
