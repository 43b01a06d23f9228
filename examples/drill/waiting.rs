//! A thousand wait for ten tokens on two replicas: who is served when, and what waiting costs Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fred::prelude::*;
use tokend::metrics::Metrics;
use tokend::store::{AssignRequest, Durability, GenerateRequest, NewTokens, Store, StoreConfig};
use tokend::token::{AssignOutcome, FlowsLimits, Grant, Policy, PolicyPatch, PoolName};
use tokio::task::JoinSet;

use super::process::{self, Directory};
use super::{Report, cost, lag};

const TOKENS: usize = 10;
/// Longest that a waiter may wait: what the API allows.
const WAIT: Duration = Duration::from_secs(60);
/// How long each holds its token before it gives it back.
const HOLD: Duration = Duration::from_millis(100);
/// A lease that nobody gives back.
const LEASE: Duration = Duration::from_secs(1);
/// For so long all of them only wait, for what that costs.
const IDLE: Duration = Duration::from_secs(5);
/// How often the pub/sub connections are cut.
const CUT_EVERY_MS: u64 = 20;
/// Those who do not wait, and try to overtake.
const PUSHERS: usize = 4;

/// Two replicas on one Redis.
struct Site {
    stores: Vec<Store>,
    metrics: Vec<Arc<Metrics>>,
    admin: Client,
}

pub async fn drill() -> Report {
    let mut report = Report::default();
    let scratch = Directory::new();
    let port = process::free_port();
    let _redis = process::redis(port, scratch.path()).await;
    let site = Site::start(format!("redis://127.0.0.1:{port}")).await;
    site.measure(&mut report, "given back", 1_000, Some(HOLD))
        .await;
    site.measure(&mut report, "lapsing", 100, None).await;
    let cutting = Arc::new(AtomicBool::new(true));
    let cutter = tokio::spawn(cut(site.admin.clone(), cutting.clone()));
    site.measure(
        &mut report,
        "given back, every pub/sub connection cut",
        100,
        Some(HOLD),
    )
    .await;
    cutting.store(false, Ordering::Relaxed);
    cutter.await.expect("the cutter");
    for store in &site.stores {
        store.stop().await;
    }
    report
}

async fn cut(admin: Client, cutting: Arc<AtomicBool>) {
    while cutting.load(Ordering::Relaxed) {
        let kill = vec!["KILL", "TYPE", "pubsub"];
        let _: Result<i64, _> = admin.custom(fred::cmd!("CLIENT"), kill).await;
        tokio::time::sleep(Duration::from_millis(CUT_EVERY_MS)).await;
    }
}

async fn assign(store: &Store, pool: &PoolName, wait: Duration) -> Option<Grant> {
    let request = AssignRequest::default();
    match store.assign_within(pool, request, wait).await {
        Ok(AssignOutcome::Granted(offer)) => Some(offer.accept()),
        Ok(_) => None,
        Err(error) => panic!("{error}"),
    }
}

async fn give_back(store: &Store, pool: &PoolName, grant: &Grant) {
    let done = store.unblock(pool, &grant.token, Some(grant.fence)).await;
    done.expect("unblock");
}

/// One that waits: which grant it got, and when.
async fn be_served(store: Store, pool: PoolName, hold: Option<Duration>) -> Option<(u64, Instant)> {
    let grant = assign(&store, &pool, WAIT).await?;
    let at = Instant::now();
    if let Some(hold) = hold {
        tokio::time::sleep(hold).await;
        give_back(&store, &pool, &grant).await;
    }
    Some((grant.fence.get(), at))
}

