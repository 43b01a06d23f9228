//! Release lag: from a lease's deadline to the stored change, with one replica alive. First alone, then
//! beside a million unrelated keys with a TTL, then with every pub/sub connection cut all the time. Last, what it is
//! when the replica dies that swept half of the partitions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::prelude::*;
use tokend::metrics::Metrics;
use tokend::store::{AssignRequest, Durability, GenerateRequest, NewTokens, Store, StoreConfig};
use tokend::token::{AssignOutcome, FlowsLimits, Policy, PolicyPatch, PoolName};

use super::Report;
use super::process::{self, Directory};

const LEASES: u64 = 2_000;
const UNRELATED: usize = 1_000_000;
/// How often the pub/sub connections are cut.
const CUT_EVERY_MS: u64 = 20;
/// Longest that the leases may take to come back.
const BACK_S_MAX: u64 = 30;
/// The objective.
const LAG_S_MAX: f64 = 0.25;
/// How often a replica dies, and how many leases end around each death.
const DEATHS: u64 = 10;
const LEASES_PER_DEATH: u64 = 200;
/// The objective for what a replica swept that has died.
const DEATH_LAG_S_MAX: f64 = 1.0;

pub async fn drill() -> Report {
    let mut report = Report::default();
    let scratch = Directory::new();
    let port = process::free_port();
    let _redis = process::redis(port, scratch.path()).await;
    let url = format!("redis://127.0.0.1:{port}");
    let admin = connect(&url).await;
    measure(&mut report, "alone", &url, "a").await;
    let fill = "for i = 1, 1000 do redis.call('SET', 'other:' .. ARGV[1] .. ':' .. i, 'x', 'PX', \
                math.random(1000, 60000)) end";
    for batch in 0..UNRELATED / 1_000 {
        let _: () = admin
            .eval(fill, Vec::<String>::new(), vec![batch.to_string()])
            .await
            .expect("SET");
    }
    measure(
        &mut report,
        "beside 1,000,000 unrelated keys with TTL",
        &url,
        "b",
    )
    .await;
    let cutter = tokio::spawn(async move {
        loop {
            let _: Result<i64, _> = admin
                .custom(fred::cmd!("CLIENT"), vec!["KILL", "TYPE", "pubsub"])
                .await;
            tokio::time::sleep(Duration::from_millis(CUT_EVERY_MS)).await;
        }
    });
    measure(&mut report, "and every pub/sub connection cut", &url, "c").await;
    cutter.abort();
    deaths(&mut report, &url).await;
    report
}

pub async fn connect(url: &str) -> Client {
    let config = Config::from_url(url).expect("a URL");
    let client = Builder::from_config(config).build().expect("a client");
    client.init().await.expect("Redis");
    client
}

fn config(url: &str, prefix: &str) -> StoreConfig {
    StoreConfig {
        url: url.to_owned(),
        key_prefix: prefix.to_owned(),
        partitions: 16,
        default_policy: Policy::FOR_DEFAULT_POOL,
        flows: FlowsLimits::DEFAULT,
        durability: Durability::Memory,
    }
}

