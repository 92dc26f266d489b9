//! Tests of code that spawns jobs, each with a database of its own from `#[sqlx::test]`.

use std::error::Error;

use job::{JobError, JobSvcConfig, Jobs, Postgres, Task, TaskContext, TaskEnd, TaskResult};
use serde::{Deserialize, Serialize};
use sqlx::PgTransaction;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Ship {
    order: i64,
}

impl Task for Ship {
    const TYPE: &'static str = "ship";
    type State = ();

    async fn run(self, cx: TaskContext) -> TaskResult {
        let mut tx = cx.begin_on::<Postgres>().await?;
        sqlx::query("UPDATE orders SET shipped = TRUE WHERE id = $1")
            .bind(self.order)
            .execute(&mut *tx)
            .await?;
        Ok(TaskEnd::CompleteWithTx(tx.into()))
    }
}

/// Stores an order and the job that ships it: both, or neither.
async fn place_order(jobs: &Jobs, tx: &mut PgTransaction<'_>) -> Result<i64, JobError> {
    let order = sqlx::query_scalar("INSERT INTO orders DEFAULT VALUES RETURNING id")
        .fetch_one(&mut **tx)
        .await?;
    jobs.spawn(Ship { order }).in_tx(tx).await?;
    Ok(order)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = "postgres://user:pass@localhost/shop";
    let mut jobs = JobSvcConfig::builder().pg_con(url).await?;
    jobs.add_task::<Ship>();
    jobs.start_poll().await?;
    let mut tx = jobs.pool().begin().await?;
    place_order(&jobs, &mut tx).await?;
    tx.commit().await?;
    jobs.run_until_signal().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use job::testing::{TestJobs, spawned};
    use sqlx::PgPool;

    use super::*;

    const ORDERS: &str = "CREATE TABLE orders (id bigserial, shipped bool DEFAULT FALSE)";

    #[sqlx::test(migrator = "job::MIGRATOR")]
    async fn an_order_comes_with_the_job_that_ships_it(pool: PgPool) {
        sqlx::query(ORDERS).execute(&pool).await.unwrap();
        let test = TestJobs::from_pool(pool.clone()).await.unwrap();
        let mut tx = pool.begin().await.unwrap();
        let order = place_order(test.jobs(), &mut tx).await.unwrap();
        assert_eq!(spawned::<Ship>(&mut *tx).await.unwrap(), [Ship { order }]);
    }

    #[sqlx::test(migrator = "job::MIGRATOR")]
    async fn an_order_is_shipped(pool: PgPool) {
        sqlx::query(ORDERS).execute(&pool).await.unwrap();
        let mut test = TestJobs::from_pool(pool.clone()).await.unwrap();
        test.add_task::<Ship>();
        let mut tx = pool.begin().await.unwrap();
        place_order(test.jobs(), &mut tx).await.unwrap();
        tx.commit().await.unwrap();
        test.drain().await;
        let shipped = sqlx::query_scalar("SELECT shipped FROM orders");
        let shipped: Vec<bool> = shipped.fetch_all(&pool).await.unwrap();
        assert_eq!(shipped, [true]);
    }
}
