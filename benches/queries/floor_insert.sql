-- Creates a job.
INSERT INTO floor_jobs (id, job_type, config) VALUES ($1::uuid, $2::text, $3::text::json)
