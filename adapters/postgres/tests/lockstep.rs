//! The store and the model side by side: the same commands, the same replies.

use std::collections::BTreeMap;

use job_engine::{ModelStore, Reply, StoreError};
use job_postgres::{PostgresStore, StoreOptions};
use job_tokio::Store;

use crate::script::Script;
use crate::support::{TestDatabase, find};

const STEPS: u32 = 500;

#[tokio::test]
async fn the_store_does_what_the_model_does() {
    check(StoreOptions::default(), 0..8).await;
}

#[tokio::test]
async fn it_does_so_in_a_schema_of_any_name() {
    let schema = Some("odd \"name\".with 'quotes'".to_owned());
    let options = StoreOptions {
        schema,
        ..StoreOptions::default()
    };
    check(options, 100..102).await;
}

#[tokio::test]
async fn it_does_so_behind_a_transaction_pooler() {
    let options = StoreOptions {
        poll_only: true,
        ..StoreOptions::default()
    };
    check(options, 200..202).await;
}

async fn check(options: StoreOptions, seeds: std::ops::Range<u64>) {
    let seeds = match std::env::var("LOCKSTEP_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("LOCKSTEP_SEED is a number");
            seed..seed + 1
        }
        Err(_) => seeds,
    };
    let mut kinds = BTreeMap::new();
    for seed in seeds {
        let (_database, store) = TestDatabase::with_options(options.clone()).await;
        check_seed(&store, seed, &mut kinds).await;
        store.close().await;
    }
    println!("{kinds:?}");
}

async fn check_seed(store: &PostgresStore, seed: u64, kinds: &mut BTreeMap<String, u32>) {
    let mut script = Script::new(seed);
    let mut model = ModelStore::new();
    for step in 0..STEPS {
        let (now, command) = script.next();
        let expected = model.apply(now, &command).map_err(StoreError::from);
        let reply = store.execute(Some(now), &command).await;
        assert_eq!(
            reply, expected,
            "at step {step}, {now}, to {command:?}; replay it with LOCKSTEP_SEED={seed}"
        );
        if let Ok(reply) = &reply {
            script.learn(reply);
            count(reply, kinds);
        }
        if step % 50 == 0 || step + 1 == STEPS {
            for job in script.ids() {
                assert_eq!(
                    find(store, job).await.as_ref(),
                    model.find(job),
                    "after step {step}, {now}, {command:?}; replay it with LOCKSTEP_SEED={seed}"
                );
            }
        }
    }
}

/// What the scripts have met, to see that they are worth something.
fn count(reply: &Reply, kinds: &mut BTreeMap<String, u32>) {
    let mut add = |kind: String| *kinds.entry(kind).or_default() += 1;
    match reply {
        Reply::Spawned(all) => all.iter().for_each(|one| add(format!("{one:?}"))),
        Reply::Finished(all) => all.iter().for_each(|one| add(format!("Finish {one:?}"))),
        Reply::Heartbeat(all) => all.iter().for_each(|one| add(format!("Heartbeat {one:?}"))),
        Reply::Checkpointed(one) => add(format!("Checkpoint {one:?}")),
        Reply::Reclaimed(all) => all.iter().for_each(|one| add(format!("{:?}", one.end))),
        Reply::Claimed(claimed) => {
            claimed.jobs.iter().for_each(|_| add("Claimed".to_owned()));
            claimed
                .next_due
                .iter()
                .for_each(|_| add("Next due".to_owned()));
        }
        Reply::Found(_) => {}
    }
}
