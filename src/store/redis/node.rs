//! One primary: its connections, kept up for ever, and whether it can be used just now.
//!
//! Each primary has clients of its own, so one that is away, frozen or slow holds up nobody who asks another.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fred::clients::{Client, SubscriberClient};
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::config::{Config, ReconnectPolicy, ServerConfig, UnresponsiveConfig};
use fred::types::{Builder, config::Server};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use super::commit::Commits;
use super::{CALL_MS_MAX, CONNECT_MS_MAX, in_words};
use crate::store::{Durability, StartError};

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
/// Longest that a primary that seems away may take to say that it is not.
const PROBE_MS_MAX: u64 = 300;
/// How often it is asked.
const PROBE_PAUSE: Duration = Duration::from_millis(50);

/// A primary. Lives as long as the topology names it.
pub(in crate::store) struct Node {
    /// The socket's path where it has no port.
    pub server: Server,
    client: Client,
    subscriber: SubscriberClient,
    commits: Option<Commits>,
    born: Instant,
    /// Looked at since its last connection: the right version, a primary, our data set.
    prepared: AtomicBool,
    refuses_writes: AtomicBool,
    /// Milliseconds since `born` at which it was found to be away; 0 while it is there. The circuit: it is open
    /// for as long as this stands.
    away_ms: AtomicU64,
    found_away: Notify,
    /// Tells who watches the topology to look at once.
    look: Arc<Notify>,
    ended: watch::Sender<bool>,
    /// Whether it is to be a node of a cluster.
    pub of_cluster: bool,
    last_error: Mutex<Option<String>>,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.server)
    }
}

/// A client's builder with the settings that hold under failure.
pub(super) fn builder(config: Config) -> Builder {
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
    builder
}

impl Node {
    /// Begins to connect; returns at once.
    pub fn start(
        config: Config,
        of_cluster: bool,
        durability: Durability,
        look: Arc<Notify>,
    ) -> Result<Arc<Self>, StartError> {
        let server = match &config.server {
            ServerConfig::Unix { path } => Server::new(path.to_string_lossy().into_owned(), 0),
            other => other
                .hosts()
                .into_iter()
                .next()
                .unwrap_or_else(|| Server::new("", 0)),
        };
        let failed =
            |error: fred::error::Error| StartError(format!("REDIS_URL: {}", error.details()));
        let builder = builder(config);
        let commits = match durability {
            Durability::Memory => None,
            Durability::Replicated {
                replicas,
                timeout_ms,
            } => {
                let client = builder.build().map_err(failed)?;
                Some(Commits::new(client, replicas, timeout_ms))
            }
        };
        let node = Arc::new(Self {
            server,
            client: builder.build().map_err(failed)?,
            subscriber: builder.build_subscriber_client().map_err(failed)?,
            commits,
            born: Instant::now(),
            prepared: AtomicBool::new(false),
            refuses_writes: AtomicBool::new(false),
            away_ms: AtomicU64::new(0),
            found_away: Notify::new(),
            look,
            ended: watch::Sender::new(false),
            of_cluster,
            last_error: Mutex::default(),
        });
        keep_connected(node.client.clone(), node.ended.subscribe());
        if let Some(commits) = &node.commits {
            keep_connected(commits.client().clone(), node.ended.subscribe());
        }
        tokio::spawn(node.clone().keep_probed());
        tokio::spawn(node.clone().note_errors());
        Ok(node)
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Hears events; a connection that subscribes can do nothing else. It is at rest until
    /// [`Node::start_listening`].
    pub fn subscriber(&self) -> &SubscriberClient {
        &self.subscriber
    }

    pub fn start_listening(&self) {
        keep_connected(self.subscriber.clone(), self.ended.subscribe());
    }

    /// Where calls go that are to be confirmed by replicas.
    pub fn commits(&self) -> Option<&Commits> {
        self.commits.as_ref()
    }

    pub fn is_connected(&self) -> bool {
        let commits = self.commits.as_ref();
        self.client.is_connected() && commits.is_none_or(|commits| commits.client().is_connected())
    }

    /// Whether a call may be sent now.
    pub fn is_usable(&self) -> bool {
        if !self.is_connected() {
            self.note_away();
            return false;
        }
        self.away_ms.load(Ordering::Acquire) == 0
            && self.prepared.load(Ordering::Acquire)
            && !self.has_ended()
    }

    /// Whether it refuses what is written, though it can be asked.
    pub fn refuses_writes(&self) -> bool {
        self.refuses_writes.load(Ordering::Acquire)
    }

    pub fn set_refuses_writes(&self, refuses: bool) {
        self.refuses_writes.store(refuses, Ordering::Release);
    }

    pub fn set_prepared(&self, prepared: bool) {
        self.prepared.store(prepared, Ordering::Release);
    }

    fn now_ms(&self) -> u64 {
        // Never 0, which means that it is there.
        u64::try_from(self.born.elapsed().as_millis()).map_or(u64::MAX, |ms| ms + 1)
    }

    /// It did not answer, or has no connection: from now on callers are turned away as soon as it has been away
    /// for longer than a request may wait, until it answers again.
    pub fn note_away(&self) {
        let now = self.now_ms();
        let opened = self
            .away_ms
            .compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire);
        if opened.is_ok() {
            self.found_away.notify_one();
            self.look.notify_one();
        }
    }

