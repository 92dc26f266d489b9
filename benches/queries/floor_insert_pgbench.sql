-- Creates a job, for pgbench. Its id is random, for want of a better one in SQL before
-- Postgres 18; the table is too small for that to matter.
INSERT INTO floor_jobs (id, job_type, config) VALUES (gen_random_uuid(), 'bench', '{"n":1}');
