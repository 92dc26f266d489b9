//! The migrations of the job store among those of the application.

use std::borrow::Cow;
use std::sync::LazyLock;

use sqlx::migrate::Migrator;

/// The migrations of the job store on Postgres, for databases without migrations of yours:
/// each test of `#[sqlx::test]` can have the tables.
///
/// Not for the database of an application: it writes into `_sqlx_migrations`, where the
/// application's own migrator would miss what is ours. There it is
/// [`exec_migrations`](crate::JobSvcConfigBuilder::exec_migrations), which keeps a ledger of
/// its own, or [`IncludeMigrations`].
///
/// ```
/// # /*
/// #[sqlx::test(migrator = "job::MIGRATOR")]
/// async fn an_order_is_shipped(pool: sqlx::PgPool) { .. }
/// # */
/// # assert!(job::MIGRATOR.iter().count() > 0);
/// ```
pub static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| Migrator {
    migrations: Cow::Borrowed(&job_postgres::migrator().migrations),
    // Nor does it mind migrations of others.
    ignore_missing: true,
    ..Migrator::DEFAULT
});

/// Adds the migrations of the job store on Postgres to a migrator.
pub trait IncludeMigrations {
    /// Adds them, in the order of their versions. Those that are there already
    /// are not added again. Where the tables exist, made by
    /// [`Jobs::init`](crate::Jobs::init), they change nothing.
    fn include_job_migrations(&mut self) -> &mut Self;
}

impl IncludeMigrations for Migrator {
    fn include_job_migrations(&mut self) -> &mut Self {
        let ours = job_postgres::migrator().iter();
        let missing: Vec<_> = ours
            .filter(|ours| self.iter().all(|theirs| theirs.version != ours.version))
            .cloned()
            .collect();
        let migrations = self.migrations.to_mut();
        migrations.extend(missing);
        migrations.sort_by_key(|migration| migration.version);
        self
    }
}
