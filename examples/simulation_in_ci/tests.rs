//! What must hold of orders, whatever happens.

use job_sim::{Simulated, SimulatedPool, SimulatedTable, Simulation};

use super::*;

#[async_trait]
impl Tables<Simulated> for SimulatedTable<Row> {
    async fn write(&self, pool: &SimulatedPool, row: Row) -> Written<Simulated> {
        let mut transaction = pool.begin();
        self.insert_in(&mut transaction, row);
        Ok(transaction)
    }
}

#[test]
fn each_order_is_paid_once_and_then_shipped_once() {
    Simulation::new().run(|sim| async move {
        let table = Arc::new(SimulatedTable::default());
        let tables = table.clone();
        let orders = sim.start(move |jobs| add_steps(jobs, tables.clone())).await;
        for order in sim.inputs(10) {
            orders.spawn(JobId::new(), order).await.unwrap();
        }
        sim.settle().await;
        for order in sim.inputs(10) {
            let rows = table.rows_where(|row| row.0 == order);
            assert_eq!(rows, [(order, "paid"), (order, "shipped")]);
        }
    });
}
