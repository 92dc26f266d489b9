-- What a session finds at its start: the server, who it is, in which schema the tables
-- are for it, and what it may do with each of them. One row for each table.
--
-- The schema is the first of: the one that is configured, the one in which the
-- search_path finds our tables, one of the search_path that has them and may not be
-- used, $2, and the one in which the tables would be made.
--
-- Invariant: writes and locks nothing, needs no right, and fails for no state of the
-- tables. Sent as a text with its parameters in it, since behind a pooler a statement
-- and its parameters may end up on two connections.
-- Index: those of the catalog by name.
WITH seen AS (
    SELECT
        spaces.nspname,
        tables.relname = 'job_schema' AS says_version,
        has_schema_privilege(spaces.oid, 'USAGE') AS usable,
        pg_table_is_visible(tables.oid) AS visible
    FROM pg_class AS tables
    JOIN pg_namespace AS spaces ON spaces.oid = tables.relnamespace
    WHERE tables.relname IN ('job_schema', 'job_specs', 'job_live', 'job_checkpoints', 'job_runs')
), place AS (
    SELECT coalesce(
        $1::text,
        (
            SELECT seen.nspname::text FROM seen WHERE seen.visible
            ORDER BY seen.says_version DESC, seen.nspname LIMIT 1
        ),
        (
            SELECT seen.nspname::text FROM seen
            WHERE NOT seen.usable AND seen.nspname IN (
                SELECT replace(trim(both '" ' from part), '$user', current_user)
                FROM unnest(string_to_array(current_setting('search_path'), ',')) AS part
            )
            ORDER BY seen.says_version DESC, seen.nspname LIMIT 1
        ),
        $2::text,
        current_schema()::text
    ) AS name
)
SELECT
    current_setting('server_version_num')::int4 AS server_version,
    pg_is_in_recovery() AS standby,
    current_setting('transaction_read_only')::bool AS read_only,
    current_user::text AS role,
    current_database()::text AS database,
    current_setting('search_path') AS search_path,
    place.name AS schema,
    space.oid IS NOT NULL AS schema_exists,
    coalesce(has_schema_privilege(space.oid, 'USAGE'), false) AS may_use,
    coalesce(
        has_schema_privilege(space.oid, 'CREATE'),
        has_database_privilege(current_database(), 'CREATE')
    ) AS may_create,
    wanted.name AS table_name,
    found.oid IS NOT NULL AS found,
    ARRAY(
        SELECT needed FROM unnest(wanted.rights) AS needed
        WHERE NOT has_table_privilege(found.oid, needed)
    ) AS lacks,
    coalesce(
        row_security_active(found.oid)
        AND NOT EXISTS (SELECT FROM pg_policy AS policy WHERE policy.polrelid = found.oid),
        false
    ) AS hidden
FROM (VALUES
    ('job_schema', ARRAY['SELECT']),
    ('job_specs', ARRAY['SELECT', 'INSERT']),
    ('job_live', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
    ('job_checkpoints', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
    ('job_runs', ARRAY['SELECT', 'INSERT'])
) AS wanted (name, rights)
CROSS JOIN place
LEFT JOIN pg_namespace AS space ON space.nspname = place.name
LEFT JOIN pg_class AS found ON found.relnamespace = space.oid AND found.relname = wanted.name
