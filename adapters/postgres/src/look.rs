//! What a connection finds at the start, and whether a service can work with that.

use sqlx::postgres::PgRow;
use sqlx::{Executor, PgConnection};

use crate::convert::get;
use crate::schema::{SERVER_VERSION_MIN, SchemaError};
use crate::sql::{literal, quote};

/// What one connection finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) server_version: i32,
    pub(crate) standby: bool,
    pub(crate) read_only: bool,
    pub(crate) role: String,
    pub(crate) database: String,
    pub(crate) search_path: String,
    /// Where the tables are, or would be made; `None` if nothing on the search path
    /// exists.
    pub(crate) schema: Option<String>,
    pub(crate) schema_exists: bool,
    pub(crate) may_use: bool,
    pub(crate) may_create: bool,
    pub(crate) tables: Vec<Table>,
}

/// One of our tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) found: bool,
    /// Rights on it that a service needs and this role has not.
    pub(crate) lacks: Vec<String>,
    /// Whether row security shows none of its rows to this role.
    pub(crate) hidden: bool,
}

impl Look {
    /// Looks, by one statement without a transaction. Where no schema is `configured`,
    /// and the search path leads to no tables, it looks in `fallback`.
    pub(crate) async fn take(
        connection: &mut PgConnection,
        sql: &str,
        configured: Option<&str>,
        fallback: Option<&str>,
    ) -> Result<Self, sqlx::Error> {
        let sql = sql
            .replace("$1::text", &literal(configured))
            .replace("$2::text", &literal(fallback));
        let rows = connection.fetch_all(&*sql).await?;
        let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        Ok(Self {
            server_version: get(first, "server_version")?,
            standby: get(first, "standby")?,
            read_only: get(first, "read_only")?,
            role: get(first, "role")?,
            database: get(first, "database")?,
            search_path: get(first, "search_path")?,
            schema: get(first, "schema")?,
            schema_exists: get(first, "schema_exists")?,
            may_use: get(first, "may_use")?,
            may_create: get(first, "may_create")?,
            tables: rows.iter().map(table).collect::<Result<_, _>>()?,
        })
    }

    /// Whether the server is one that a service can work on at all.
    pub(crate) fn check_server(&self) -> Result<(), SchemaError> {
        if self.server_version < SERVER_VERSION_MIN {
            return Err(SchemaError::ServerTooOld {
                found: self.server_version / 10_000,
            });
        }
        if self.standby || self.read_only {
            return Err(SchemaError::ReadOnly {
                standby: self.standby,
            });
        }
        Ok(())
    }

    /// Whether the connections that the store opens, of which this is one, see what
    /// `pool`, a connection of the application's pool, sees. They have its options, and
    /// nothing that its hooks do.
    pub(crate) fn check_inherits(&self, pool: &Look, migrate: bool) -> Result<(), SchemaError> {
        let sees_less = self.any_found() && self.lacks().is_some() && pool.lacks().is_none();
        let makes_for_another = migrate && !self.any_found() && self.role != pool.role;
        if self.schema == pool.schema && !sees_less && !makes_for_another {
            return Ok(());
        }
        let role = &pool.role;
        let mut options = Vec::new();
        if self.role != *role {
            options.push(format!("options([(\"role\", {role:?})])"));
        }
        if let Some(schema) = pool.schema.as_ref().filter(|_| self.schema != pool.schema) {
            options.push(format!("options([(\"search_path\", {schema:?})])"));
        }
        Err(SchemaError::NotInherited {
            own: self.described(),
            pool: pool.described(),
            options: options.join(" and "),
            schema: pool.schema.clone().unwrap_or_default(),
        })
    }

    /// Whether this role may do what a service does with the tables that there are.
    pub(crate) fn check_rights(&self) -> Result<(), SchemaError> {
        if let Some(table) = self.tables.iter().find(|table| table.found && table.hidden) {
            return Err(SchemaError::Hidden {
                table: format!("{}.{}", self.quoted_schema(), table.name),
                role: self.role.clone(),
            });
        }
        match self.lacks() {
            Some(grants) if self.any_found() => Err(SchemaError::MayNotUse {
                role: self.role.clone(),
                schema: self.schema.clone().unwrap_or_default(),
                grants,
            }),
            _ => Ok(()),
        }
    }

    /// Whether this role may make the tables.
    pub(crate) fn check_may_create(&self) -> Result<(), SchemaError> {
        let Some(schema) = &self.schema else {
            return Err(SchemaError::NoSchema {
                role: self.role.clone(),
                search_path: self.search_path.clone(),
            });
        };
        if self.may_create {
            return Ok(());
        }
        let (role, database) = (quote(&self.role), quote(&self.database));
        Err(SchemaError::MayNotCreate {
            role: self.role.clone(),
            schema: schema.clone(),
            grant: if self.schema_exists {
                format!("GRANT CREATE ON SCHEMA {} TO {role}", quote(schema))
            } else {
                format!("GRANT CREATE ON DATABASE {database} TO {role}")
            },
        })
    }

