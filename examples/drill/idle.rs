//! What 20 replicas cost Redis while nothing happens, with no pools and with 1,000; and how often they sweep when
//! leases lapse all the time. Commands are counted by Redis itself, those that scripts call included.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fred::prelude::*;
use fred::types::InfoKind;
use tokend::metrics::Metrics;
use tokend::store::{AssignRequest, Durability, Store, StoreConfig};
use tokend::token::{AssignOutcome, FlowsLimits, Policy, PoolName};

use super::Report;
use super::process::{self, Directory};

const REPLICAS: usize = 20;
const PARTITIONS: u32 = 16;
const POOLS: usize = 1_000;
/// Tokens of an idle pool: one of them held for an hour, so that its wheel is not empty.
const TOKENS: u64 = 3;
/// Pools whose leases lapse all the time, and the tokens of each.
const BUSY_POOLS: usize = 64;
const BUSY_TOKENS: u64 = 100;
/// Between two assigns in a busy pool.
const ASSIGN_EVERY: Duration = Duration::from_millis(100);
/// Until what starting has caused is over.
const SETTLES: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(10);
/// The objective, commands per second of all replicas together.
const COMMANDS_MAX: f64 = 1_000.0;

/// What happened in a second.
struct Rates {
    commands: f64,
    sweeps: f64,
}

struct Replicas {
    stores: Vec<Store>,
    metrics: Vec<Arc<Metrics>>,
    admin: Client,
}

pub async fn drill() -> Report {
    let mut report = Report::default();
    let scratch = Directory::new();
    let port = process::free_port();
    let _redis = process::redis(port, scratch.path()).await;
    let url = format!("redis://127.0.0.1:{port}");
    let replicas = Replicas::start(&url).await;
    let empty = replicas.measure().await;
    report.figure("no pools: commands/s, sweeps/s", empty.told());
    for n in 0..POOLS {
        let pool = super::burst::make(replicas.any(n), &format!("idle-{n}"), TOKENS).await;
        lease(replicas.any(n), &pool, 3_600_000).await;
    }
    let idle = replicas.measure().await;
    report.figure("1,000 idle pools: commands/s, sweeps/s", idle.told());
    for (name, rates) in [("no pools", empty), ("1,000 pools", idle)] {
        let told = format!("{name}: {:.0} commands/s", rates.commands);
        report.check(rates.commands < COMMANDS_MAX, told);
    }
    busy(&replicas, &mut report).await;
    for store in replicas.stores {
        store.stop().await;
    }
    report
}

/// Leases of 1 to 2 s that lapse in every partition all the time.
async fn busy(replicas: &Replicas, report: &mut Report) {
    let (stop, granted) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut tasks = Vec::new();
    for n in 0..BUSY_POOLS {
        let pool = super::burst::make(replicas.any(n), &format!("busy-{n}"), BUSY_TOKENS).await;
        let (store, stop, granted) = (replicas.any(n).clone(), stop.clone(), granted.clone());
        tasks.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let count = granted.fetch_add(1, Ordering::Relaxed);
                lease(&store, &pool, 1_000 + count % 1_000).await;
                tokio::time::sleep(ASSIGN_EVERY).await;
            }
        }));
    }
    let before = granted.load(Ordering::Relaxed);
    let began = Instant::now();
    let rates = replicas.measure().await;
    let per_second =
        (granted.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("a task");
    }
    report.figure("leases that lapse, per second", format!("{per_second:.0}"));
    report.figure("meanwhile: commands/s, sweeps/s", rates.told());
    let lags = replicas.metrics.iter();
    let worst = lags
        .map(|metrics| super::lag::quantile(metrics, 0.99))
        .filter(|lag| lag.is_finite())
        .fold(0.0, f64::max);
    report.figure(
        "release lag of the worst replica",
        format!("p99 ≤ {worst} s"),
    );
}

async fn lease(store: &Store, pool: &PoolName, lifetime_ms: u64) {
    let request = AssignRequest {
        lifetime_ms: Some(lifetime_ms),
        ..AssignRequest::default()
    };
    match store.assign(pool, request).await.expect("assign") {
        AssignOutcome::Granted(offer) => drop(offer.accept()),
        _ => panic!("nothing to assign"),
    }
}

impl Replicas {
    async fn start(url: &str) -> Self {
        let config = StoreConfig {
            url: url.to_owned(),
            key_prefix: "idle".to_owned(),
            partitions: PARTITIONS,
            default_policy: Policy::FOR_DEFAULT_POOL,
            flows: FlowsLimits::DEFAULT,
            durability: Durability::Memory,
        };
        let (mut stores, mut metrics) = (Vec::new(), Vec::new());
        for _ in 0..REPLICAS {
            let seen = Arc::new(Metrics::new());
            let store = Store::start(config.clone(), seen.clone()).await;
            stores.push(store.expect("a store"));
            metrics.push(seen);
        }
        Self {
            stores,
            metrics,
            admin: super::lag::connect(url).await,
        }
    }

    fn any(&self, n: usize) -> &Store {
        &self.stores[n % self.stores.len()]
    }

    async fn measure(&self) -> Rates {
        tokio::time::sleep(SETTLES).await;
        let (commands, sweeps, began) = (self.commands().await, self.sweeps(), Instant::now());
        tokio::time::sleep(MEASURED).await;
        let rate = |grown: u64| grown as f64 / began.elapsed().as_secs_f64();
        Rates {
            sweeps: rate(self.sweeps() - sweeps),
            commands: rate(self.commands().await - commands),
        }
    }

    /// All that Redis has ever processed.
    async fn commands(&self) -> u64 {
        let info: String = self.admin.info(Some(InfoKind::Stats)).await.expect("INFO");
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("total_commands_processed:"));
        line.and_then(|count| count.trim().parse().ok())
            .expect("a count")
    }

    fn sweeps(&self) -> u64 {
        let of = |metrics: &Arc<Metrics>| {
            let count = |trigger| metrics.sweeps.with_label_values(&[trigger]).get();
            count("event") + count("timer")
        };
        self.metrics.iter().map(of).sum()
    }
}

impl Rates {
    fn told(&self) -> String {
        format!("{:.0}, {:.0}", self.commands, self.sweeps)
    }
}
