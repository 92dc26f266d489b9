//! A charge that happens once, whatever breaks: a hundred simulations of three workers.

use job::{Task, TaskContext, TaskEnd, TaskResult};

#[derive(serde::Serialize, serde::Deserialize)]
struct Charge(u32);

impl Task for Charge {
    const TYPE: &'static str = "charge";
    type State = (job_sim::Sim, job_sim::SimulatedTable<u32>); // in production, a bank
    async fn run(self, cx: TaskContext<Self::State>) -> TaskResult {
        let (sim, bank) = cx.state().clone();
        sim.call("charge", move || bank.insert_or_ignore(self.0))
            .await?;
        Ok(TaskEnd::Complete)
    }
}

async fn an_order_is_charged_once(sim: job_sim::Sim) {
    let state = (sim.clone(), job_sim::SimulatedTable::default());
    let bank = state.1.clone();
    let charges = sim.start(move |jobs| jobs.add_task_with::<Charge>(state.clone()));
    charges.await.job(Charge(7)).await.unwrap();
    sim.settle().await;
    assert_eq!(bank.rows(), [7]);
}

#[test]
fn whatever_breaks() {
    job_sim::Simulation::new().run(an_order_is_charged_once);
}

fn main() {
    job_sim::Simulation::new()
        .seeds(0..1_000)
        .run(an_order_is_charged_once);
}
