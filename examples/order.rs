//! An order and the job that ships it, in one transaction.

use job::{JobError, JobSvcConfig, Jobs, Postgres, Task, TaskContext, TaskEnd, TaskResult};

#[derive(serde::Serialize, serde::Deserialize)]
struct Ship(i64);

impl Task for Ship {
    const TYPE: &'static str = "ship";
    type State = ();
    async fn run(self, cx: TaskContext) -> TaskResult {
        let mut tx = cx.begin_on::<Postgres>().await?;
        let ship = sqlx::query("UPDATE orders SET shipped = TRUE WHERE id = $1");
        ship.bind(self.0).execute(&mut *tx).await?;
        Ok(TaskEnd::CompleteWithTx(tx.into())) // shipped and done, or neither
    }
}

async fn place_order(jobs: &Jobs) -> Result<(), JobError> {
    let mut tx = jobs.pool().begin().await?;
    let order = sqlx::query_scalar("INSERT INTO orders DEFAULT VALUES RETURNING id");
    let order: i64 = order.fetch_one(&mut *tx).await?;
    jobs.spawn(Ship(order)).in_tx(&mut tx).await?; // an order and its job, or neither
    Ok(tx.commit().await?)
}

/// Needs `CREATE TABLE orders (id bigserial, shipped bool DEFAULT FALSE)`.
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL")?;
    let mut jobs = JobSvcConfig::builder().pg_con(url).await?;
    jobs.add_task::<Ship>();
    jobs.start_poll().await?;
    place_order(&jobs).await?;
    Ok(jobs.run_until_signal().await?)
}
