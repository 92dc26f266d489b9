//! Tasks: work that is its own arguments.

use super::*;

use job::{AnyBackend, Memory, Sqlite, Task, TaskContext, TaskEnd, TaskResult, TaskSettings};
use serde::{Deserialize, Serialize};

/// Fails at its first attempts.
#[derive(Serialize, Deserialize)]
struct Greet {
    name: String,
    failures: u32,
}

/// What a task tells the test.
type Greeted = Arc<Mutex<Vec<String>>>;

impl Task for Greet {
    const TYPE: &'static str = "greet";
    type State = Greeted;

    async fn run(self, cx: TaskContext<Greeted>) -> TaskResult {
        if self.name.is_empty() {
            return Err("nobody to greet".into());
        }
        if cx.attempt() <= self.failures {
            "no number".parse::<u32>()?;
        }
        cx.state().lock().unwrap().push(self.name);
        Ok(TaskEnd::Complete)
    }

    fn settings() -> TaskSettings {
        TaskSettings::default().retry(at_once(3))
    }
}

/// Spawns the next of itself in the transaction that it completes with, and counts in its
/// execution state.
#[derive(Serialize, Deserialize)]
struct Countdown {
    from: u32,
}

impl Task for Countdown {
    const TYPE: &'static str = "countdown";
    type State = ();

    async fn run(self, mut cx: TaskContext) -> TaskResult {
        if cx.execution_state::<u32>()?.is_none() {
            cx.update_execution_state(self.from).await?;
            return Ok(TaskEnd::RescheduleNow);
        }
        let mut tx = cx.begin().await?;
        if let Some(from) = self.from.checked_sub(1) {
            cx.spawn(Self { from })
                .id(numbered(from))
                .in_tx(&mut tx)
                .await?;
        }
        Ok(TaskEnd::CompleteWithTx(tx))
    }
}

fn numbered(n: u32) -> JobId {
    uuid::Uuid::from_u128(n.into()).into()
}

pub(super) async fn a_task_runs_with_its_state_and_any_error_is_tried_again<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let greeted = Greeted::default();
    jobs.add_task_with::<Greet>(Arc::clone(&greeted));
    jobs.start_poll().await.unwrap();
    let (name, failures) = ("Ada".to_owned(), 2);
    let job = jobs.spawn(Greet { name, failures }).await.unwrap();
    let job = ended(&jobs, job.id).await;
    assert_eq!(job.state(), JobState::Completed, "{:?}", job.last_error());
    let tries = [
        "started",
        "failed",
        "started",
        "failed",
        "started",
        "completed",
    ];
    assert_eq!(history(&job)[1..], tries);
    assert_eq!(*greeted.lock().unwrap(), ["Ada"]);
    assert_eq!(job.last_error(), Some("invalid digit found in string"));

    let (name, failures) = (String::new(), 0);
    let job = jobs.spawn(Greet { name, failures }).await.unwrap();
    let job = ended(&jobs, job.id).await;
    assert_eq!(job.state(), JobState::Errored);
    assert_eq!(job.last_error(), Some("nobody to greet"));
}

pub(super) async fn a_task_spawns_the_next_with_its_own_end<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    jobs.add_task::<Countdown>();
    jobs.start_poll().await.unwrap();
    jobs.spawn(Countdown { from: 3 })
        .id(numbered(3))
        .await
        .unwrap();
    for n in (0..=3).rev() {
        eventually("the next is spawned", async || {
            jobs.find(numbered(n)).await.ok()
        })
        .await;
        let job = ended(&jobs, numbered(n)).await;
        let events = ["spawned", "started", "rescheduled", "started", "completed"];
        assert_eq!(history(&job), events, "{n}");
    }
}

