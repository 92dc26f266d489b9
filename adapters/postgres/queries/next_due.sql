-- When the next job of each type is due, for types of which none is due now.
--
-- Invariant: none; a hint for when to claim again, so it need not be of the
-- same snapshot as the claim.
-- Index: job_live_pending, one probe for each type.
SELECT wanted.job_type, later.due_at
FROM unnest($1::text[]) WITH ORDINALITY AS wanted (job_type, position)
CROSS JOIN LATERAL (
    SELECT live.due_at
    FROM /*schema*/job_live AS live
    WHERE live.state = 0
      AND live.job_type = wanted.job_type
      AND live.due_at > $2::timestamptz
    ORDER BY live.due_at, live.id
    LIMIT 1
) AS later
ORDER BY wanted.position
