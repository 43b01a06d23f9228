//! The way to Redis: which primary serves a slot, and one way to call a script there.
//!
//! `topology.rs` asks who the primaries are and `map.rs` keeps what it was told, `node.rs` keeps the connections to one
//! of them, `call.rs` calls a script there and judges what became of it, `commit.rs` has replicas confirm it, `words.rs` tells
//! people of errors.
//!
//! **Architecture Invariant:** no script is ever sent twice by the client. It tries each command once
//! and follows no redirection; only what cannot have run is sent again, here.

mod call;
mod commit;
mod map;
mod node;
mod topology;
mod words;

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::error::{Error, ErrorKind};

use fred::types::Value;
use fred::types::config::Config;

use tokio::sync::{Notify, mpsc, watch};
use tracing::debug;

pub(super) use self::call::{call_on, classify, code, is_passing, load};
use self::map::Map;
pub(super) use self::node::{Node, end_of};
use self::topology::Deployment;
pub(super) use self::words::in_words;
use super::keys::SLOTS;
use super::reply::Answer;
use super::script::Script;
use super::{Durability, StartError};
use crate::metrics::Metrics;
use crate::token::StoreError;

/// Longest that one call may take before its outcome counts as unknown. With the wait in the queue
/// it keeps every request under 2 s.
pub(super) const CALL_MS_MAX: u64 = 1_000;
/// Longest that connecting may take: a loopback needs 1 ms, another continent 300.
const CONNECT_MS_MAX: u64 = 500;
/// How often to look whether a primary can be used again.
pub(super) const USABLE_POLL_MS: u64 = 10;
/// A primary that has been away for longer than this is not waited for any more: its circuit is open.
const AWAY_MS_MAX: u64 = 700;
/// Longest that what cannot have run is sent again: a slot that moves, a primary that has just been made one.
const RETRY_MS_MAX: u64 = 400;
/// Pause before that.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Why a URL can't be used. Neither repeats it: it may hold a password.
#[derive(Debug, PartialEq, Eq)]
pub enum UrlMistake {
    /// It can't be read, in the client's words.
    Form(String),
    /// It asks for TLS, and nobody is there to judge certificates by.
    Authorities(String),
}

/// Whether a URL can be used.
///
/// # Errors
/// When it can't be read, or its TLS can't be set up.
pub fn check_url(url: &str) -> Result<(), UrlMistake> {
    Config::from_url(url)
        .map(|_| ())
        .map_err(|error| words::mistake(&error))
}

/// Why an answer can't be told.
pub(super) const UNCONFIRMED: &str = "too few replicas have confirmed it";

/// What became of a call.
pub(super) struct Called {
    pub answer: Answer,
    /// Whether as many replicas have it as was promised.
    pub confirmed: bool,
}

/// A word for what went wrong, for a trace.
pub(super) fn error_of(called: &Result<Called, StoreError>) -> Option<&'static str> {
    match called {
        Ok(called) => (!called.confirmed).then_some("unconfirmed"),
        Err(error) => Some(error.kind()),
    }
}

pub(super) struct Redis {
    config: Config,
    durability: Durability,
    map: RwLock<Arc<Map>>,
    metrics: Arc<Metrics>,
    stopping: watch::Sender<bool>,
    born: Instant,
    /// Makes who watches the topology look at once.
    look: Arc<Notify>,
    /// Where new primaries are announced, and the end of that which the store takes.
    announce: mpsc::UnboundedSender<Arc<Node>>,
    announced: Mutex<Option<mpsc::UnboundedReceiver<Arc<Node>>>>,
    /// Why the primaries are not known.
    unknown: Mutex<Option<String>>,
}

impl Redis {
    /// Begins to look for the primaries and to connect to them; returns at once.
    pub fn start(
        url: &str,
        durability: Durability,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, StartError> {
        let failed = |error: Error| StartError(format!("REDIS_URL: {}", error.details()));
        let mut config = Config::from_url(url).map_err(failed)?;
        config.fail_fast = false;
        let deployment = Deployment::of(&config).map_err(failed)?;
        let (announce, announced) = mpsc::unbounded_channel();
        let redis = Arc::new(Self {
            config,
            durability,
            map: RwLock::new(Arc::new(Map {
                nodes: Vec::new(),
                owners: vec![None; usize::from(SLOTS)],
                epoch: 0,
            })),
            metrics,
            stopping: watch::Sender::new(false),
            born: Instant::now(),
            look: Arc::new(Notify::new()),
            announce,
            announced: Mutex::new(Some(announced)),
            unknown: Mutex::default(),
        });
        if let Deployment::Single = deployment {
            let look = redis.look.clone();
            let node = Node::start(redis.config.clone(), false, durability, look)?;
            redis.set_map(vec![node], vec![Some(0); usize::from(SLOTS)], 0);
        } else {
            tokio::spawn(redis.clone().watch_topology(deployment));
        }
        Ok(redis)
    }

    /// Every primary, each when it becomes known. Can be taken once.
    pub fn announced(&self) -> Option<mpsc::UnboundedReceiver<Arc<Node>>> {
        let mut announced = self
            .announced
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        announced.take()
    }

    /// What keeps us from Redis, for whoever gives up: what a primary's connection says, or who could not be asked for
    /// the primaries.
    pub fn why_away(&self) -> String {
        let of_node = self.nodes().iter().find_map(|node| node.last_error());
        let unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        let why = of_node.or_else(|| unknown.clone());
        why.unwrap_or_else(|| "no answer".to_owned())
    }

    /// The primaries that are known now.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.map().nodes.clone()
    }

