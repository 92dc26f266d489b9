//! The examples, run as their readers run them, and the README, which shows some of them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use job::{JobId, JobState, JobType, Jobs};

use crate::support::{PATIENCE, TestDatabase, ended, history};

/// A program that is killed when it is dropped.
struct Example {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Example {
    fn start(name: &str, dir: &Path, set: &[(&str, &str)]) -> Self {
        let mut child = Command::new(built(name))
            .current_dir(dir)
            .envs(set.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .expect("an example that can be run");
        let says = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, says }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    /// Tells it to end as an orchestrator does, and waits until it has ended well. Returns
    /// what else it said.
    fn stop(mut self) -> String {
        let pid = self.child.id().to_string();
        // Before it waits for the signal, that would end it at once.
        let deadline = Instant::now() + PATIENCE;
        while !catches_sigterm(&pid) {
            assert!(Instant::now() < deadline, "it never waited for SIGTERM");
            std::thread::sleep(Duration::from_millis(5));
        }
        let told = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(told.expect("kill can be run").success());
        let mut said = String::new();
        self.says.read_to_string(&mut said).expect("text");
        let status = self.child.wait().expect("it is our child");
        assert!(status.success(), "{status}");
        said
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the process has a handler for SIGTERM, as the system says.
fn catches_sigterm(pid: &str) -> bool {
    const SIGTERM: u32 = 15;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = u64::from_str_radix(caught.expect("a line of it").trim(), 16);
    caught.expect("a mask") >> (SIGTERM - 1) & 1 == 1
}

/// The examples are built beside the tests.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a file");
    let dir = test
        .ancestors()
        .nth(2)
        .expect("it is in target/PROFILE/deps");
    let example = dir.join("examples").join(name);
    assert!(
        example.exists(),
        "{} is not built; run the tests with tests/run, or cargo build --examples",
        example.display()
    );
    example
}

#[test]
fn hello_says_hello_and_ends_when_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let mut hello = Example::start("hello", dir.path(), &[]);
        assert_eq!(hello.line(), "Hello, world!");
        assert_eq!(hello.stop(), "");
    }
    assert!(dir.path().join("jobs.db").exists());
}

#[tokio::test]
async fn an_order_is_shipped() {
    let database = TestDatabase::create().await;
    let pool = database.pool().await;
    let orders = "CREATE TABLE orders (id bigserial, shipped bool DEFAULT FALSE)";
    sqlx::query(orders).execute(&pool).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let order = Example::start("order", dir.path(), &[("DATABASE_URL", &database.url())]);
    crate::support::eventually("the order is shipped", async || {
        let shipped = sqlx::query_scalar("SELECT shipped FROM orders");
        let shipped: Option<bool> = shipped.fetch_optional(&pool).await.unwrap();
        shipped.filter(|shipped| *shipped)
    })
    .await;
    order.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_web_spawns_the_worker_runs() {
    let database = TestDatabase::create().await;
    let url = database.url();
    let dir = tempfile::tempdir().unwrap();
    let set = [("DATABASE_URL", &*url), ("LISTEN", "127.0.0.1:0")];
    let mut web = Example::start("web", dir.path(), &set);
    let listening = web.line();
    let address = listening.strip_prefix("listening on ").expect("an address");
    let welcome = post(address, "/users/ada@example.com");
    let nowhere = post(address, "/users/nowhere");

    let mut worker = Example::start("worker", dir.path(), &set);
    assert_eq!(worker.line(), "running jobs");
    assert_eq!(
        worker.line(),
        "welcomed ada@example.com, mail 1 of this process"
    );
    let jobs = Jobs::connect(url).await.unwrap();
    let job = ended(&jobs, welcome).await;
    assert_eq!(job.state(), JobState::Completed);
    assert_eq!(worker.stop(), "stopped\n");
    assert_eq!(web.stop(), "stopped\n");
    let job = jobs.find(nowhere).await.unwrap();
    assert_eq!(job.state(), JobState::Pending);
    assert_eq!(history(&job)[..3], ["spawned", "started", "failed"]);
    assert_eq!(job.last_error(), Some("nowhere is no address"));
}

#[tokio::test]
async fn the_traits_run_a_job() {
    let database = TestDatabase::create().await;
    let dir = tempfile::tempdir().unwrap();
    let url = database.url();
    let mut quickstart = Example::start("quickstart", dir.path(), &[("DATABASE_URL", &url)]);
    assert_eq!(quickstart.line(), "processing 42");
    quickstart.stop();
}

/// Each file once, by whichever of them, and none again when it is started again.
#[tokio::test]
async fn a_directory_is_indexed() {
    let database = TestDatabase::create().await;
    let url = database.url();
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("files");
    std::fs::create_dir(&files).unwrap();
    for (name, text) in [("a", "one\n"), ("b", "one\n"), ("c", "one\ntwo\n")] {
        std::fs::write(files.join(name), text).unwrap();
    }
    let index = |args: &[&str]| {
        let mut command = Command::new(built("index"));
        let ran = command.current_dir(dir.path()).arg("files").args(args);
        let output = ran.output().expect("an example that can be run");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for args in [&[][..], &["--database-url", &*url]] {
        let first = index(args);
        let (jobs, rest) = first.split_once('\n').unwrap();
        assert_eq!(
            jobs,
            "3 files: 3 new jobs, 0 known from before, 0 of them done"
        );
        let facts =
            "3 files, 16 bytes (16 B), 4 lines, 1 with the same content as another, 0 unreadable";
        assert!(rest.starts_with(facts), "{rest}");
        let again = index(args);
        let jobs = "3 files: 0 new jobs, 3 known from before, 3 of them done\n";
        assert!(again.starts_with(jobs) && again.contains(facts), "{again}");
    }
}

fn post(address: &str, path: &str) -> JobId {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let request = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (_, id) = answer.split_once("\r\n\r\n").expect("a body");
    id.trim().parse().expect("an id")
}

/// What an operator copies runs on the tables as they are, and counts what there is.
#[tokio::test]
async fn the_sql_of_the_guide_counts_the_jobs() {
    let database = TestDatabase::create().await;
    let jobs = Jobs::connect(database.url()).await.unwrap();
    let reports = jobs.spawner::<u32>(JobType::new("report"));
    reports.job(2026).await.unwrap();
    let guide = text_of("adapters/job/src/guide/operating.md");
    let statements = blocks(&guide, "sql");
    assert_eq!(statements.len(), 1);
    let counted = sqlx::query_as(statements[0]);
    let counted: Vec<(String, i64, i64, Option<DateTime<Utc>>)> =
        counted.fetch_all(&database.pool().await).await.unwrap();
    let [(job_type, pending, running, Some(_))] = &*counted else {
        panic!("{counted:?}");
    };
    assert_eq!((&**job_type, *pending, *running), ("report", 1, 0));
}

/// Whoever has read one of them knows what the other says.
#[test]
fn the_readme_guarantees_what_the_guide_does() {
    let guarantees = |file| {
        let text = text_of(file);
        let rows = text.lines().skip_while(|line| *line != "| | |");
        let rows = rows.take_while(|line| line.starts_with('|'));
        rows.map(str::to_owned).collect::<Vec<_>>()
    };
    let guide = guarantees("adapters/job/src/guide/guarantees.md");
    assert!(guide.len() > 10, "{guide:?}");
    assert_eq!(guarantees("README.md"), guide);
}

/// Whoever copies it gets what is compiled and run.
#[test]
fn the_programs_of_the_readme_are_those_of_the_examples() {
    let readme = text_of("README.md");
    let programs = blocks(&readme, "r");
    let examples = ["hello", "order", "retry", "simulation"];
    assert_eq!(programs.len(), examples.len());
    for (program, example) in programs.into_iter().zip(examples) {
        let file = text_of(&format!("examples/{example}.rs"));
        assert!(
            file.contains(program),
            "README.md differs from examples/{example}.rs"
        );
        let lines = program.lines().filter(|line| !line.is_empty()).count();
        assert!(lines <= 25, "{example} has {lines} lines");
    }
}

/// A file of the workspace.
fn text_of(file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(root.join(file)).expect(file)
}

/// The blocks of a language, or of all that begin with this, without their fences.
fn blocks<'a>(markdown: &'a str, language: &str) -> Vec<&'a str> {
    let blocks = markdown.split("```").skip(1).step_by(2);
    let blocks = blocks.filter_map(|block| block.split_once('\n'));
    let of_language = blocks.filter(|(of, _)| of.starts_with(language));
    of_language.map(|(_, text)| text).collect()
}
