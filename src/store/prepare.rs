//! Making a primary ready: again after each reconnection, for the Redis that comes back may be empty, another
//! version, a replica, or another data set. Nothing is sent to it before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fred::interfaces::{ClientLike, EventInterface};
use futures_util::future::try_join_all;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::keys::slot_of;
use super::redis::{Node, call_on, classify, end_of, in_words, load};
use super::registry::{ensure_default, ensure_known_flows};
use super::reply::Answer;
use super::{Inner, StartError, checks, events, layout, writes};
use crate::token::{PoolName, StoreError};

/// Pause before preparing a connection is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// The same while there is no connection: it is prepared as soon as it is there.
const CONNECTION_POLL: Duration = Duration::from_millis(10);
/// Pause before a Redis that can't be used is looked at again.
const REFUSED_RETRY: Duration = Duration::from_secs(5);
/// How often a primary that is in use is asked whether the data set is still ours, and whether it takes writes.
const LOOK: Duration = Duration::from_secs(5);
/// A reason that goes on is told again after this long.
const WARN_AGAIN: Duration = Duration::from_secs(30);

/// How far preparing has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    Waiting,
    Ready,
    Refused(StartError),
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

/// What is done once, whichever primary is prepared first.
#[derive(Default)]
struct Once {
    default_made: AtomicBool,
}

/// Prepares each primary that becomes known, and listens to it, until the stop. `Ready` once the first requests
/// can be answered.
pub(super) fn keep_prepared(inner: Arc<Inner>) -> watch::Receiver<Progress> {
    let (tell, progress) = watch::channel(Progress::Waiting);
    let tell = Arc::new(tell);
    let once = Arc::new(Once::default());
    let mut announced = inner.redis.announced();
    tokio::spawn(async move {
        let mut stop = inner.redis.stop_signal();
        while let Some(nodes) = &mut announced {
            let node = tokio::select! {
                node = nodes.recv() => node,
                () = end_of(&mut stop) => return,
            };
            let Some(node) = node else { return };
            warn_of_errors(node.clone());
            events::listen(&inner, &node);
            let (inner, tell, once) = (inner.clone(), tell.clone(), once.clone());
            tokio::spawn(async move { keep_node_prepared(&inner, &node, &tell, &once).await });
        }
    });
    progress
}