    fn map(&self) -> Arc<Map> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        map.clone()
    }

    pub fn owns(&self, node: &Node, slot: u16) -> bool {
        let map = self.map();
        let owner = map.owner(slot);
        owner.is_some_and(|owner| std::ptr::eq(Arc::as_ptr(owner), node))
    }

    /// The primary of a slot, usable or not.
    pub fn owner(&self, slot: u16) -> Option<Arc<Node>> {
        self.map().owner(slot).cloned()
    }

    /// Where that is: host and port, or a socket's path and 0.
    pub fn server(&self, slot: u16) -> Option<(String, u16)> {
        let server = &self.owner(slot)?.server;
        Some((server.host.to_string(), server.port))
    }

    pub fn database(&self) -> u8 {
        self.config.database.unwrap_or(0)
    }

    pub fn stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Ends when the store stops.
    pub fn stop_signal(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// How long this replica has been looking for its Redis.
    pub fn age(&self) -> Duration {
        self.born.elapsed()
    }

    /// Waits until the slot's primary can be used, `longest` at most, and not at all for one that has been away
    /// for a while: a crowd must not pile up before it.
    pub async fn usable_within(&self, slot: u16, longest: Duration) -> Option<Arc<Node>> {
        let until = Instant::now() + longest;
        loop {
            let node = self.owner(slot);
            if let Some(node) = node.as_ref().filter(|node| node.is_usable()) {
                return Some(node.clone());
            }
            let away = node.map_or_else(|| self.unknown_for(), |node| node.away_for());
            let given_up = away.is_some_and(|away| away >= Duration::from_millis(AWAY_MS_MAX));
            if given_up || Instant::now() >= until || self.stopping() {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(USABLE_POLL_MS)).await;
        }
    }

    /// Where no primary was ever known: since the start.
    fn unknown_for(&self) -> Option<Duration> {
        self.look.notify_one();
        self.map().nodes.is_empty().then(|| self.age())
    }

    /// Calls a script on the primary of a slot. Never runs it twice.
    pub async fn call(
        &self,
        script: &Script,
        slot: u16,
        keys: Vec<String>,
        args: Vec<Value>,
    ) -> Result<Called, StoreError> {
        let began = Instant::now();
        // Boxed: its size would be every request's.
        let result = Box::pin(self.call_until_run(script, slot, keys, args)).await;
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

    async fn call_until_run(
        &self,
        script: &Script,
        slot: u16,
        keys: Vec<String>,
        args: Vec<Value>,
    ) -> Result<Called, StoreError> {
        let patience = Duration::from_millis(RETRY_MS_MAX);
        let call = |node: Arc<Node>| {
            let (keys, args) = (keys.clone(), args.clone());
            async move { call_on(&node, script, keys, args).await }
        };
        let (value, confirmed) = self
            .until_run(slot, patience, call)
            .await
            .map_err(|error| match error {
                Some(error) => classify(script, &error),
                None => StoreError::Unavailable(format!("{}: its Redis is away", script.name)),
            })?;
        let answer = Answer::parse(value)?;
        Ok(Called { answer, confirmed })
    }

    /// A plain read, on the primary of a slot.
    pub async fn read<T, F>(
        &self,
        slot: u16,
        patience: Duration,
        command: impl Fn(Client) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let read = |node: Arc<Node>| {
            let reading = command(node.client().clone());
            Box::pin(async move {
                let read = reading.await;
                if matches!(&read, Err(error) if *error.kind() == ErrorKind::Timeout) {
                    node.note_away();
                }
                read
            })
        };
        let read = self.until_run(slot, patience, read).await;
        read.map_err(|error| {
            StoreError::Unavailable(match error {
                Some(error) => format!("read: {}", in_words(&error)),
                None => "not connected to Redis".to_owned(),
            })
        })
    }

    /// Asks the primary of a slot, and asks again where what was asked cannot have run, for as long as that may soon be
    /// otherwise. An error of none: there is no primary to ask.
    async fn until_run<T, F>(
        &self,
        slot: u16,
        patience: Duration,
        ask: impl Fn(Arc<Node>) -> F,
    ) -> Result<T, Option<Error>>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let node = self.usable_within(slot, left).await.ok_or(None)?;
            match ask(node).await {
                Err(error) if is_passing(&error) && Instant::now() < until => {
                    self.look.notify_one();
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                asked => return asked.map_err(Some),
            }
        }
    }

    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        for node in self.nodes() {
            node.retire().await;
        }
    }
}
