//! Properties of applications, over any scenario.

use job::{JobCompletion, JobId};
use job_sim::{Deployment, Scenario, Sim, Simulation};
use proptest::collection::vec;
use proptest::prelude::*;

use super::support::{Counts, Orders};

fn two_workers() -> Deployment {
    Deployment {
        workers: 2,
        ..Deployment::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..<_>::default() })]
    #[test]
    fn every_order_is_done_whatever_happens(
        scenario in any_with::<Scenario>(two_workers()),
        orders in vec(0..100_u32, 0..6),
    ) {
        let test = |sim: Sim| {
            let orders = orders.clone();
            async move {
                let done = Counts::default();
                let of_runner = done.clone();
                let work = Orders::new(move |order, _| {
                    of_runner.add(order);
                    async { Ok(JobCompletion::Complete) }
                });
                let spawner = work.start(&sim).await;
                for order in &orders {
                    spawner.spawn(JobId::new(), *order).await.unwrap();
                }
                sim.settle().await;
                for order in orders {
                    assert!(done.of(order) >= 1, "order {order}");
                }
            }
        };
        let ended = Simulation::new().scenario(scenario).check(test);
        ended.map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    }
}
