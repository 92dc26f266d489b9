-- Creates a job.
INSERT INTO floor_jobs (id, job_type, due_at, config) VALUES (?1, ?2, ?3, ?4)