async fn keep_node_prepared(
    inner: &Arc<Inner>,
    node: &Arc<Node>,
    tell: &watch::Sender<Progress>,
    once: &Once,
) {
    let mut connections = node.client().reconnect_rx();
    let mut errors = node.client().error_rx();
    let mut end = node.end();
    let mut reason = Reason::default();
    while !node.has_ended() {
        // What has been so far is of no interest; what happens from here on makes it look again.
        while connections.try_recv().is_ok() || errors.try_recv().is_ok() {}
        let prepared = tokio::select! {
            prepared = prepare(inner, node) => prepared,
            () = end_of(&mut end) => return,
        };
        match prepared {
            Ok(()) => {
                node.set_prepared(true);
                info!(%node, "connected to Redis");
                look_closely(inner.clone(), node.clone());
                settle_in(inner, node, once).await;
                if inner.prepared() {
                    tell.send_replace(Progress::Ready);
                }
                // Missed ones are fine: the connection that matters is the one there is now.
                tokio::select! {
                    connection = connections.recv() => if matches!(connection, Err(RecvError::Closed)) { return },
                    error = errors.recv() => if matches!(error, Err(RecvError::Closed)) { return },
                    () = until_refused(inner, node) => {}
                    () = end_of(&mut end) => return,
                }
                // What comes back may be another Redis: nothing is sent until it has been looked at.
                node.set_prepared(false);
            }
            Err(Failure::Refused(why)) => {
                inner.prepared.store(false, Ordering::Release);
                error!(%node, %why, "this Redis can't be used");
                tell.send_replace(Progress::Refused(why));
                tokio::time::sleep(REFUSED_RETRY).await;
            }
            Err(Failure::Away(error)) => {
                let connected = node.client().is_connected();
                // While it is away, `warn_of_errors` tells why.
                if connected && reason.is_new(&error.to_string()) {
                    warn!(%node, "Redis is not ready for us: {error}");
                }
                let pause = if connected { RETRY } else { CONNECTION_POLL };
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Looks at all that could be better, and tells the log. Nobody waits for it: it may ask replicas that do not answer.
fn look_closely(inner: Arc<Inner>, node: Arc<Node>) {
    tokio::spawn(async move {
        match checks::look_at(&inner, &node).await {
            Ok(diagnosis) => inner.told.tell(&diagnosis),
            Err(error) => debug!(%node, %error, "looking at Redis"),
        }
    });
}

/// All that must be so before a call is sent to it.
async fn prepare(inner: &Inner, node: &Arc<Node>) -> Result<(), Failure> {
    if !node.is_connected() {
        let away = StoreError::Unavailable("not connected to Redis".to_owned());
        return Err(Failure::Away(away));
    }
    check_server(node, !inner.prepared()).await?;
    let loads = inner
        .scripts
        .all()
        .into_iter()
        .map(|script| load(node, script));
    try_join_all(loads).await.map_err(|error| away(&error))?;
    if inner.redis.owns(node, slot_of(&inner.keys.layout)) {
        agree_on_layout(inner, node).await?;
    }
    Ok(())
}

fn away(error: &fred::error::Error) -> Failure {
    Failure::Away(StoreError::Unavailable(in_words(error)))
}

/// It is new enough for the scripts, of the kind that the URL says, and a primary.
async fn check_server(node: &Node, starting: bool) -> Result<(), Failure> {
    let info: String = node
        .client()
        .info(None)
        .await
        .map_err(|error| away(&error))?;
    let refused = |why: String| Err(Failure::Refused(StartError(why)));
    if let Some(finding) = checks::refusal(&info, starting) {
        return refused(format!("this Redis can't be used: {finding}"));
    }
    let clustered = field(&info, "cluster_enabled") == Some("1");
    if clustered && !node.of_cluster {
        let why = "this is a node of a Redis Cluster: write redis-cluster:// in REDIS_URL";
        return refused(why.to_owned());
    }
    if field(&info, "role").is_some_and(|role| role != "master") {
        let replica = "this Redis is a replica, and only its primary takes writes";
        return Err(Failure::Away(StoreError::Unavailable(replica.to_owned())));
    }
    Ok(())
}

/// Waits until the primary is none for us any more. The data set may move to another key schema while we run, and
/// grants on both sides would overlap; or it has become a replica, or forbids us everything. Where it refuses writes
/// alone, what is read is still good, and the metrics tell.
async fn until_refused(inner: &Inner, node: &Arc<Node>) {
    let mut reason = Reason::default();
    loop {
        let refusal = writes::refusal(inner, node).await;
        node.set_refuses_writes(refusal.is_some());
        if let Some(refusal) = refusal {
            if reason.is_new(&refusal.why) {
                warn!(%node, "Redis refuses writes: {}", refusal.why);
            }
            if refusal.of_all {
                return;
            }
        }
        let owned = inner.redis.owns(node, slot_of(&inner.keys.layout));
        if owned && matches!(agree_on_layout(inner, node).await, Err(Failure::Refused(_))) {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn agree_on_layout(inner: &Inner, node: &Node) -> Result<(), Failure> {
    let script = &inner.scripts.layout;
    let (keys, args) = layout::encode(inner);
    let called = call_on(node, script, keys, args).await;
    let (value, _) = called.map_err(|error| classify(script, &error))?;
    match layout::decode(Answer::parse(value)?)?.refusal(inner) {
        Some(why) => Err(Failure::Refused(StartError(why))),
        None => Ok(()),
    }
}

/// Makes `default` and the flows' pools what this environment says, the first time; later only looks that
/// `default` is there: a reconnection is no reason to set our policy over that of a replica that started since.
/// Requests do as much by themselves where this fails.
async fn settle_in(inner: &Inner, node: &Arc<Node>, once: &Once) {
    if !inner.redis.owns(node, slot_of(&inner.keys.layout)) {
        return;
    }
    let settled = if once.default_made.load(Ordering::Acquire) {
        let default = PoolName::default_pool();
        inner.registry.refresh(inner, &default).await.map(drop)
    } else {
        make_default(inner, once).await
    };
    if let Err(error) = settled {
        warn!(%error, "the pool default");
    }
    inner.prepared.store(true, Ordering::Release);
}

/// Again and again where Redis is one: nothing can be done without it. In a cluster other pools may be within reach,
/// and what too few replicas have confirmed is there all the same.
async fn make_default(inner: &Inner, once: &Once) -> Result<(), StoreError> {
    loop {
        let made = async {
            ensure_default(inner).await?;
            ensure_known_flows(inner).await
        };
        match made.await {
            Ok(()) => {
                once.default_made.store(true, Ordering::Release);
                return Ok(());
            }
            Err(error)
                if inner.redis.nodes().len() > 1
                    || inner.redis.stopping()
                    || matches!(error, StoreError::OutcomeUnknown(_)) =>
            {
                return Err(error);
            }
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

/// Waits for the primary of one slot, and looks at no other.
pub(super) async fn connect_for(inner: &Inner, slot: u16) -> Result<(), StartError> {
    loop {
        if let Some(node) = inner.redis.owner(slot).filter(|node| node.is_connected()) {
            match check_server(&node, false).await {
                Ok(()) => {
                    node.set_prepared(true);
                    return Ok(());
                }
                Err(Failure::Refused(why)) => return Err(why),
                Err(Failure::Away(error)) => node.note_error(&error.to_string()),
            }
        }
        tokio::time::sleep(CONNECTION_POLL).await;
    }
}

/// A line of INFO.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = info.lines().filter_map(|line| line.split_once(':'));
    lines.find_map(|(key, value)| (key == name).then(|| value.trim()))
}

/// What keeps us from Redis, told once and then now and again while it goes on.
#[derive(Default)]
pub(super) struct Reason {
    told: String,
    at: Option<Instant>,
}

impl Reason {
    pub fn is_new(&mut self, reason: &str) -> bool {
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
fn warn_of_errors(node: Arc<Node>) {
    let mut errors = node.client().error_rx();
    let mut end = node.end();
    tokio::spawn(async move {
        let mut reason = Reason::default();
        loop {
            let error = tokio::select! {
                error = errors.recv() => error,
                () = end_of(&mut end) => return,
            };
            match error {
                Ok((error, _)) => {
                    let error = in_words(&error);
                    if reason.is_new(&error) {
                        warn!(%node, "Redis: {error}");
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    });
}
