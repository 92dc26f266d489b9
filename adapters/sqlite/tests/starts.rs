//! Starts: what an earlier process left running is taken back, unless somebody may
//! still be at work on it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use job_engine::lifecycle::RunEnd;
use job_engine::store::{Finish, Heartbeat, Outcome, Written};
use job_engine::{Reply, Run, Snapshot, Timestamp};
use job_sqlite::{SqliteStore, begin_immediate};
use job_tokio::Store;
use tokio::sync::oneshot;

use crate::fixtures::{START, claim, claimed_runs, find, in_memory, on_file, path_in, run, spawn};

/// How a run ends that its process did not survive.
const INTERRUPTED: RunEnd = RunEnd::Interrupted;

/// The file of a process that is to be killed.
const FILE: &str = "JOB_TEST_FILE";
const TOOK: &str = "it took ";

/// What another process does: it takes what is due, tells how many jobs that were, and
/// works until it is killed.
#[tokio::test]
async fn a_process_that_never_ends() {
    let Ok(file) = std::env::var(FILE) else {
        return;
    };
    let store = SqliteStore::open(file).await.unwrap();
    let store = store.start(None).await.unwrap();
    let claim = claim(std::process::id().into(), 1, 100);
    let taken = claimed_runs(store.execute(None, &claim).await);
    println!("\n{TOOK}{}", taken.len());
    // The other end is held by the test, which writes nothing, and closed with it.
    let _ = std::io::stdin().read(&mut [0]);
}

struct Process(Child);

impl Process {
    /// Starts one, and waits until it is at work. Returns how many jobs it took.
    fn start(file: &Path) -> (Self, usize) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "starts::a_process_that_never_ends",
                "--exact",
                "--nocapture",
            ])
            .env(FILE, file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let taken = lines.find_map(|line| line.unwrap().strip_prefix(TOOK)?.parse().ok());
        (Self(child), taken.expect("it tells what it took"))
    }

    /// By SIGKILL.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A store of a service in this process.
async fn started(file: &Path) -> SqliteStore {
    let store = SqliteStore::open(file).await.unwrap();
    store.start(Some(START)).await.unwrap()
}

/// A store on a new file, in which a job runs that a process has left which is gone.
async fn on_file_left_running() -> (SqliteStore, tempfile::TempDir, Run) {
    let (store, place) = on_file().await;
    run(&store, &spawn(1)).await;
    // By a store that was never started, nobody hears of it.
    let run = claimed_runs(Ok(run(&store, &claim(1, 1, 1)).await))[0];
    (store, place, run)
}

fn ends(job: &Snapshot) -> Vec<RunEnd> {
    job.runs.iter().map(|run| run.end).collect()
}

async fn is_at_work(store: &SqliteStore, run_at_work: Run) -> bool {
    let heartbeat = job_engine::Command::Heartbeat(Heartbeat {
        runs: vec![run_at_work],
        lease: Duration::from_secs(60),
    });
    run(store, &heartbeat).await == Reply::Heartbeat(vec![Written::Applied])
}

#[tokio::test]
async fn a_job_whose_process_is_killed_runs_at_the_next_start_and_no_attempt_and_no_crash_counts() {
    const KILLS: usize = 11;
    let (store, place) = on_file().await;
    run(&store, &spawn(1)).await;
    for kill in 0..KILLS {
        let (process, taken) = Process::start(&path_in(&place));
        assert_eq!(taken, 1, "start {kill}");
        process.kill();
    }
    started(&path_in(&place)).await;
    let job = find(&store, 1).await.unwrap();
    assert_eq!(ends(&job), [INTERRUPTED; KILLS]);
    let live = job.live.unwrap();
    assert_eq!((live.attempt, live.crashes, live.lease), (1, 0, None));
    assert_eq!(live.interruptions as usize, KILLS);
    assert_eq!(
        claimed_runs(Ok(run(&store, &claim(1, 1, 1)).await)).len(),
        1
    );
}

