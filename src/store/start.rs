//! Starting the store: its parts, and what goes on in the background for as long as it lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tracing::warn;

use super::batch::{Batcher, Verb};
use super::duty::Duty;
use super::keys::{Keys, slot_of};
use super::prepare::{self, Progress, keep_prepared};
use super::redis::{Redis, USABLE_POLL_MS};
use super::registry::Registry;
use super::script::{Script, Scripts};
use super::waiting::Waits;
use super::{Batchers, Diagnosis, Durability, Inner, Shared, Store, checks, sweep};
use crate::metrics::Metrics;
use crate::token::{FlowsLimits, Policy};
use crate::traces::Traces;

/// Longest that starting waits for a Redis that is away; then it goes on in the background, and
/// `/readyz` says so.
const START_MS_MAX: u64 = 2_000;
/// How often the copy of the registry is made anew, and deletions that a dead replica left are finished.
const RELOAD_MS: u64 = 5_000;

/// How to reach Redis and where our keys lie in it.
#[derive(Clone)]
pub struct StoreConfig {
    /// `redis://`, `rediss://`, `redis+unix://`, or with `-sentinel` or `-cluster`. May hold a password: never
    /// printed.
    pub url: String,
    /// First part of every key name; tests use one each. Default `tokend`.
    pub key_prefix: String,
    /// Number of partitions, fixed at first start.
    pub partitions: u32,
    /// The policy of pool `default`.
    pub default_policy: Policy,
    /// The limits of the flows.
    pub flows: FlowsLimits,
    /// When a change counts as done.
    pub durability: Durability,
}

/// Why the store can't start, in one line for whoever starts it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

impl Store {
    /// Connects, loads the scripts, checks the layout, makes `default`, starts the sweeper. Waits
    /// `START_MS_MAX` at most for a Redis that is away, then goes on in the background.
    ///
    /// # Errors
    /// Where waiting can't help: a bad URL, another number of partitions, a Redis that is too old.
    pub async fn start(config: StoreConfig, metrics: Arc<Metrics>) -> Result<Self, StartError> {
        Self::start_shared(config, metrics, Traces::default(), Shared::default()).await
    }

    /// The same. Sweeps are traced there, and the other replicas hear what settings this one has.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_shared(
        config: StoreConfig,
        metrics: Arc<Metrics>,
        traces: Traces,
        shared: Shared,
    ) -> Result<Self, StartError> {
        let inner = assemble(config, metrics, traces, shared)?;
        sweep::start(&inner);
        let mut progress = keep_prepared(inner.clone());
        keep_reloading(inner.clone());
        let limit = Duration::from_millis(START_MS_MAX);
        let first = progress.wait_for(|progress| *progress != Progress::Waiting);
        // Cloned out of its lock, which must not be held while stopping.
        let first = match tokio::time::timeout(limit, first).await {
            Ok(Ok(progress)) => progress.clone(),
            Ok(Err(_)) | Err(_) => Progress::Waiting,
        };
        match first {
            Progress::Ready => {}
            Progress::Refused(why) => {
                Self { inner }.stop().await;
                return Err(why);
            }
            Progress::Waiting => {
                warn!("Redis is not ready yet; requests get 503 until it is");
            }
        }
        Ok(Self { inner })
    }

    /// Connects for the sake of the users alone: no pool is made or changed, nothing is swept.
    ///
    /// # Errors
    /// When Redis does not answer within `START_MS_MAX`, or is too old.
    pub async fn for_users(config: StoreConfig) -> Result<Self, StartError> {
        let inner = at_rest(config, Shared::default())?;
        let limit = Duration::from_millis(START_MS_MAX);
        let slot = slot_of(&inner.keys.users);
        let connected = tokio::time::timeout(limit, prepare::connect_for(&inner, slot)).await;
        inner.prepared.store(true, Ordering::Release);
        let store = Self { inner };
        let why = match connected {
            Ok(Ok(())) => return Ok(store),
            Ok(Err(why)) => why,
            Err(_) => unusable(&store.inner.redis.why_away()),
        };
        store.stop().await;
        Err(why)
    }

    /// Looks at every primary, and changes nothing there. Compares these settings with those of the replicas that run.
    ///
    /// # Errors
    /// When none answers within `START_MS_MAX`, or lets us in.
    pub async fn diagnose(
        config: StoreConfig,
        shared: Shared,
    ) -> Result<Vec<Diagnosis>, StartError> {
        let inner = at_rest(config, shared)?;
        let limit = Duration::from_millis(START_MS_MAX);
        let _ = tokio::time::timeout(limit, all_connected(&inner)).await;
        let nodes = inner.redis.nodes();
        let looks = nodes.iter().map(async |node| {
            let mut found = checks::look_at(&inner, node).await?;
            let others = checks::look_at_replicas(&inner, node).await;
            found.findings.extend(others);
            Ok::<_, String>(found)
        });
        let found = join_all(looks).await;
        let store = Self { inner };
        store.stop().await;
        if found.iter().any(Result::is_ok) {
            let found = found.into_iter().zip(&nodes);
            return Ok(found
                .map(|(found, node)| found.unwrap_or_else(|why| checks::away(node, &why)))
                .collect());
        }
        let of_looks = found.into_iter().find_map(Result::err);
        let why = match of_looks {
            // It was there, and refused what it was asked.
            Some(why) if nodes.iter().any(|node| node.last_error().is_none()) => why,
            _ => store.inner.redis.why_away(),
        };
        Err(unusable(&why))
    }
}

