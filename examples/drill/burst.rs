//! A million leases of one pool lapse within a second, beside a small pool in the same partition.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fred::prelude::*;
use fred::types::InfoKind;
use tokend::metrics::Metrics;
use tokend::store::{AssignRequest, Durability, GenerateRequest, NewTokens, Store, StoreConfig};
use tokend::token::{
    AssignOutcome, FlowsLimits, Policy, PolicyPatch, PoolName, TOKENS_PER_CALL_MAX,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Report;
use super::process::{self, Directory};

const TOKENS: u64 = 1_000_000;
const SMALL: u64 = 100;
/// Assigns under way at once.
const TASKS: u64 = 2_000;
/// When the leases end, counted from the first: later than the last is granted.
const END_S: u64 = 60;
/// Longest that they may take to come back.
const BACK_S_MAX: u64 = 120;

pub async fn drill() -> Report {
    let mut report = Report::default();
    let scratch = Directory::new();
    let port = process::free_port();
    let _redis = process::redis(port, scratch.path()).await;
    let metrics = Arc::new(Metrics::new());
    let config = StoreConfig {
        url: format!("redis://127.0.0.1:{port}"),
        key_prefix: "burst".to_owned(),
        partitions: 1, // so that both pools share one
        default_policy: Policy::FOR_DEFAULT_POOL,
        flows: FlowsLimits::DEFAULT,
        durability: Durability::Memory,
    };
    let store = Store::start(config, metrics.clone())
        .await
        .expect("a store");
    let small = make(&store, "small", SMALL).await;
    let admin = super::lag::connect(&format!("redis://127.0.0.1:{port}")).await;
    let empty = used_memory(&admin).await;
    let big = make(&store, "big", TOKENS).await;
    let free = used_memory(&admin).await;
    let began = Instant::now();
    let end = began + Duration::from_secs(END_S);
    lease_all(&store, &big, TOKENS, end).await;
    let took = began.elapsed();
    report.figure(
        "1,000,000 assigns, one replica, in process",
        format!("{took:.1?}, {:.0}/s", TOKENS as f64 / took.as_secs_f64()),
    );
    let held = used_memory(&admin).await;
    report.figure(
        "bytes of Redis per free token, per held one",
        format!("{}, {}", (free - empty) / TOKENS, (held - empty) / TOKENS),
    );
    report.check(
        Instant::now() + Duration::from_secs(2) < end,
        "granting took too long to measure",
    );
    lease_all(&store, &small, SMALL, end + Duration::from_millis(500)).await;

    tokio::time::sleep_until((end - Duration::from_millis(500)).into()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let pause_us = Arc::new(AtomicU64::new(0));
    let pinger = tokio::spawn(ping(port, stop.clone(), pause_us.clone()));
    let small_back = back(&metrics, "small", SMALL).await;
    let small_lag = small_back.map(|at| at.saturating_duration_since(end));
    let big_back = back(&metrics, "big", TOKENS).await;
    stop.store(true, Ordering::Relaxed);
    pinger.await.expect("the pinger");
    report.figure(
        "big pool: all back after",
        format!("{:.2?}", big_back.map(|at| at - end)),
    );
    report.figure(
        "small pool: all back after (its leases end at 0.5 s)",
        format!("{small_lag:.2?}"),
    );
    for (pool, count) in [("big", TOKENS), ("small", SMALL)] {
        let lag = metrics.release_lag.with_label_values(&[pool]);
        let mean = lag.get_sample_sum() / lag.get_sample_count().max(1) as f64;
        report.figure(
            &format!("{pool} pool: mean release lag"),
            format!("{mean:.3} s"),
        );
        report.check(
            lag.get_sample_count() == count,
            format!("{pool}: not all came back"),
        );
    }
    report.figure(
        "longest pause of Redis meanwhile",
        format!(
            "{:.1} ms",
            pause_us.load(Ordering::Relaxed) as f64 / 1_000.0
        ),
    );
    report
}

/// `used_memory` of Redis, bytes.
pub async fn used_memory(admin: &Client) -> u64 {
    let info: String = admin.info(Some(InfoKind::Memory)).await.expect("INFO");
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    line.and_then(|bytes| bytes.trim().parse().ok())
        .expect("bytes")
}

pub async fn make(store: &Store, name: &str, count: u64) -> PoolName {
    let pool = PoolName::parse(name).expect("a name");
    let patch = PolicyPatch {
        max_tokens: Some(count),
        ..PolicyPatch::default()
    };
    store.put_pool(&pool, patch).await.expect("PUT");
    let mut left = count;
    while left > 0 {
        let now = left.min(TOKENS_PER_CALL_MAX as u64);
        let request = GenerateRequest {
            tokens: NewTokens::Generate(usize::try_from(now).expect("a call's worth")),
            key: None,
        };
        store.generate(&pool, request).await.expect("generate");
        left -= now;
    }
    pool
}

/// Leases that all end at about one moment.
async fn lease_all(store: &Store, pool: &PoolName, count: u64, end: Instant) {
    let left = Arc::new(AtomicU64::new(count));
    let tasks: Vec<_> = (0..TASKS.min(count))
        .map(|_| {
            let (store, pool, left) = (store.clone(), pool.clone(), left.clone());
            tokio::spawn(async move {
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                    .is_ok()
                {
                    let lifetime = end.saturating_duration_since(Instant::now()).as_millis();
                    let lifetime_ms = Some(u64::try_from(lifetime).unwrap_or(1).max(1_000));
                    let request = AssignRequest {
                        lifetime_ms,
                        ..AssignRequest::default()
                    };
                    match store.assign(&pool, request).await {
                        Ok(AssignOutcome::Granted(offer)) => drop(offer.accept()),
                        Ok(_) => panic!("nothing to assign"),
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a task");
    }
}

async fn back(metrics: &Metrics, pool: &str, count: u64) -> Option<Instant> {
    let until = Instant::now() + Duration::from_secs(BACK_S_MAX);
    let lag = metrics.release_lag.with_label_values(&[pool]);
    while Instant::now() < until {
        if lag.get_sample_count() >= count {
            return Some(Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    None
}

/// Asks Redis again and again on a connection of its own, and keeps the longest wait.
pub async fn ping(port: u16, stop: Arc<AtomicBool>, longest_us: Arc<AtomicU64>) {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
    let mut stream = stream.expect("Redis");
    let mut answer = [0; 7];
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        stream.write_all(b"PING\r\n").await.expect("PING");
        stream.read_exact(&mut answer).await.expect("PONG");
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        longest_us.fetch_max(took, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