#[tokio::test]
async fn nothing_is_taken_back_while_another_process_uses_the_file() {
    let (store, place) = on_file().await;
    let file = path_in(&place);
    run(&store, &spawn(1)).await;
    let (first, taken) = Process::start(&file);
    assert_eq!(taken, 1);
    run(&store, &spawn(2)).await;
    let (second, taken) = Process::start(&file);
    assert_eq!(taken, 1);
    // The one that had the file alone is gone, and the other is still there.
    first.kill();
    let third = started(&file).await;
    for job in [1, 2] {
        assert_eq!(ends(&find(&store, job).await.unwrap()), []);
    }
    drop(third);
    let third = started(&file).await;
    assert_eq!(ends(&find(&store, 1).await.unwrap()), []);
    second.kill();
    // As long as it is there, it does not look again.
    started(&file).await;
    assert_eq!(ends(&find(&store, 1).await.unwrap()), []);
    drop(third);
    started(&file).await;
    for job in [1, 2] {
        assert_eq!(ends(&find(&store, job).await.unwrap()), [INTERRUPTED]);
    }
}

#[tokio::test]
async fn what_was_interrupted_is_in_the_history_and_due_at_the_time_of_the_service() {
    let (store, place, left) = on_file_left_running().await;
    let now = Timestamp::from_micros(START.as_micros() + 77);
    let service = SqliteStore::open(path_in(&place)).await.unwrap();
    let _service = service.start(Some(now)).await.unwrap();
    let job = find(&store, 1).await.unwrap();
    assert_eq!(job.live.as_ref().unwrap().due_at, now);
    let run = &job.runs[0];
    assert_eq!(
        (run.fence, run.attempt, run.end),
        (left.fence, 1, INTERRUPTED)
    );
    assert_eq!((run.claimed_at, run.ended_at), (START, now));
    assert_eq!((run.next_due_at, run.error.as_ref()), (Some(now), None));
    assert!(!is_at_work(&store, left).await);
}

#[tokio::test]
async fn an_interruption_by_a_kill_is_written_like_one_by_a_shutdown() {
    let mut interrupted = Vec::new();
    for by_kill in [true, false] {
        let (raw, place, left) = on_file_left_running().await;
        let once_undecodable = "UPDATE job_live SET undecodable_since = 1, interruptions = 2";
        let update = sqlx::query(once_undecodable).execute(raw.pool());
        update.await.unwrap();
        if by_kill {
            started(&path_in(&place)).await;
        } else {
            let finish = job_engine::Command::Finish(vec![Finish {
                run: left,
                outcome: Outcome::Interrupted,
            }]);
            run(&raw, &finish).await;
        }
        interrupted.push(find(&raw, 1).await.unwrap());
    }
    assert_eq!(interrupted[0], interrupted[1]);
}

#[tokio::test]
async fn without_a_clock_of_its_own_it_is_due_at_the_time_of_the_machine() {
    let (store, place, _) = on_file_left_running().await;
    let service = SqliteStore::open(path_in(&place)).await.unwrap();
    let service = service.start(None).await.unwrap();
    let due_at = find(&store, 1).await.unwrap().live.unwrap().due_at;
    assert!(due_at > START);
    let reply = service.execute(None, &claim(2, 1, 1)).await;
    assert_eq!(claimed_runs(reply).len(), 1);
}

#[tokio::test]
async fn crashes_stay_what_they_were() {
    let (store, place, left) = on_file_left_running().await;
    let crashed = "UPDATE job_live SET crashes = 3, attempt = 5";
    sqlx::query(crashed).execute(store.pool()).await.unwrap();
    started(&path_in(&place)).await;
    let live = find(&store, 1).await.unwrap().live.unwrap();
    assert_eq!((live.attempt, live.crashes), (5, 3));
    assert_eq!(live.fence, left.fence);
}

