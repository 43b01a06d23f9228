//! The connection: one client that is kept connected for ever, and one way to call a script.
//!
//! **Architecture Invariant:** no script is ever sent twice by the client. It tries each command once
//! and follows no redirection; only what cannot have run is sent again, here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fred::clients::{Client, SubscriberClient};
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, LuaInterface};
use fred::types::Builder;
use fred::types::Value;
use fred::types::config::{Config, ReconnectPolicy, UnresponsiveConfig};
use tracing::{debug, warn};

use super::StartError;
use super::reply::Answer;
use super::script::Script;
use crate::metrics::Metrics;
use crate::token::StoreError;

/// Longest that one call may take before its outcome counts as unknown. With the wait in the queue
/// it keeps every request under 2 s.
pub(super) const CALL_MS_MAX: u64 = 1_000;
/// The client's own limit comes first; this one holds even if its task is stuck.
const CALL_GRACE_MS: u64 = 200;
/// Longest that connecting may take: a loopback needs 1 ms, another continent 300.
const CONNECT_MS_MAX: u64 = 500;
/// Pause between two attempts to connect; a restarted Redis is found within it.
const RECONNECT_MS: u32 = 100;
/// A connection on which nothing has come back for this long is left (a frozen Redis).
const UNRESPONSIVE_MS: u64 = 1_500;
/// How often that is looked at.
const UNRESPONSIVE_CHECK_MS: u64 = 200;
/// Commands waiting inside the client, at most. Ours wait in the batchers, a call per verb and
/// partition at a time, so this is a second net.
const CLIENT_QUEUE_MAX: usize = 10_000;
/// At most one forced reconnection in this time.
const WATCHDOG_MS: u64 = 500;
/// How often to look whether the connection is back.
pub(super) const CONNECTED_POLL_MS: u64 = 10;
/// A script that a restarted or flushed Redis does not know is loaded again, at most so often a call.
const LOADS_MAX: usize = 3;

/// Redis error codes that mean: refused before anything ran.
const REFUSALS: &[&str] = &[
    "ASK",
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOAUTH",
    "NOPERM",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
    "WRONGPASS",
];

/// Whether a URL can be read. Says why not without repeating it: it may hold a password.
///
/// # Errors
/// With the client's word for what is wrong.
pub fn check_url(url: &str) -> Result<(), String> {
    match Config::from_url(url) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.details().to_owned()),
    }
}

pub(super) struct Redis {
    client: Client,
    builder: Builder,
    metrics: Arc<Metrics>,
    stopping: Arc<AtomicBool>,
    born: Instant,
    /// Milliseconds since `born` at which the watchdog last acted.
    watchdog_ms: AtomicU64,
}

impl Redis {
    /// Makes the client and begins to connect; returns at once.
    pub fn start(url: &str, metrics: Arc<Metrics>) -> Result<Self, StartError> {
        let mut config = Config::from_url(url)
            .map_err(|error| StartError(format!("REDIS_URL: {}", error.details())))?;
        config.fail_fast = false;
        let mut policy = ReconnectPolicy::new_constant(0, RECONNECT_MS);
        policy.set_jitter(RECONNECT_MS / 2);
        let mut builder = Builder::from_config(config);
        builder
            .set_policy(policy)
            .with_performance_config(|performance| {
                performance.default_command_timeout = Duration::from_millis(CALL_MS_MAX);
            })
            .with_connection_config(|connection| {
                connection.connection_timeout = Duration::from_millis(CONNECT_MS_MAX);
                connection.internal_command_timeout = Duration::from_millis(CONNECT_MS_MAX);
                connection.max_command_attempts = 1;
                connection.max_redirections = 0;
                connection.max_command_buffer_len = CLIENT_QUEUE_MAX;
                connection.reconnect_on_auth_error = true;
                connection.tcp.nodelay = Some(true);
                connection.unresponsive = UnresponsiveConfig {
                    max_timeout: Some(Duration::from_millis(UNRESPONSIVE_MS)),
                    interval: Duration::from_millis(UNRESPONSIVE_CHECK_MS),
                };
            });
        let client = builder
            .build()
            .map_err(|error| StartError(format!("REDIS_URL: {}", error.details())))?;
        let stopping = Arc::new(AtomicBool::new(false));
        keep_connected(client.clone(), stopping.clone());
        Ok(Self {
            client,
            builder,
            metrics,
            stopping,
            born: Instant::now(),
            watchdog_ms: AtomicU64::new(0),
        })
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A client of its own for events; it is at rest.
    pub fn subscriber(&self) -> Result<SubscriberClient, StartError> {
        let client = self
            .builder
            .build_subscriber_client()
            .map_err(|error| StartError(error.details().to_owned()))?;
        Ok(client)
    }

    /// Connects a client, and keeps it connected until the stop.
    pub fn keep_connected<C: ClientLike + 'static>(&self, client: C) {
        keep_connected(client, self.stopping.clone());
    }

