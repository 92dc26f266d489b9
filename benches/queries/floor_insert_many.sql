-- Creates many jobs.
INSERT INTO floor_jobs (id, job_type, config)
SELECT id, $2::text, config::json
FROM unnest($1::uuid[], $3::text[]) AS input (id, config)