pub(super) async fn a_process_spawns_what_others_run<B: TestBackend>() {
    use job::backend::CallerTransaction;

    let place = B::place().await;
    let jobs = service::<B>(&place).await;
    let others = jobs.spawner::<u32>(job::JobType::new("elsewhere"));

    let hour = Duration::from_secs(3_600);
    let before = jobs.clock().now();
    let later = others.job(1).after(hour).await.unwrap();
    let due_in = jobs.find(later.id).await.unwrap().due_at().unwrap() - before;
    // The clock of the database need not be ours.
    let minute = TimeDelta::minutes(1);
    assert!(TimeDelta::hours(1) - minute < due_in && due_in < TimeDelta::hours(1) + minute);
    let at = before + TimeDelta::hours(2);
    let at_a_time = others.job(2).at(at).await.unwrap();
    let due_at = jobs.find(at_a_time.id).await.unwrap().due_at().unwrap();
    assert_eq!(due_at.timestamp_micros(), at.timestamp_micros());

    let (kept, rolled_back) = (JobId::new(), JobId::new());
    let mut tx = B::begin(jobs.pool()).await;
    others.job(3).id(rolled_back).in_tx(&mut tx).await.unwrap();
    tx.rollback().await;
    let mut tx = B::begin(jobs.pool()).await;
    let spawned = others.job(4).id(kept).in_tx(&mut tx).or_find().await;
    assert!(spawned.unwrap().created);
    tx.commit().await.unwrap();
    assert!(matches!(
        jobs.find(rolled_back).await,
        Err(JobError::NotFound(_))
    ));
    assert_eq!(jobs.find(kept).await.unwrap().config::<u32>().unwrap(), 4);
}

pub(super) async fn what_is_there_already_is_found<B: TestBackend>() {
    use job::backend::CallerTransaction;

    let place = B::place().await;
    let jobs = service::<B>(&place).await;
    let orders = jobs.spawner::<u32>(job::JobType::new("order"));
    let refunds = jobs.spawner::<u32>(job::JobType::new("refund"));
    let id = JobId::new();
    let first = orders.job(1).id(id).or_find().await.unwrap();
    let second = orders.job(2).id(id).or_find().await.unwrap();
    assert_eq!((first.created, second.created), (true, false));
    assert_eq!((second.id, second.config::<u32>().unwrap()), (id, 1));

    let mut tx = B::begin(jobs.pool()).await;
    let third = orders.job(3).id(id).in_tx(&mut tx).or_find().await.unwrap();
    assert_eq!((third.created, third.config::<u32>().unwrap()), (false, 1));
    // The transaction goes on.
    let other = refunds.job(4).in_tx(&mut tx).await.unwrap();
    let of_another_type = refunds.job(5).id(id).in_tx(&mut tx).or_find().await;
    assert!(matches!(of_another_type, Err(JobError::DuplicateId(of)) if of == id));
    tx.commit().await.unwrap();
    assert_eq!(
        jobs.find(other.id).await.unwrap().state(),
        JobState::Pending
    );

    let of_another_type = refunds.job(6).id(id).or_find().await;
    assert!(matches!(of_another_type, Err(JobError::DuplicateId(of)) if of == id));
}

/// Wants a backend that no test is on.
pub(super) async fn what_is_said_of_a_spawn_holds_in_whichever_order<B: TestBackend>() {
    let place = B::place().await;
    let jobs = service::<B>(&place).await;
    let (id, hour) = (numbered(1), Duration::from_secs(3_600));
    let all = jobs.spawner_of::<Greet>();
    let greet = || Greet {
        name: "Ada".to_owned(),
        failures: 0,
    };
    let mut tx = B::begin(jobs.pool()).await;
    let job = all.job(greet()).in_tx(&mut tx).id(id).after(hour).await;
    assert!(job.unwrap().due_at().unwrap() > jobs.clock().now());
    let found = all.job(greet()).or_find().in_tx(&mut tx).id(id).await;
    assert!(!found.unwrap().created);
    drop(tx);
    // Rolled back, so there is none.
    let job = all.job(greet()).or_find().id(id).after(hour).await.unwrap();
    assert!(job.created);
    // Whoever does not know the backend sees the same.
    let seen = jobs.any().find(id).await.unwrap();
    assert_eq!(seen.id, job.id);
    let again = jobs.any().spawn(greet()).id(id).await.unwrap_err();
    assert!(matches!(again, JobError::DuplicateId(of) if of == id));
}

pub(super) async fn a_task_that_wants_another_backend_is_told_which_it_is_on<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let task = jobs.add_fn_with(
        "lost",
        TaskSettings::default().retry(at_once(1)),
        |(), cx: TaskContext| async move {
            cx.begin_on::<AnyBackend>().await?.rollback().await;
            // At least one of them is another.
            drop(cx.begin_on::<Memory>().await?);
            drop(cx.begin_on::<Sqlite>().await?);
            Ok(TaskEnd::Complete)
        },
    );
    jobs.start_poll().await.unwrap();
    let job = task.job(()).await.unwrap();
    let job = ended(&jobs, job.id).await;
    let error = job.last_error().unwrap();
    assert!(error.starts_with("wrong backend: "), "{error}");
}