    pub fn database(&self) -> u8 {
        self.builder
            .get_config()
            .and_then(|config| config.database)
            .unwrap_or(0)
    }

    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Waits until connected, `longest` at most. Says whether it is.
    pub async fn connected_within(&self, longest: Duration) -> bool {
        let until = Instant::now() + longest;
        while !self.client.is_connected() {
            if Instant::now() >= until || self.stopping() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(CONNECTED_POLL_MS)).await;
        }
        true
    }

    /// Calls a script. At most [`CALL_MS_MAX`]; never runs it twice.
    pub async fn call(
        &self,
        script: &Script,
        keys: Vec<String>,
        args: Vec<Value>,
    ) -> Result<Answer, StoreError> {
        let began = Instant::now();
        let limit = Duration::from_millis(CALL_MS_MAX + CALL_GRACE_MS);
        let evaluated = tokio::time::timeout(limit, self.evaluate(script, keys, args));
        let result = match evaluated.await {
            Ok(Ok(value)) => Answer::parse(value),
            Ok(Err(error)) => Err(self.classify(script, &error)),
            Err(_) => Err(self.classify(script, &Error::new(ErrorKind::Timeout, "no answer"))),
        };
        self.metrics
            .store_call_duration
            .with_label_values(&[script.name])
            .observe(began.elapsed().as_secs_f64());
        if let Err(error) = &result {
            self.metrics.store_failed(error);
            debug!(script = script.name, %error, "script call failed");
        }
        result
    }

    async fn evaluate(
        &self,
        script: &Script,
        keys: Vec<String>,
        args: Vec<Value>,
    ) -> Result<Value, Error> {
        let mut loads = 0;
        loop {
            let answer = self
                .client
                .evalsha(script.hash.as_str(), keys.clone(), args.clone())
                .await;
            match answer {
                Err(error) if error.details().starts_with("NOSCRIPT") && loads < LOADS_MAX => {
                    loads += 1;
                    self.load(script).await?;
                }
                other => return other,
            }
        }
    }

    pub async fn load(&self, script: &Script) -> Result<(), Error> {
        let _: String = self.client.script_load(script.source.as_str()).await?;
        Ok(())
    }

    /// What became of a call that failed. In doubt it may have run.
    fn classify(&self, script: &Script, error: &Error) -> StoreError {
        let details = error.details();
        let code = details.split_whitespace().next().unwrap_or_default();
        let refused = REFUSALS.contains(&code)
            || code == "NOSCRIPT"
            || details.starts_with("Too many failed write attempts")
            || matches!(
                error.kind(),
                ErrorKind::Backpressure | ErrorKind::Routing | ErrorKind::Auth
            );
        if matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Routing) {
            self.reconnect();
        }
        let told = format!("{}: {error}", script.name);
        if refused || !script.writes {
            StoreError::Unavailable(told)
        } else if matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Parse) {
            StoreError::Protocol(told)
        } else {
            StoreError::OutcomeUnknown(told)
        }
    }

    /// The watchdog: leaves a connection that no longer answers, one at a time.
    fn reconnect(&self) {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        let last = self.watchdog_ms.load(Ordering::Relaxed);
        let due = now.saturating_sub(last) >= WATCHDOG_MS || last == 0;
        let mine = due
            && self
                .watchdog_ms
                .compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if mine && !self.stopping() {
            warn!("Redis does not answer in time: connecting again");
            let client = self.client.clone();
            tokio::spawn(async move {
                if let Err(error) = client.force_reconnection().await {
                    debug!(%error, "reconnection");
                }
            });
        }
    }

    pub async fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        quit(&self.client).await;
    }
}

/// Ends a client, and with it the tasks that listen to its events. A Redis that is away can't be said
/// goodbye to: bounded, its answer is of no interest.
pub(super) async fn quit<C: ClientLike>(client: &C) {
    let _ = tokio::time::timeout(Duration::from_millis(CONNECT_MS_MAX), client.quit()).await;
}

/// Supervises `connect()`: its task can end by itself (see the client's issue 363), and a client whose
/// task has ended is dead until somebody calls it again.
fn keep_connected<C: ClientLike + 'static>(client: C, stopping: Arc<AtomicBool>) {
    tokio::spawn(async move {
        while !stopping.load(Ordering::Relaxed) {
            match client.connect().await {
                Ok(Ok(())) => debug!("the Redis connection task ended"),
                Ok(Err(error)) => debug!(%error, "the Redis connection task ended"),
                Err(error) => warn!(%error, "the Redis connection task panicked"),
            }
            tokio::time::sleep(Duration::from_millis(u64::from(RECONNECT_MS))).await;
        }
    });
}
