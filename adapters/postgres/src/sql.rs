//! The statements, made for one schema.

use thiserror::Error;

/// What stands in the files for the name of the schema and its dot.
const SCHEMA: &str = "/*schema*/";

/// Bytes in an identifier of Postgres.
const IDENTIFIER_LEN_MAX: usize = 63;

macro_rules! statements {
    ($($name:ident),* $(,)?) => {
        /// The statements of a store.
        #[derive(Debug)]
        pub(crate) struct Sql {
            $(pub(crate) $name: String,)*
        }

        impl Sql {
            /// The statements on the tables of a schema; without one, those that
            /// the `search_path` finds.
            pub(crate) fn new(schema: Option<&str>) -> Self {
                let prefix = schema.map(|name| format!("{}.", quote(name)));
                let prefix = prefix.unwrap_or_default();
                Self {
                    $($name: include_str!(concat!("../queries/", stringify!($name), ".sql"))
                        .replace(SCHEMA, &prefix),)*
                }
            }
        }

        /// Every statement as it stands in its file, by the name of the file.
        /// They are valid as they are, on the tables that the `search_path`
        /// finds.
        pub const QUERIES: &[(&str, &str)] = &[
            $((
                stringify!($name),
                include_str!(concat!("../queries/", stringify!($name), ".sql")),
            ),)*
        ];
    };
}

statements![
    announce,
    checkpoint,
    checkpoints,
    claim,
    clock_hold,
    clock_other,
    clock_turn,
    configs_of_type,
    find,
    finish,
    finish_final,
    finished,
    heartbeat,
    history,
    hold,
    look,
    migration_holder,
    migration_lock,
    reclaim,
    renew_claim,
    running,
    schema_version,
    spawn,
    spawn_new,
    spawned,
    unique_jobs,
];

/// The name of a schema cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the schema name {name:?} is not allowed: it needs 1 to {IDENTIFIER_LEN_MAX} bytes and no NUL"
)]
pub struct SchemaNameError {
    name: String,
}

pub(crate) fn check_schema_name(name: &str) -> Result<(), SchemaNameError> {
    if name.is_empty() || name.len() > IDENTIFIER_LEN_MAX || name.contains('\0') {
        let name = name.chars().take(IDENTIFIER_LEN_MAX).collect();
        return Err(SchemaNameError { name });
    }
    Ok(())
}

/// An identifier as SQL wants it, whatever is in it.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text or NULL as SQL wants it, whatever is in it and however the session reads
/// backslashes.
pub(crate) fn literal(text: Option<&str>) -> String {
    let Some(text) = text else {
        return "NULL::text".to_owned();
    };
    let text = text.replace('\\', "\\\\").replace('\'', "''");
    format!("E'{text}'::text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_quoted_whatever_its_name() {
        let sql = Sql::new(Some("odd\"name"));
        assert!(sql.claim.contains(r#"FROM "odd""name".job_live"#));
        assert!(!sql.claim.contains(SCHEMA));
        assert!(Sql::new(None).claim.contains("FROM job_live"));
    }

    #[test]
    fn a_literal_is_what_it_was() {
        assert_eq!(literal(None), "NULL::text");
        assert_eq!(literal(Some(r"it's \ x")), r"E'it''s \\ x'::text");
    }

    #[test]
    fn a_name_that_cannot_be_a_schema_is_refused() {
        for name in ["", "a\0b", &"x".repeat(64)] {
            assert!(check_schema_name(name).is_err(), "{name:?}");
        }
        check_schema_name("jobs").unwrap();
    }
}