/// Two replicas, of which one dies with all its tasks while leases end; again and again.
async fn deaths(report: &mut Report, url: &str) {
    let metrics = Arc::new(Metrics::new());
    let config = config(url, "d");
    let survivor = Store::start(config.clone(), metrics.clone()).await;
    let survivor = survivor.expect("a store");
    let mut pools = Vec::new();
    for n in 0..LEASES_PER_DEATH {
        pools.push(super::burst::make(&survivor, &format!("lag-{n}"), 1).await);
    }
    for _ in 0..DEATHS {
        let dying = tokio::runtime::Runtime::new().expect("a runtime");
        let config = config.clone();
        let other = dying.spawn(Store::start(config, Arc::new(Metrics::new())));
        let _other = other.await.expect("a task").expect("a store");
        while survivor.duty().iter().all(|mine| *mine) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let began = Instant::now();
        for (n, pool) in (0..).zip(&pools) {
            // In no order, so that those of each partition end all the time.
            let end = began + Duration::from_millis(1_500 + n * 37 % 2_000);
            let left = end.saturating_duration_since(Instant::now()).as_millis();
            let lifetime_ms = u64::try_from(left).ok().map(|left| left.max(1_000));
            let request = AssignRequest {
                lifetime_ms,
                ..AssignRequest::default()
            };
            let AssignOutcome::Granted(offer) =
                survivor.assign(pool, request).await.expect("assign")
            else {
                panic!("nothing to assign");
            };
            let _ = offer.accept();
        }
        tokio::time::sleep_until((began + Duration::from_secs(2)).into()).await;
        dying.shutdown_background();
        tokio::time::sleep_until((began + Duration::from_secs(5)).into()).await;
    }
    let worst = quantile(&metrics, 1.0);
    let name = "ten deaths of the one that swept half: worst lag";
    report.figure(name, format!("≤ {worst} s"));
    report.check(worst <= DEATH_LAG_S_MAX, format!("{name}: {worst} s"));
    survivor.stop().await;
}

/// Leases that end at moments spread over 2 s; the granting replica is one that stops at once.
async fn measure(report: &mut Report, name: &str, url: &str, prefix: &str) {
    let config = config(url, prefix);
    let metrics = Arc::new(Metrics::new());
    let _alive = Store::start(config.clone(), metrics.clone())
        .await
        .expect("a store");
    let granter = Store::start(config, Arc::new(Metrics::new()))
        .await
        .expect("a store");
    let pool = PoolName::parse("lag").expect("a name");
    granter
        .put_pool(&pool, PolicyPatch::default())
        .await
        .expect("PUT");
    let tokens = NewTokens::Generate(usize::try_from(LEASES).expect("a call's worth"));
    granter
        .generate(&pool, GenerateRequest { tokens, key: None })
        .await
        .expect("generate");
    for n in 0..LEASES {
        let request = AssignRequest {
            lifetime_ms: Some(1_500 + n % 2_000),
            ..AssignRequest::default()
        };
        let AssignOutcome::Granted(offer) = granter.assign(&pool, request).await.expect("assign")
        else {
            panic!("nothing to assign");
        };
        let _ = offer.accept();
    }
    granter.stop().await;
    let until = Instant::now() + Duration::from_secs(BACK_S_MAX);
    let lag = metrics.release_lag.with_label_values(&["lag"]);
    while lag.get_sample_count() < LEASES && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seen = lag.get_sample_count();
    let (p50, p99) = (quantile(&metrics, 0.5), quantile(&metrics, 0.99));
    report.figure(
        name,
        format!("{seen} of {LEASES} back, p50 ≤ {p50} s, p99 ≤ {p99} s"),
    );
    report.check(seen == LEASES, format!("{name}: leases did not come back"));
    report.check(
        p99 <= LAG_S_MAX,
        format!("{name}: p99 is above the objective"),
    );
}

/// The upper bound of the bucket in which the quantile lies, of all pools together.
pub fn quantile(metrics: &Metrics, q: f64) -> f64 {
    let text = metrics.render();
    let bucket = |line: &str| -> Option<(f64, f64)> {
        let rest = line.strip_prefix("tokend_release_lag_seconds_bucket")?;
        let bound = rest.split("le=\"").nth(1)?.split('"').next()?;
        Some((
            bound.parse().unwrap_or(f64::INFINITY),
            rest.rsplit(' ').next()?.parse().ok()?,
        ))
    };
    let mut buckets: Vec<(f64, f64)> = text.lines().filter_map(bucket).collect();
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    let counts = buckets.chunk_by(|one, other| one.0.to_bits() == other.0.to_bits());
    let sums = counts.map(|of| (of[0].0, of.iter().map(|(_, count)| count).sum::<f64>()));
    let sums: Vec<_> = sums.collect();
    let total = sums.last().map_or(0.0, |(_, count)| *count);
    let reached = sums.iter().find(|(_, count)| *count >= q * total);
    reached.map_or(f64::INFINITY, |(bound, _)| *bound)
}
