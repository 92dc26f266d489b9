-- Removes jobs that are in the history. Their ids are hexadecimal, in JSON.
-- Index: the primary key.
DELETE FROM floor_jobs WHERE id IN (SELECT unhex(value) FROM json_each(?1))