impl Site {
    async fn start(url: String) -> Self {
        let admin = lag::connect(&url).await;
        let config = StoreConfig {
            url,
            key_prefix: "waiting".to_owned(),
            partitions: 16,
            default_policy: Policy::FOR_DEFAULT_POOL,
            flows: FlowsLimits::DEFAULT,
            durability: Durability::Memory,
        };
        let (mut stores, mut metrics) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let own = Arc::new(Metrics::new());
            let store = Store::start(config.clone(), own.clone()).await;
            stores.push(store.expect("a store"));
            metrics.push(own);
        }
        Self {
            stores,
            metrics,
            admin,
        }
    }

    /// How many requests wait for the pool.
    fn waiting(&self, pool: &PoolName) -> i64 {
        let each = self.metrics.iter();
        each.map(|own| own.waiters.with_label_values(&[pool.as_str()]).get())
            .sum()
    }

    /// A pool whose tokens are all held.
    async fn taken(&self, name: &str, hold: Option<Duration>) -> (PoolName, Vec<Grant>) {
        let name = name.replace([' ', ',', '/'], "-");
        let pool = PoolName::parse(&name).expect("a name");
        let lifetime = if hold.is_some() { WAIT * 10 } else { LEASE };
        let patch = PolicyPatch {
            lifetime_ms: u64::try_from(lifetime.as_millis()).ok(),
            ..PolicyPatch::default()
        };
        let store = &self.stores[0];
        store.put_pool(&pool, patch).await.expect("PUT");
        let tokens = NewTokens::Generate(TOKENS);
        let request = GenerateRequest { tokens, key: None };
        store.generate(&pool, request).await.expect("generate");
        let mut held = Vec::new();
        for _ in 0..TOKENS {
            let request = AssignRequest {
                lifetime_ms: u64::try_from(WAIT.as_millis()).ok(),
                ..AssignRequest::default()
            };
            match store.assign(&pool, request).await {
                Ok(AssignOutcome::Granted(offer)) => held.push(offer.accept()),
                _ => panic!("nothing to assign"),
            }
        }
        (pool, held)
    }

    /// Puts them in line one by one, lets all tokens go, and looks at who is served when.
    async fn measure(
        &self,
        report: &mut Report,
        name: &str,
        waiters: usize,
        hold: Option<Duration>,
    ) {
        let (pool, held) = self.taken(name, hold).await;
        let mut tasks = JoinSet::new();
        for n in 0..waiters {
            let store = self.stores[n % 2].clone();
            let served = be_served(store, pool.clone(), hold);
            tasks.spawn(async move { (n, served.await) });
            let key = format!("waiting:1:{{*}}:waiters:{pool}");
            self.until_in_line(&key, n + 1).await;
        }
        if waiters >= 1_000 {
            let before = cost::cpu_us(&self.admin).await;
            tokio::time::sleep(IDLE).await;
            let spent = cost::cpu_us(&self.admin).await - before;
            let each = spent / IDLE.as_secs_f64() / waiters as f64;
            let told = format!("{each:.1} µs of Redis for each second that one waits");
            report.figure(&format!("{waiters} waiting"), told);
        }
        report.check(
            self.waiting(&pool) == i64::try_from(waiters).unwrap_or(0),
            "not all wait",
        );
        let pushing = Arc::new(AtomicBool::new(true));
        let pushers = self.push(&pool, &pushing);
        let began = Instant::now();
        for grant in &held {
            give_back(&self.stores[0], &pool, grant).await;
        }
        let served = tasks.join_all().await;
        pushing.store(false, Ordering::Relaxed);
        let pushed = pushers.join_all().await;
        judge(report, name, &served, &pushed, hold.unwrap_or(LEASE), began);
        let free = self.stores[1].show_pool(&pool).await.expect("show");
        let counts = free.expect("the pool").counts;
        if hold.is_some() {
            report.check(counts.free == TOKENS as u64, format!("{name}: {counts:?}"));
        }
    }

    async fn until_in_line(&self, pattern: &str, count: usize) {
        let script = "local n = 0 for _, key in ipairs(redis.call('KEYS', ARGV[1])) do \
                      n = n + redis.call('HLEN', key) end return n";
        loop {
            let args = vec![pattern.to_owned()];
            let none = Vec::<String>::new();
            let there: usize = self.admin.eval(script, none, args).await.expect("EVAL");
            if there >= count {
                return;
            }
        }
    }

    /// Assigns that do not wait, until told to stop. Each says which grant it got, if any.
    fn push(&self, pool: &PoolName, pushing: &Arc<AtomicBool>) -> JoinSet<Vec<u64>> {
        let mut pushers = JoinSet::new();
        for n in 0..PUSHERS {
            let (store, pool) = (self.stores[n % 2].clone(), pool.clone());
            let pushing = pushing.clone();
            pushers.spawn(async move {
                let mut got = Vec::new();
                while pushing.load(Ordering::Relaxed) {
                    if let Some(grant) = assign(&store, &pool, Duration::ZERO).await {
                        got.push(grant.fence.get());
                        give_back(&store, &pool, &grant).await;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                got
            });
        }
        pushers
    }
}

/// What a round has shown.
fn judge(
    report: &mut Report,
    name: &str,
    served: &[(usize, Option<(u64, Instant)>)],
    pushed: &[Vec<u64>],
    hold: Duration,
    began: Instant,
) {
    let mut grants: Vec<(u64, usize)> = Vec::new();
    let mut longest = Duration::ZERO;
    for (n, got) in served {
        if let Some((fence, at)) = got {
            grants.push((*fence, *n));
            longest = longest.max(at.saturating_duration_since(began));
        }
    }
    let lost = served.len() - grants.len();
    grants.sort_unstable();
    let out_of_order = grants
        .windows(2)
        .filter(|pair| pair[0].1 > pair[1].1)
        .count();
    let last = grants.last().map_or(0, |(fence, _)| *fence);
    let overtook = pushed
        .iter()
        .flatten()
        .filter(|fence| **fence < last)
        .count();
    // The first are served at once.
    let rounds = served.len().div_ceil(TOKENS) - 1;
    let ideal = hold * u32::try_from(rounds).unwrap_or(u32::MAX);
    report.figure(
        &format!("{} waiters, {TOKENS} tokens, {name}", served.len()),
        format!(
            "longest wait {longest:.2?}, ideal {ideal:.2?}; {out_of_order} out of order, {overtook} overtook, {lost} lost"
        ),
    );
    report.check(out_of_order == 0, format!("{name}: out of order"));
    report.check(overtook == 0, format!("{name}: somebody overtook"));
    report.check(lost == 0, format!("{name}: somebody waited in vain"));
}
