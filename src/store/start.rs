//! Starting the store, and making a connection ready: again after each reconnection, for the Redis that
//! comes back may be empty, another version, or another data set.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::InfoKind;
use futures_util::future::try_join_all;
use tokio::runtime::Handle;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};

use super::batch::{Batcher, Verb};
use super::keys::Keys;
use super::redis::Redis;
use super::registry::{Registry, ensure_default, ensure_known_flows};
use super::script::{Script, Scripts};
use super::{Batchers, Durability, Inner, Store, events, layout, sweep};
use crate::metrics::Metrics;
use crate::token::{FlowsLimits, Policy, PoolName, StoreError};

/// Longest that starting waits for a Redis that is away; then it goes on in the background, and
/// `/readyz` says so.
const START_MS_MAX: u64 = 2_000;
/// Pause before preparing a connection is tried again.
const PREPARE_RETRY_MS: u64 = 200;
/// How often the copy of the registry is made anew, and deletions that a dead replica left are finished.
const RELOAD_MS: u64 = 5_000;
/// A reason that goes on is told again after this long.
const WARN_AGAIN: Duration = Duration::from_secs(30);
/// First Redis that knows `#!lua` flags and EXPIRE NX.
const REDIS_MAJOR_MIN: u32 = 7;

/// How to reach Redis and where our keys lie in it.
#[derive(Clone)]
pub struct StoreConfig {
    /// `redis://`, `rediss://` or `redis+unix://`. May hold a password: never printed.
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

/// How far preparing has come.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    Waiting,
    Ready,
    Refused(StartError),
}

impl Store {
    /// Connects, loads the scripts, checks the layout, makes `default`, starts the sweeper. Waits
    /// `START_MS_MAX` at most for a Redis that is away, then goes on in the background.
    ///
    /// # Errors
    /// Where waiting can't help: a bad URL, another number of partitions, a Redis that is too old.
    pub async fn start(config: StoreConfig, metrics: Arc<Metrics>) -> Result<Self, StartError> {
        let inner = assemble(config, metrics)?;
        inner.redis.keep_connected(inner.subscriber.clone());
        warn_of_errors(inner.redis.client());
        let bells: Vec<_> = inner
            .keys
            .partitions
            .iter()
            .map(|_| Arc::new(Notify::new()))
            .collect();
        sweep::start(&inner, &bells);
        events::listen(&inner, bells);
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
        let inner = assemble(config, Arc::new(Metrics::new()))?;
        let limit = Duration::from_millis(START_MS_MAX);
        let away = |why: &dyn std::fmt::Display| StartError(format!("Redis is away: {why}"));
        let mut errors = inner.redis.client().error_rx();
        let connected = inner.redis.connected_within(limit).await;
        let checked = if connected {
            check_version(&inner).await
        } else {
            let why = errors.try_recv().map(|(error, _)| error.to_string());
            let why = why.unwrap_or_else(|_| "no answer".to_owned());
            Err(Failure::Refused(away(&why)))
        };
        inner.prepared.store(true, Ordering::Release);
        let store = Self { inner };
        match checked {
            Ok(()) => Ok(store),
            Err(failure) => {
                store.stop().await;
                Err(match failure {
                    Failure::Refused(why) => why,
                    Failure::Away(error) => away(&error),
                })
            }
        }
    }
}

