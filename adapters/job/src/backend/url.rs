//! Which backend a URL names.

#[cfg(feature = "sqlite")]
use std::str::FromStr;

use job_tokio::ClockHandle;
#[cfg(feature = "sqlite")]
use sqlx::sqlite::SqliteConnectOptions;

use super::any::{self, AnyOptions, AnyStore};
use super::{Backend, Memory, MemoryOptions};
#[cfg(feature = "postgres")]
use super::{Postgres, PostgresOptions};
#[cfg(feature = "sqlite")]
use super::{Sqlite, SqliteOptions};
use crate::error::JobError;

const URLS: &str = "postgres://user:password@host/database, sqlite:jobs.db, or memory:";

const OF_FILE: &str = "the URL begins with `file:`, and that of a SQLite file begins with \
                       `sqlite:`; write sqlite:jobs.db";

/// The backend that was named, with what is known of it.
#[derive(Clone, Debug, Default)]
pub(crate) enum Chosen {
    #[default]
    None,
    Memory(MemoryOptions),
    #[cfg(feature = "postgres")]
    Postgres(PostgresOptions),
    #[cfg(feature = "sqlite")]
    Sqlite(SqliteOptions),
}

impl AnyOptions {
    pub(crate) fn of_url(url: &str) -> Self {
        match Chosen::of_url(url) {
            Ok(chosen) => Self {
                chosen,
                wrong: None,
            },
            Err(wrong) => Self {
                chosen: Chosen::None,
                wrong: Some(wrong),
            },
        }
    }

    pub(crate) fn exec_migrations(&mut self, exec_migrations: bool) {
        match &mut self.chosen {
            Chosen::None | Chosen::Memory(_) => {}
            #[cfg(feature = "postgres")]
            Chosen::Postgres(options) => options.exec_migrations = Some(exec_migrations),
            #[cfg(feature = "sqlite")]
            Chosen::Sqlite(options) => options.exec_migrations = Some(exec_migrations),
        }
        // Without a feature there is nobody to tell.
        let _ = exec_migrations;
    }

    /// Takes a setting of Postgres. The first that the database does not have is told.
    #[cfg(feature = "postgres")]
    pub(crate) fn on_postgres(&mut self, setting: &str, set: impl FnOnce(&mut PostgresOptions)) {
        let used = match &mut self.chosen {
            Chosen::Postgres(options) => return set(options),
            // That there is none is said by itself.
            Chosen::None => return,
            Chosen::Memory(_) => "memory",
            #[cfg(feature = "sqlite")]
            Chosen::Sqlite(_) => "SQLite",
        };
        self.wrong.get_or_insert_with(|| {
            format!("{setting} is a setting of Postgres, and the URL names {used}; leave it out")
        });
    }
}

impl Chosen {
    /// Nothing of the URL but its scheme is in the error: there may be a password in it.
    fn of_url(url: &str) -> Result<Self, String> {
        let is_scheme = |scheme: &str| scheme.bytes().all(|byte| byte.is_ascii_lowercase());
        let parts = url.split_once(':').filter(|(scheme, rest)| {
            is_scheme(scheme) && (["memory", "sqlite"].contains(scheme) || rest.starts_with("//"))
        });
        let Some((scheme, rest)) = parts else {
            return Err(no_scheme(url));
        };
        match scheme {
            "memory" => match rest {
                "" | "//" => Ok(Self::Memory(MemoryOptions::default())),
                _ => Err("a URL of jobs in memory is `memory:` and no more".to_owned()),
            },
            "postgres" | "postgresql" => postgres(url),
            "sqlite" => sqlite(rest),
            "file" => Err(OF_FILE.to_owned()),
            _ => Err(format!(
                "the URL begins with `{scheme}:`, which is none of our databases; write {URLS}"
            )),
        }
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::None => Err(format!("no database is named; write {URLS}")),
            Self::Memory(options) => Memory::check(options),
            #[cfg(feature = "postgres")]
            Self::Postgres(options) => Postgres::check(options),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(options) => Sqlite::check(options),
        }
    }

    pub(crate) fn size_for(&mut self, runs_max: usize) {
        match self {
            Self::None => {}
            Self::Memory(options) => Memory::size_for(options, runs_max),
            #[cfg(feature = "postgres")]
            Self::Postgres(options) => Postgres::size_for(options, runs_max),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(options) => Sqlite::size_for(options, runs_max),
        }
    }

    pub(crate) async fn open(self, clock: &ClockHandle) -> Result<AnyStore, JobError> {
        match self {
            Self::None => Err(JobError::Config("no database is named".to_owned())),
            Self::Memory(options) => any::open::<Memory>(options, clock).await,
            #[cfg(feature = "postgres")]
            Self::Postgres(options) => any::open::<Postgres>(options, clock).await,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(options) => any::open::<Sqlite>(options, clock).await,
        }
    }
}

/// Why a text is no URL of ours. What it begins with is told only where we know it.
fn no_scheme(url: &str) -> String {
    let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
    let small = scheme.to_ascii_lowercase();
    match &*small {
        "" if url == ":memory:" => "`:memory:` is no URL; write memory: for jobs in memory, or \
                                    sqlite::memory: for a SQLite database without a file"
            .to_owned(),
        "file" => OF_FILE.to_owned(),
        "postgres" | "postgresql" if !rest.starts_with("//") => {
            format!("`{small}:` is followed by two slashes; write {URLS}")
        }
        "postgres" | "postgresql" | "sqlite" | "memory" => {
            format!("the scheme of the URL is written in small letters, `{small}:`; write {URLS}")
        }
        _ => format!("the URL has no scheme that says which database it is; write {URLS}"),
    }
}

