//! A role of the server, for what is done with few rights.

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Executor};

/// What a service needs to know its tables and to work on them.
pub const GRANTS: [&str; 6] = [
    "USAGE ON SCHEMA public",
    "SELECT ON job_schema",
    "SELECT, INSERT ON job_specs",
    "SELECT, INSERT, UPDATE, DELETE ON job_live",
    "SELECT, INSERT, UPDATE, DELETE ON job_checkpoints",
    "SELECT, INSERT ON job_runs",
];

/// A role that may log in and inherits nothing, dropped with the value.
pub struct Role {
    pub name: String,
    admin: PgConnectOptions,
}

impl Role {
    /// A role for this database, which its administrator opens. Nobody but the owner has
    /// any right in the schema `public` from then on.
    pub async fn new(admin: PgConnectOptions, name: &str) -> Self {
        let name = format!("{name}_of_{}", admin.get_database().unwrap());
        let role = Self { name, admin };
        role.as_admin("REVOKE ALL ON SCHEMA public FROM PUBLIC")
            .await;
        role.as_admin(&format!("CREATE ROLE {} LOGIN NOINHERIT", role.name))
            .await;
        role
    }

    pub async fn as_admin(&self, statement: &str) {
        let mut admin = self.admin.connect().await.unwrap();
        let done = admin.execute(statement).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    pub async fn grant(&self, grants: &[&str]) {
        for grant in grants {
            self.as_admin(&format!("GRANT {grant} TO {}", self.name))
                .await;
        }
    }

    pub fn options(&self) -> PgConnectOptions {
        self.admin.clone().username(&self.name)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let (name, admin) = (self.name.clone(), self.admin.clone());
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async {
                let mut admin = admin.connect().await?;
                let drop = format!("DROP OWNED BY {name}; DROP ROLE {name}");
                admin.execute(&*drop).await
            })
        });
        if let Ok(Err(error)) = dropped.join() {
            eprintln!("the role {} is left behind: {error}", self.name);
        }
    }
}