    pub(crate) fn missing(&self) -> SchemaError {
        SchemaError::Missing {
            role: self.role.clone(),
            place: match &self.schema {
                Some(schema) => format!("the schema {schema:?}"),
                None => format!("the search_path {:?}", self.search_path),
            },
        }
    }

    pub(crate) fn any_found(&self) -> bool {
        self.tables.iter().any(|table| table.found)
    }

    pub(crate) fn found(&self, name: &str) -> bool {
        let mut tables = self.tables.iter();
        tables.any(|table| table.found && table.name == name)
    }

    /// Names of the tables that are there, or are not.
    pub(crate) fn names(&self, found: bool) -> Vec<&str> {
        let tables = self.tables.iter().filter(|table| table.found == found);
        tables.map(|table| &*table.name).collect()
    }

    /// The grants that this role needs to work with the tables that there are.
    fn lacks(&self) -> Option<String> {
        let role = quote(&self.role);
        let mut grants = Vec::new();
        if !self.may_use && self.schema_exists {
            let schema = self.quoted_schema();
            grants.push(format!("GRANT USAGE ON SCHEMA {schema} TO {role}"));
        }
        for table in &self.tables {
            if table.found && !table.lacks.is_empty() {
                let (rights, schema) = (table.lacks.join(", "), self.quoted_schema());
                let name = &table.name;
                grants.push(format!("GRANT {rights} ON {schema}.{name} TO {role}"));
            }
        }
        (!grants.is_empty()).then(|| grants.join("; "))
    }

    fn quoted_schema(&self) -> String {
        quote(self.schema.as_deref().unwrap_or_default())
    }

    fn described(&self) -> String {
        let role = &self.role;
        match (&self.schema, self.any_found()) {
            (None, _) => format!("no schema, as the role {role:?}"),
            (Some(schema), false) => format!("no tables in the schema {schema:?}, as {role:?}"),
            (Some(schema), true) if self.lacks().is_some() => {
                format!("the schema {schema:?}, but as {role:?}, who may not use its tables")
            }
            (Some(schema), true) => format!("the tables in the schema {schema:?}, as {role:?}"),
        }
    }
}

fn table(row: &PgRow) -> Result<Table, sqlx::Error> {
    Ok(Table {
        name: get(row, "table_name")?,
        found: get(row, "found")?,
        lacks: get(row, "lacks")?,
        hidden: get(row, "hidden")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(role: &str, schema: &str, found: bool, lacks: &[&str]) -> Look {
        Look {
            server_version: 150_018,
            role: role.to_owned(),
            database: "shop".to_owned(),
            schema: Some(schema.to_owned()),
            schema_exists: true,
            may_use: true,
            tables: vec![Table {
                name: "job_live".to_owned(),
                found,
                lacks: lacks.iter().map(|&right| right.to_owned()).collect(),
                hidden: false,
            }],
            ..Look::default()
        }
    }

    fn told<T: std::fmt::Debug>(result: Result<T, SchemaError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_server_that_is_too_old_or_read_only_is_told() {
        let mut found = look("me", "public", true, &[]);
        found.check_server().unwrap();
        found.read_only = true;
        let text = told(found.check_server());
        assert!(text.contains("default_transaction_read_only"), "{text}");
        found.standby = true;
        let text = told(found.check_server());
        assert!(text.contains("primary"), "{text}");
        found.server_version = 130_023;
        let text = told(found.check_server());
        assert!(text.contains("13") && text.contains("14"), "{text}");
    }

    #[test]
    fn what_hooks_of_the_pool_do_is_told_with_what_to_do_instead() {
        let pool = look("app", "jobs", true, &[]);
        let own = look("login", "public", false, &[]);
        let text = told(own.check_inherits(&pool, false));
        for part in [
            r#"options([("role", "app")])"#,
            r#"options([("search_path", "jobs")])"#,
            r#".schema("jobs")"#,
            "after_connect",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let own = look("login", "jobs", true, &["SELECT"]);
        let text = told(own.check_inherits(&pool, false));
        assert!(!text.contains("search_path\","), "{text}");
        // Another role may be as good, but what it makes is its own.
        let own = look("login", "jobs", true, &[]);
        own.check_inherits(&pool, true).unwrap();
        let [own, pool] = ["login", "app"].map(|role| look(role, "jobs", false, &[]));
        own.check_inherits(&pool, false).unwrap();
        own.check_inherits(&pool, true).unwrap_err();
    }

    #[test]
    fn rights_that_are_missing_are_told_as_grants() {
        let mut found = look("me", "public", true, &["INSERT", "UPDATE"]);
        found.may_use = false;
        let text = told(found.check_rights());
        for part in [
            r#"GRANT USAGE ON SCHEMA "public" TO "me""#,
            r#"GRANT INSERT, UPDATE ON "public".job_live TO "me""#,
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let text = told(found.check_may_create());
        assert!(
            text.contains(r#"GRANT CREATE ON SCHEMA "public""#),
            "{text}"
        );
        assert!(text.contains("exec_migrations(false)"), "{text}");
        found.schema_exists = false;
        let text = told(found.check_may_create());
        assert!(
            text.contains(r#"GRANT CREATE ON DATABASE "shop""#),
            "{text}"
        );
    }
}