#[cfg(feature = "postgres")]
fn postgres(url: &str) -> Result<Chosen, String> {
    Ok(Chosen::Postgres(PostgresOptions {
        pg_con: Some(url.to_owned()),
        ..PostgresOptions::default()
    }))
}

#[cfg(not(feature = "postgres"))]
fn postgres(_: &str) -> Result<Chosen, String> {
    Err(built_without("Postgres", "postgres"))
}

#[cfg(feature = "sqlite")]
fn sqlite(rest: &str) -> Result<Chosen, String> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.is_empty() {
        let text = "the URL names no file; write sqlite:jobs.db, or sqlite::memory: for none";
        return Err(text.to_owned());
    }
    if path.contains('?') {
        let text = "a URL of SQLite is its path and has no parameters after a `?`; a file that is \
                    missing is created, and for a pool of your own there is JobSvcConfig::sqlite";
        return Err(text.to_owned());
    }
    // As sqlx reads it, so that one URL is one file for both.
    let path = match path.contains('%') {
        false => path.into(),
        true => SqliteConnectOptions::from_str(path)
            .map_err(|_| "the path in the URL of SQLite is not UTF-8".to_owned())?
            .get_filename()
            .to_owned(),
    };
    Ok(Chosen::Sqlite(SqliteOptions {
        path: Some(path),
        ..SqliteOptions::default()
    }))
}

#[cfg(not(feature = "sqlite"))]
fn sqlite(_: &str) -> Result<Chosen, String> {
    Err(built_without("SQLite", "sqlite"))
}

#[cfg(not(all(feature = "postgres", feature = "sqlite")))]
fn built_without(database: &str, feature: &str) -> String {
    format!(
        "the URL names {database}, and this program was built without it; add the feature: \
         job = {{ ..., features = [\"{feature}\"] }}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(url: &str) -> String {
        AnyOptions::of_url(url).wrong.expect(url)
    }

    #[test]
    fn the_scheme_says_which_backend_it_is() {
        let chosen = |url: &str| AnyOptions::of_url(url).chosen;
        assert!(matches!(chosen("memory:"), Chosen::Memory(_)));
        #[cfg(feature = "postgres")]
        for url in ["postgres://user:secret@host/database", "postgresql://host"] {
            assert!(matches!(chosen(url), Chosen::Postgres(_)), "{url}");
        }
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn a_setting_of_postgres_is_refused_elsewhere() {
        let mut options = AnyOptions::of_url("memory:");
        options.on_postgres("schema", |_| unreachable!());
        let wrong = options.wrong.expect("a wrong setting");
        assert!(
            wrong.contains("schema") && wrong.contains("memory"),
            "{wrong}"
        );
        let mut options = AnyOptions::of_url("postgres://host");
        options.on_postgres("schema", |of| of.store.schema = Some("jobs".to_owned()));
        assert_eq!(options.wrong, None);
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn a_url_of_sqlite_is_its_path() {
        for (url, path) in [
            ("sqlite:jobs.db", "jobs.db"),
            ("sqlite://jobs.db", "jobs.db"),
            ("sqlite:///var/jobs.db", "/var/jobs.db"),
            ("sqlite:/var/jobs.db", "/var/jobs.db"),
            ("sqlite::memory:", ":memory:"),
            ("sqlite:my%20jobs.db", "my jobs.db"),
        ] {
            match AnyOptions::of_url(url).chosen {
                Chosen::Sqlite(options) => assert_eq!(options.path, Some(path.into()), "{url}"),
                other => panic!("{url} is {other:?}"),
            }
        }
        let text = wrong("sqlite:jobs.db?key=secret");
        assert!(
            text.contains("no parameters") && !text.contains("secret"),
            "{text}"
        );
        assert!(wrong("sqlite:").contains("sqlite:jobs.db"));
    }

    #[test]
    fn a_url_that_is_none_of_ours_is_refused_without_what_is_secret_in_it() {
        let text = wrong("mysql://user:secret@host/database");
        assert!(text.contains("`mysql:`") && text.contains("sqlite:jobs.db"));
        assert!(!text.contains("secret"), "{text}");
        for url in [
            "jobs.db",
            "secret@host:5432/db",
            "host=db password=secret:x",
            "secret:x",
        ] {
            let text = wrong(url);
            assert!(
                text.contains("no scheme") && !text.contains("secret"),
                "{text}"
            );
        }
        assert!(wrong("memory:jobs").contains("no more"));
    }

    #[test]
    fn a_url_that_is_nearly_one_of_ours_is_told_how_it_is_written() {
        for (url, part) in [
            (
                "Postgres://ada:secret@host/db",
                "small letters, `postgres:`",
            ),
            ("SQLITE:secret.db", "small letters, `sqlite:`"),
            ("Memory:", "small letters, `memory:`"),
            (
                "postgres:secret@host/db",
                "`postgres:` is followed by two slashes",
            ),
            (":memory:", "write memory:"),
            ("file:secret.db", "write sqlite:jobs.db"),
            ("file:///secret.db", "write sqlite:jobs.db"),
        ] {
            let text = wrong(url);
            assert!(text.contains(part) && !text.contains("secret"), "{text}");
        }
    }
}
