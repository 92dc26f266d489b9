//! The migrations of the job store among those of the application.

use sqlx::migrate::Migrator;

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
