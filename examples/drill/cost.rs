//! What an assign and an unblock cost Redis: called one at a time (each its own script call, the baseline)
//! and by many at once (group commit), in a small pool and in a large one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use fred::prelude::*;
use fred::types::InfoKind;
use tokend::metrics::Metrics;
use tokend::store::{AssignRequest, Durability, Store, StoreConfig};
use tokend::token::{AssignOutcome, FlowsLimits, Policy, PoolName};

use super::process::{self, Directory};
use super::{Report, burst, lag};

/// Cycles per measurement.
const CYCLES: u64 = 20_000;

pub async fn drill() -> Report {
    let mut report = Report::default();
    let scratch = Directory::new();
    let port = process::free_port();
    let _redis = process::redis(port, scratch.path()).await;
    let url = format!("redis://127.0.0.1:{port}");
    let admin = lag::connect(&url).await;
    let metrics = Arc::new(Metrics::new());
    let config = StoreConfig {
        url,
        key_prefix: "cost".to_owned(),
        partitions: 1,
        default_policy: Policy::FOR_DEFAULT_POOL,
        flows: FlowsLimits::DEFAULT,
        durability: Durability::Memory,
    };
    let store = Store::start(config, metrics.clone())
        .await
        .expect("a store");
    for (name, tokens) in [("small", 1_000), ("large", 1_000_000)] {
        let pool = burst::make(&store, name, tokens).await;
        let mut alone = None;
        for tasks in [1, 32, 500] {
            let calls = metrics.batch_size.with_label_values(&["assign"]);
            let (calls_before, cpu_before) = (calls.get_sample_count(), cpu_us(&admin).await);
            let began = Instant::now();
            cycles(&store, &pool, tasks).await;
            let took = began.elapsed().as_secs_f64();
            let cpu = (cpu_us(&admin).await - cpu_before) / CYCLES as f64;
            let batch = CYCLES as f64 / (calls.get_sample_count() - calls_before) as f64;
            let baseline = *alone.get_or_insert(cpu);
            report.figure(
                &format!("{tokens} tokens, {tasks} at once: Redis CPU per cycle"),
                format!(
                    "{cpu:.1} µs ({:.2} of one at a time), {batch:.1} a call, {:.0} cycles/s",
                    cpu / baseline,
                    CYCLES as f64 / took
                ),
            );
        }
    }
    store.stop().await;
    report
}

/// Assign and unblock, by so many tasks.
async fn cycles(store: &Store, pool: &PoolName, tasks: usize) {
    let left = Arc::new(AtomicU64::new(CYCLES));
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            let (store, pool, left) = (store.clone(), pool.clone(), left.clone());
            tokio::spawn(async move {
                while take(&left) {
                    let request = AssignRequest::default();
                    let Ok(AssignOutcome::Granted(offer)) = store.assign(&pool, request).await
                    else {
                        panic!("nothing to assign");
                    };
                    let grant = offer.accept();
                    let done = store.unblock(&pool, &grant.token, Some(grant.fence)).await;
                    done.expect("unblock");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a task");
    }
}

fn take(left: &AtomicU64) -> bool {
    let one_less = |left: u64| left.checked_sub(1);
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
        .is_ok()
}

/// User and system time that Redis has used, µs.
pub async fn cpu_us(admin: &Client) -> f64 {
    let info: String = admin.info(Some(InfoKind::Cpu)).await.expect("INFO");
    let seconds = |name: &str| -> f64 {
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|s| s.trim().parse().ok()).expect("seconds")
    };
    (seconds("used_cpu_user:") + seconds("used_cpu_sys:")) * 1e6
}