    /// For how long it has been away.
    pub fn away_for(&self) -> Option<Duration> {
        let away_ms = self.away_ms.load(Ordering::Acquire);
        (away_ms > 0).then(|| Duration::from_millis(self.now_ms().saturating_sub(away_ms)))
    }

    /// What went wrong last, for whoever gives up waiting for it.
    pub fn last_error(&self) -> Option<String> {
        let last = self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }

    pub fn note_error(&self, error: &str) {
        let mut last = self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = Some(error.to_owned());
    }

    pub fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Ends with the node: what its tasks wait for besides their work.
    pub fn end(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    /// Asks a primary that seems away until it answers, and leaves connections that do not.
    async fn keep_probed(self: Arc<Self>) {
        let mut ended = self.ended.subscribe();
        let mut forced: Option<Instant> = None;
        loop {
            tokio::select! {
                () = self.found_away.notified() => {}
                () = end_of(&mut ended) => return,
            }
            while !self.has_ended() {
                if self.answers().await {
                    self.away_ms.store(0, Ordering::Release);
                    debug!(node = %self, "answers");
                    break;
                }
                let due =
                    forced.is_none_or(|at| at.elapsed() >= Duration::from_millis(WATCHDOG_MS));
                if self.is_connected() && due {
                    warn!(node = %self, "Redis does not answer in time: connecting again");
                    forced = Some(Instant::now());
                    self.force_reconnection();
                }
                self.look.notify_one();
                tokio::time::sleep(PROBE_PAUSE).await;
            }
        }
    }

    /// Keeps what the connection said last, such as that the password is wrong.
    async fn note_errors(self: Arc<Self>) {
        let mut errors = self.client.error_rx();
        let mut ended = self.ended.subscribe();
        loop {
            let error = tokio::select! {
                error = errors.recv() => error,
                () = end_of(&mut ended) => return,
            };
            match error {
                Ok((error, _)) => self.note_error(&in_words(&error)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn answers(&self) -> bool {
        if !self.is_connected() {
            return false;
        }
        let limit = Duration::from_millis(PROBE_MS_MAX);
        let ping = async {
            self.client.ping::<()>(None).await?;
            match &self.commits {
                Some(commits) => commits.client().ping::<()>(None).await,
                None => Ok(()),
            }
        };
        matches!(tokio::time::timeout(limit, ping).await, Ok(Ok(())))
    }

    fn force_reconnection(&self) {
        let commits = self
            .commits
            .as_ref()
            .map(|commits| commits.client().clone());
        for client in std::iter::once(self.client.clone()).chain(commits) {
            tokio::spawn(async move {
                if let Err(error) = client.force_reconnection().await {
                    debug!(%error, "reconnection");
                }
            });
        }
    }

    /// Ends its tasks, then its connections.
    pub async fn retire(&self) {
        if self.ended.send_replace(true) {
            return;
        }
        info!(node = %self, "left this Redis");
        quit(&self.client).await;
        if let Some(commits) = &self.commits {
            quit(commits.client()).await;
        }
        if self.subscriber.is_connected() {
            quit(&self.subscriber).await;
        }
    }
}

/// Waits for the end of a node, or of the store.
pub(in crate::store) async fn end_of(ended: &mut watch::Receiver<bool>) {
    // That nobody can tell any more is an end too.
    let _ = ended.wait_for(|ended| *ended).await;
}

/// Ends a client. A Redis that is away can't be said goodbye to: bounded, its answer is of no interest.
pub(super) async fn quit<C: ClientLike>(client: &C) {
    let _ = tokio::time::timeout(Duration::from_millis(CONNECT_MS_MAX), client.quit()).await;
}

/// Supervises `connect()`: its task can end by itself (see the client's issue 363), and a client whose
/// task has ended is dead until somebody calls it again.
pub(super) fn keep_connected<C: ClientLike + 'static>(client: C, ended: watch::Receiver<bool>) {
    tokio::spawn(async move {
        while !*ended.borrow() {
            match client.connect().await {
                Ok(Ok(())) => debug!("the Redis connection task ended"),
                Ok(Err(error)) => debug!(%error, "the Redis connection task ended"),
                Err(error) => warn!(%error, "the Redis connection task panicked"),
            }
            tokio::time::sleep(Duration::from_millis(u64::from(RECONNECT_MS))).await;
        }
    });
}