/// All parts, at rest but for the connection.
fn assemble(config: StoreConfig, metrics: Arc<Metrics>) -> Result<Arc<Inner>, StartError> {
    let keys = Keys::new(&config.key_prefix, config.partitions);
    let scripts = Scripts::new();
    let redis = Arc::new(Redis::start(&config.url, metrics.clone())?);
    Ok(Arc::new(Inner {
        batchers: Batchers {
            assign: batchers(&scripts.assign, &keys, &redis, &metrics),
            delete: batchers(&scripts.delete, &keys, &redis, &metrics),
            exchange: batchers(&scripts.exchange, &keys, &redis, &metrics),
            generate: batchers(&scripts.generate, &keys, &redis, &metrics),
            inspect: batchers(&scripts.inspect, &keys, &redis, &metrics),
            keep_alive: batchers(&scripts.keep_alive, &keys, &redis, &metrics),
            unblock: batchers(&scripts.unblock, &keys, &redis, &metrics),
        },
        config,
        keys,
        scripts,
        subscriber: redis.subscriber()?,
        redis,
        registry: Registry::default(),
        catching_up: tokio::sync::Mutex::default(),
        metrics,
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

/// Prepares each new connection, for as long as it takes.
fn keep_prepared(inner: Arc<Inner>) -> watch::Receiver<Progress> {
    let (tell, progress) = watch::channel(Progress::Waiting);
    let mut connections = inner.redis.client().reconnect_rx();
    tokio::spawn(async move {
        let mut again = false;
        let mut reason = Reason::default();
        loop {
            while !inner.redis.stopping() {
                match prepare(&inner, again).await {
                    Ok(()) => {
                        inner.prepared.store(true, Ordering::Release);
                        tell.send_replace(Progress::Ready);
                        info!(again, "connected to Redis");
                        if !again {
                            let _ = connections.try_recv(); // this connection's own event
                        }
                        break;
                    }
                    Err(Failure::Refused(why)) => {
                        inner.prepared.store(false, Ordering::Release);
                        error!(%why, "this Redis can't be used");
                        tell.send_replace(Progress::Refused(why));
                        tokio::time::sleep(Duration::from_millis(RELOAD_MS)).await;
                    }
                    Err(Failure::Away(error)) => {
                        // While it is away, `warn_of_errors` tells why.
                        if inner.redis.client().is_connected() && reason.is_new(&error.to_string())
                        {
                            warn!("Redis is not ready for us: {error}");
                        }
                        tokio::time::sleep(Duration::from_millis(PREPARE_RETRY_MS)).await;
                    }
                }
            }
            // Missed connections are fine: the one that matters is the one there is now.
            if inner.redis.stopping() || matches!(connections.recv().await, Err(RecvError::Closed))
            {
                return;
            }
            // What comes back may be another Redis: nothing is sent until it has been looked at.
            inner.prepared.store(false, Ordering::Release);
            again = true;
        }
    });
    progress
}

enum Failure {
    /// Waiting can't help.
    Refused(StartError),
    /// Redis is away, or does not know what it wants yet.
    Away(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Away(error)
    }
}

/// The scripts need what older ones do not have.
async fn check_version(inner: &Inner) -> Result<(), Failure> {
    let info: String = inner
        .read(inner.redis.client().info(Some(InfoKind::Server)))
        .await?;
    let major = redis_major(&info);
    if major.is_some_and(|major| major < REDIS_MAJOR_MIN) {
        let told =
            format!("this Redis is too old: it must be {REDIS_MAJOR_MIN}.0 or newer, or Valkey");
        return Err(Failure::Refused(StartError(told)));
    }
    Ok(())
}

async fn prepare(inner: &Inner, again: bool) -> Result<(), Failure> {
    check_version(inner).await?;
    let loads = inner.scripts.all().into_iter().map(|s| inner.redis.load(s));
    inner.read(try_join_all(loads)).await?;
    let (theirs, ours) = (
        layout::layout(inner).await?,
        inner.keys.partitions.len() as u64,
    );
    if theirs != ours {
        let told = format!(
            "PARTITIONS is {ours}, but this data set was made with {theirs}: set PARTITIONS={theirs}, or \
             another KEY_PREFIX for a new data set"
        );
        return Err(Failure::Refused(StartError(told)));
    }
    if again {
        // A reconnection is no reason to set our policy over that of a replica that started since.
        let default = PoolName::default_pool();
        inner.registry.refresh(inner, &default).await?;
    } else {
        ensure_default(inner).await?;
        ensure_known_flows(inner).await?;
    }
    Ok(())
}

/// The major version that INFO tells; a Valkey tells the Redis that it is compatible with.
fn redis_major(info: &str) -> Option<u32> {
    info.lines()
        .find_map(|line| line.strip_prefix("redis_version:"))
        .and_then(|version| version.split('.').next()?.trim().parse().ok())
}

/// What keeps us from Redis, told once and then now and again while it goes on.
#[derive(Default)]
struct Reason {
    told: String,
    at: Option<Instant>,
}

impl Reason {
    fn is_new(&mut self, reason: &str) -> bool {
        let new = self.told != reason || self.at.is_none_or(|at| at.elapsed() >= WARN_AGAIN);
        if new {
            reason.clone_into(&mut self.told);
            self.at = Some(Instant::now());
        }
        new
    }
}

/// Tells why the connection is away: refused, reset, a wrong password. The client tries for ever and would
/// say nothing.
fn warn_of_errors(client: &Client) {
    let mut errors = client.error_rx();
    tokio::spawn(async move {
        let mut reason = Reason::default();
        loop {
            match errors.recv().await {
                Ok((error, _)) => {
                    let error = error.to_string();
                    if reason.is_new(&error) {
                        warn!("Redis: {error}");
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_info() {
        assert_eq!(redis_major("# Server\r\nredis_version:7.0.15\r\n"), Some(7));
        assert_eq!(redis_major("redis_version:6.2.6\nos:Linux"), Some(6));
        assert_eq!(redis_major("nothing"), None);
    }
}
