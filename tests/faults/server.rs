//! A Postgres server of one test, which it can crash and start again.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;

/// How long a server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A server in a directory of its own; killed when it is dropped.
pub struct Server {
    programs: PathBuf,
    user: Option<User>,
    directory: tempfile::TempDir,
    port: u16,
    process: Option<Child>,
}

/// Who runs the server: it refuses to run as root.
#[derive(Clone, Copy)]
struct User {
    id: u32,
    group: u32,
}

impl Server {
    /// Makes a cluster and starts a server on it.
    pub fn start() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("job-tests.")
            .tempdir_in("/tmp");
        let directory = directory.expect("a directory can be made in /tmp");
        let user = unprivileged();
        if let Some(user) = user {
            chown(directory.path(), Some(user.id), Some(user.group)).unwrap();
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut server = Self {
            programs: programs(),
            user,
            port: listener.local_addr().unwrap().port(),
            directory,
            process: None,
        };
        drop(listener);
        server.make_cluster();
        server.start_again();
        server
    }

    pub fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new()
            .host("127.0.0.1")
            .port(self.port)
            .username("postgres")
            .database("postgres")
    }

    /// Stops at once, as if the power had gone as far as its processes can tell.
    pub fn crash(&mut self) {
        let mut process = self.process.take().expect("it runs");
        let pid = process.id().to_string();
        let sent = Command::new("kill").args(["-QUIT", &pid]).status();
        assert!(sent.unwrap().success());
        process.wait().unwrap();
    }

    /// Starts after a crash, and waits until it can be used.
    pub fn start_again(&mut self) {
        let data = self.data();
        let log = fs::File::create(self.directory.path().join("server.log")).unwrap();
        let port = self.port.to_string();
        let child = self
            .command("postgres")
            .args(["-p", &port, "-D"])
            .arg(&data)
            .stderr(log)
            .spawn();
        self.process = Some(child.expect("postgres can be started"));
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            // Its own word, on line 8.
            let state = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
            if state
                .lines()
                .nth(7)
                .is_some_and(|line| line.starts_with("ready"))
            {
                return;
            }
            let log = || fs::read_to_string(self.directory.path().join("server.log"));
            assert!(Instant::now() < deadline, "no server: {:?}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn make_cluster(&self) {
        let initdb = self
            .command("initdb")
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8"])
            .args(["--locale=C", "--no-sync", "--pgdata"])
            .arg(self.data())
            .output();
        let initdb = initdb.expect("initdb can be run");
        assert!(initdb.status.success(), "{initdb:?}");
        let settings = self.data().join("postgresql.conf");
        let directory = self.directory.path().display();
        let more = format!(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = '{directory}'\n\
             fsync = off\nfull_page_writes = off\n"
        );
        let all = fs::read_to_string(&settings).unwrap() + &more;
        fs::write(settings, all).unwrap();
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user.id).gid(user.group);
        }
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.crash();
        }
    }
}

/// Where `initdb` and `postgres` are: in `PATH`, else the newest.
fn programs() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).find(|folder| folder.join("initdb").exists());
    let installed = || {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
        let versions = versions.map(|version| version.unwrap().path().join("bin"));
        let version = |folder: &PathBuf| -> Option<u32> {
            folder
                .parent()
                .and_then(Path::file_name)?
                .to_str()?
                .parse()
                .ok()
        };
        versions
            .filter(|folder| folder.join("initdb").exists())
            .max_by_key(version)
    };
    in_path
        .or_else(installed)
        .expect("initdb is not there: install the PostgreSQL server, as tests/run does")
}

/// `None` if the current user will do.
fn unprivileged() -> Option<User> {
    if id(&["-u"]) != Some(0) {
        return None;
    }
    let user = ["postgres", "nobody"].into_iter().find_map(|name| {
        Some(User {
            id: id(&["-u", name])?,
            group: id(&["-g", name])?,
        })
    });
    Some(user.expect("the server does not run as root, and there is neither postgres nor nobody"))
}

fn id(arguments: &[&str]) -> Option<u32> {
    let id = Command::new("id").args(arguments).output().ok()?;
    String::from_utf8(id.stdout).ok()?.trim().parse().ok()
}