/// Whether it is away, or there and lets nobody in: that is mended elsewhere.
fn unusable(why: &str) -> StartError {
    let said = why.split_once(": ").map_or(why, |(_, said)| said);
    let refused = ["NOAUTH ", "NOPERM ", "WRONGPASS "];
    StartError(if refused.iter().any(|code| said.starts_with(code)) {
        format!("Redis refuses: {said}")
    } else {
        format!("Redis is away: {why}")
    })
}

/// Waits until there are primaries, and a connection to each of them.
async fn all_connected(inner: &Inner) {
    loop {
        let nodes = inner.redis.nodes();
        if !nodes.is_empty() && nodes.iter().all(|node| node.is_connected()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(USABLE_POLL_MS)).await;
    }
}

/// Without metrics and traces, for a command that ends soon.
fn at_rest(config: StoreConfig, shared: Shared) -> Result<Arc<Inner>, StartError> {
    assemble(config, Arc::new(Metrics::new()), Traces::default(), shared)
}

/// All parts, at rest but for the connection.
fn assemble(
    config: StoreConfig,
    metrics: Arc<Metrics>,
    traces: Traces,
    shared: Shared,
) -> Result<Arc<Inner>, StartError> {
    let keys = Keys::new(&config.key_prefix, config.partitions);
    let scripts = Scripts::new();
    let redis = Redis::start(&config.url, config.durability, metrics.clone())?;
    let bells = keys.partitions.iter().map(|_| Arc::default()).collect();
    Ok(Arc::new(Inner {
        batchers: Batchers {
            assign: batchers(&scripts.assign, &keys, &redis, &metrics),
            commit: batchers(&scripts.commit, &keys, &redis, &metrics),
            delete: batchers(&scripts.delete, &keys, &redis, &metrics),
            exchange: batchers(&scripts.exchange, &keys, &redis, &metrics),
            generate: batchers(&scripts.generate, &keys, &redis, &metrics),
            inspect: batchers(&scripts.inspect, &keys, &redis, &metrics),
            keep_alive: batchers(&scripts.keep_alive, &keys, &redis, &metrics),
            reserve: batchers(&scripts.reserve, &keys, &redis, &metrics),
            unblock: batchers(&scripts.unblock, &keys, &redis, &metrics),
            wait: batchers(&scripts.wait, &keys, &redis, &metrics),
        },
        duty: Duty::new(keys.partitions.len()),
        config,
        keys,
        scripts,
        bells,
        redis,
        registry: Registry::default(),
        catching_up: tokio::sync::Mutex::default(),
        waits: Waits::default(),
        shared,
        told: checks::Told::default(),
        metrics,
        traces,
        prepared: AtomicBool::new(false),
        runtime: Handle::current(),
    }))
}

fn batchers<V: Verb>(
    script: &Arc<Script>,
    keys: &Keys,
    redis: &Arc<Redis>,
    metrics: &Arc<Metrics>,
) -> Vec<Arc<Batcher<V>>> {
    let each = keys.partitions.iter();
    each.map(|p| Batcher::new(script.clone(), p.clone(), redis.clone(), metrics.clone()))
        .collect()
}

fn keep_reloading(inner: Arc<Inner>) {
    tokio::spawn(async move {
        while !inner.redis.stopping() {
            tokio::time::sleep(Duration::from_millis(RELOAD_MS)).await;
            if inner.prepared()
                && let Err(error) = inner.registry.reload(&inner).await
            {
                tracing::debug!(%error, "reading the registry");
            }
        }
    });
}
