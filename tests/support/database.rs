//! A Postgres database of one test.

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{Connection, PgConnection};

static DATABASES: AtomicU32 = AtomicU32::new(0);

/// Created for a test, dropped with it.
pub struct TestDatabase {
    server: String,
    name: String,
    pooler: Option<String>,
}

impl TestDatabase {
    pub async fn create() -> Self {
        let server = std::env::var("DATABASE_URL")
            .expect("DATABASE_URL names no server; run the tests with tests/run");
        let n = DATABASES.fetch_add(1, Ordering::Relaxed);
        let name = format!("job_test_{}_{n}", std::process::id());
        execute(&server, &format!("CREATE DATABASE {name}")).await;
        Self {
            server,
            name,
            pooler: None,
        }
    }

    /// From now on its address is that of a pooler in transaction mode before it.
    pub fn behind_a_pooler(mut self) -> Self {
        let pooler = std::env::var("JOB_TEST_POOLER_URL")
            .expect("JOB_TEST_POOLER_URL names no PgBouncer; run the tests with tests/run");
        self.pooler = Some(pooler);
        self
    }

    pub fn is_behind_a_pooler(&self) -> bool {
        self.pooler.is_some()
    }

    pub fn url(&self) -> String {
        on_server(self.pooler.as_ref().unwrap_or(&self.server), &self.name)
    }

    pub fn options(&self) -> sqlx::postgres::PgConnectOptions {
        self.url().parse().expect("DATABASE_URL is a URL")
    }

    pub async fn pool(&self) -> sqlx::PgPool {
        let pool = sqlx::PgPool::connect_with(self.options()).await;
        pool.expect("the database was created")
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let server = self.server.clone();
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // A thread of its own, since this may run within a runtime.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be made");
            runtime.block_on(execute(&server, &drop));
        });
        if dropped.join().is_err() {
            eprintln!("the test database {} is left behind", self.name);
        }
    }
}

/// The URL of another database on the same server.
fn on_server(server: &str, database: &str) -> String {
    let (server, parameters) = match server.split_once('?') {
        Some((server, parameters)) => (server, format!("?{parameters}")),
        None => (server, String::new()),
    };
    let (_, host) = server.split_once("://").expect("DATABASE_URL is a URL");
    let base = match host.find('/') {
        Some(at) => &server[..server.len() - host.len() + at],
        None => server,
    };
    format!("{base}/{database}{parameters}")
}

async fn execute(server: &str, statement: &str) {
    let connection = PgConnection::connect(server).await;
    let mut connection = connection.expect("DATABASE_URL names a server that answers");
    let done = sqlx::query(statement).execute(&mut connection).await;
    done.unwrap_or_else(|error| panic!("{statement}: {error}"));
}
