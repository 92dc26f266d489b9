//! What happens between a service and its database.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::ledger::{LEASE, Ledger};
use super::proxy::{Fault, Proxy, Weather};
use crate::support::{TestDatabase, eventually, from_environment};

/// How long most runs take.
const SHORT: Duration = Duration::from_millis(5);

/// Two services on a database, each behind a proxy of its own.
async fn two_services(database: &TestDatabase) -> (Ledger, [Proxy; 2]) {
    let options = database.options();
    let proxies = [
        Proxy::start(options.clone()).await,
        Proxy::start(options.clone()).await,
    ];
    let ways: Vec<String> = proxies.iter().map(Proxy::url).collect();
    (Ledger::open(options, &ways).await, proxies)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_at_any_moment_lose_and_double_nothing() {
    let seed = from_environment("JOB_SOAK_SEED", 0_u64);
    let soak = Duration::from_secs(from_environment("JOB_SOAK_SECONDS", 8));
    let database = TestDatabase::create().await;
    let (mut ledger, proxies) = two_services(&database).await;
    let befell = Arc::new(AtomicUsize::new(0));
    for (n, proxy) in proxies.iter().enumerate() {
        let mut random = ChaCha8Rng::seed_from_u64(seed + n as u64);
        let befell = Arc::clone(&befell);
        proxy.judge(move |_| {
            let fault = match random.next_u32() % 400 {
                0..8 => Fault::CutBefore,
                8..16 => Fault::CutAfter,
                16 => Fault::Stall,
                17 => Fault::StallAfter,
                18..30 => Fault::Delay(Duration::from_millis(u64::from(random.next_u32() % 300))),
                _ => return None,
            };
            befell.fetch_add(1, Ordering::Relaxed);
            Some(fault)
        });
    }
    let until = tokio::time::Instant::now() + soak;
    let mut rounds = 0;
    // A spawn whose connection falls silent takes half a minute.
    while rounds < 2 || tokio::time::Instant::now() < until {
        ledger.spawn(30, SHORT).await;
        rounds += 1;
    }
    proxies.iter().for_each(Proxy::relent);
    let balance = ledger.balance().await;
    println!("{befell:?} faults, {balance:?}");
    assert!(befell.load(Ordering::Relaxed) > 20);
    assert!(balance.jobs > 50, "{balance:?}");
}

/// By their head comments, or their text. Some only follow when another took effect
/// and its reply was lost.
const STATEMENTS: [(&str, Option<&str>); 12] = [
    ("-- Takes due jobs", None),
    (
        "-- Finds the jobs that run by a claim",
        Some("-- Takes due jobs"),
    ),
    ("-- Ends runs", None),
    ("-- How runs ended", Some("-- Ends runs")),
    ("-- Renews leases", None),
    ("-- Takes back jobs", None),
    ("-- Keeps the execution state", None),
    ("-- Creates jobs", None),
    ("-- Reads the tokens of jobs", Some("-- Creates jobs")),
    ("-- Tells the workers", None),
    ("INSERT INTO ledger", None),
    ("COMMIT", None),
];

/// Each statement, just before it takes effect and just after it has.
async fn check_cut(fault: Fault) {
    let database = TestDatabase::create().await;
    let (mut ledger, proxies) = two_services(&database).await;
    for (statement, leads_to_it) in STATEMENTS {
        let befell = Arc::new(AtomicUsize::new(0));
        for proxy in &proxies {
            let befell = Arc::clone(&befell);
            let (mut left, mut leads_before) = (2, 0);
            proxy.judge(move |text| {
                if left > 0 && text.starts_with(statement) {
                    left -= 1;
                    befell.fetch_add(1, Ordering::Relaxed);
                    return Some(fault);
                }
                let leads = leads_to_it.is_some_and(|first| text.starts_with(first));
                // Every other one, so that its repeat is let through and leads to it. As
                // many as it takes: those in transactions of runners lead to nothing.
                let cut = left > 0 && leads && leads_before % 2 == 0;
                leads_before += u32::from(leads);
                cut.then_some(Fault::CutAfter)
            });
        }
        ledger.spawn(6, SHORT).await;
        // Long enough that its lease is renewed.
        ledger.spawn(1, LEASE / 2).await;
        eventually(&format!("{fault:?} of {statement}"), async || {
            let has_befallen = befell.load(Ordering::Relaxed) > 0;
            if !has_befallen && leads_to_it.is_some() {
                ledger.spawn(1, SHORT).await;
            }
            has_befallen.then_some(())
        })
        .await;
    }
    proxies.iter().for_each(Proxy::relent);
    let balance = ledger.balance().await;
    println!("{balance:?}");
    assert!(balance.jobs > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_cut_before_each_statement_takes_effect() {
    check_cut(Fault::CutBefore).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_cut_after_each_statement_took_effect() {
    check_cut(Fault::CutAfter).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_falls_silent_before_each_statement_takes_effect() {
    check_cut(Fault::Stall).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_falls_silent_after_each_statement_took_effect() {
    check_cut(Fault::StallAfter).await;
}

/// One service hears nothing for two leases; the other takes its jobs over.
async fn check_weather(weather: Weather) {
    let database = TestDatabase::create().await;
    let (mut ledger, proxies) = two_services(&database).await;
    ledger.spawn_everywhere(2 * LEASE).await;
    proxies[0].set_weather(weather);
    tokio::time::sleep(2 * LEASE).await;
    proxies[0].set_weather(Weather::Fair);
    ledger.spawn(20, SHORT).await;
    let balance = ledger.balance().await;
    println!("{balance:?}");
    assert!(balance.jobs >= 20 && balance.lost_leases > 0, "{balance:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_cut_off_for_two_leases_comes_back() {
    check_weather(Weather::Cut).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_whose_network_falls_silent_for_two_leases_comes_back() {
    check_weather(Weather::Silent).await;
}