#[tokio::test]
async fn a_second_service_of_a_process_takes_nothing_back() {
    let (raw, place) = on_file().await;
    let first = started(&path_in(&place)).await;
    run(&raw, &spawn(1)).await;
    let at_work = claimed_runs(Ok(run(&first, &claim(1, 1, 1)).await))[0];
    let second = started(&path_in(&place)).await;
    assert!(is_at_work(&first, at_work).await);
    // Nor does it when the first is gone: a thread of its may still be at work.
    first.close().await;
    drop((first, second));
    let third = started(&path_in(&place)).await;
    assert!(is_at_work(&third, at_work).await);
    assert_eq!(ends(&find(&third, 1).await.unwrap()), []);
}

#[tokio::test]
async fn a_second_service_claims_nothing_that_the_first_is_about_to_take_back() {
    let (raw, place, _) = on_file_left_running().await;
    let file = path_in(&place);
    let first = SqliteStore::open(&file).await.unwrap();
    let second = SqliteStore::open(&file).await.unwrap();
    // While somebody writes, the first cannot take anything back.
    let writes = begin_immediate(raw.pool()).await.unwrap();
    let (sender, begun) = oneshot::channel();
    let first = tokio::spawn(async move {
        sender.send(()).unwrap();
        first.start(Some(START)).await.unwrap()
    });
    begun.await.unwrap();
    let second = tokio::spawn(async move {
        let second = second.start(Some(START)).await.unwrap();
        claimed_runs(Ok(run(&second, &claim(2, 1, 1)).await))
    });
    writes.rollback().await.unwrap();
    let (first, taken) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!(taken.len(), 1);
    assert!(is_at_work(&first, taken[0]).await);
}

#[tokio::test]
async fn a_start_that_is_given_up_on_is_done_by_the_next() {
    let (raw, place, _) = on_file_left_running().await;
    let file = path_in(&place);
    let writes = begin_immediate(raw.pool()).await.unwrap();
    let given_up = SqliteStore::open(&file).await.unwrap();
    let start = tokio::time::timeout(Duration::from_millis(50), given_up.start(Some(START)));
    assert!(start.await.is_err());
    writes.rollback().await.unwrap();
    started(&file).await;
    assert_eq!(ends(&find(&raw, 1).await.unwrap()), [INTERRUPTED]);
}

#[tokio::test]
async fn a_start_where_nothing_runs_waits_for_nobody_and_writes_nothing() {
    let (raw, place) = on_file().await;
    run(&raw, &spawn(1)).await;
    let writes = begin_immediate(raw.pool()).await.unwrap();
    let hasty = job_sqlite::OpenOptions {
        busy_timeout: Duration::ZERO,
        ..job_sqlite::OpenOptions::default()
    };
    let store = SqliteStore::open_with(path_in(&place), &hasty).await;
    store.unwrap().start(None).await.unwrap();
    drop(writes);
}

#[tokio::test]
async fn a_job_that_has_ended_or_waits_is_let_alone() {
    let (raw, place, left) = on_file_left_running().await;
    run(&raw, &spawn(2)).await;
    let waits = find(&raw, 2).await;
    let finish = job_engine::Command::Finish(vec![Finish {
        run: left,
        outcome: Outcome::Completed,
    }]);
    run(&raw, &finish).await;
    started(&path_in(&place)).await;
    assert_eq!(ends(&find(&raw, 1).await.unwrap()), [RunEnd::Completed]);
    assert_eq!(find(&raw, 2).await, waits);
}

#[tokio::test]
async fn a_database_in_memory_has_nobody_else() {
    let (store, ()) = in_memory().await;
    run(&store, &spawn(1)).await;
    let at_work = claimed_runs(Ok(run(&store, &claim(1, 1, 1)).await))[0];
    let store = store.start(Some(START)).await.unwrap();
    assert!(is_at_work(&store, at_work).await);
}

#[tokio::test]
async fn where_there_can_be_no_lock_nothing_is_taken_back() {
    let (raw, place, left) = on_file_left_running().await;
    let lock = path_in(&place).with_file_name("jobs.db-job-lock");
    std::fs::create_dir(lock).unwrap();
    started(&path_in(&place)).await;
    assert!(is_at_work(&raw, left).await);
}
