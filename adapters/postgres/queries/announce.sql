-- Tells the workers that jobs of these types became due, and after which tag who says
-- so. In a transaction it is delivered when that commits, and equal ones are delivered
-- once.
--
-- Invariant: never part of the worker's own writes: a commit that notifies takes
-- a lock that all such commits share.
-- Index: none.
SELECT pg_notify($1::text, $3::text || job_type) FROM unnest($2::text[]) AS announced (job_type)
