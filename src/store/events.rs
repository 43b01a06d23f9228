//! The doorbell: Redis tells every replica when a partition's alarm key expires.
//!
//! An event is a hint and never the truth: Redis sends it when it happens to delete the key, only to who
//! is connected. The timer in `sweep.rs` does without it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::SubscriberClient;
use fred::interfaces::{ClientLike, ConfigInterface, EventInterface, PubsubInterface};
use fred::types::MessageKind;
use futures_util::future::try_join_all;
use tokio::sync::broadcast::error::RecvError;
use tracing::{debug, info, warn};

use super::Inner;
use super::redis::{Node, end_of};

/// How often a connection that stands subscribes again: a refusal, or a Redis that froze just then, must
/// not leave a replica deaf for good.
const SUBSCRIBE_AGAIN: Duration = Duration::from_secs(5);

/// Where the rings are heard.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Channels {
    /// One channel per alarm key: nobody else's expiries reach us.
    Alarms,
    /// Every expired key of the database, where only those events can be had.
    Everything,
}

/// Makes sure that Redis sends events of expired keys: `K`, events by key, and `x`, expired ones. Adds to
/// the flags that are set, which others may rely on. Done on each new connection, for a restarted Redis
/// has forgotten what CONFIG SET said.
async fn turn_on(client: &SubscriberClient) -> Channels {
    const SETTING: &str = "notify-keyspace-events";
    let flags: Result<HashMap<String, String>, _> = client.config_get(SETTING).await;
    let flags = match flags {
        Ok(flags) => flags.get(SETTING).cloned().unwrap_or_default(),
        Err(error) => {
            info!(%error, "CONFIG is refused: unless {SETTING} has Kx or Ex, replicas run on their timers");
            return Channels::Everything;
        }
    };
    let expired = flags.contains('x') || flags.contains('A');
    if flags.contains('K') && expired {
        return Channels::Alarms;
    }
    match client.config_set(SETTING, format!("{flags}Kx")).await {
        Ok(()) => {
            debug!(before = flags, "turned on {SETTING} Kx");
            Channels::Alarms
        }
        Err(error) => {
            info!(%error, flags, "CONFIG SET {SETTING} is refused: without Kx or Ex, replicas run on their timers");
            Channels::Everything
        }
    }
}

/// Listens to one primary for as long as it is one, and rings a partition's bell when its alarm expires.
/// Subscribes again on every new connection.
///
/// Events of expired keys come only from the node that has the key, so each primary is listened to; one that does
/// not have an alarm never tells of it.
pub(super) fn listen(inner: &Arc<Inner>, node: &Arc<Node>) {
    let alarms = inner.keys.partitions.iter().map(|p| p.alarm.clone());
    let by_alarm: HashMap<_, _> = alarms.zip(inner.bells.iter().cloned()).collect();
    // This channel never reports a lag that matters: bells keep one ring each, however many are missed.
    let mut events = node.subscriber().keyspace_event_rx();
    tokio::spawn(subscribe_on_connection(inner.clone(), node.clone()));
    tokio::spawn(hear_wakes(inner.clone(), node.clone()));
    node.start_listening();
    let mut end = node.end();
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = end_of(&mut end) => return,
            };
            match event {
                Ok(event) if event.operation == "expired" => {
                    let key = event.key.as_str().unwrap_or_default();
                    if let Some(bell) = by_alarm.get(key) {
                        bell.notify_one();
                    }
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    });
}

/// Wakes the waiters that a message names. One that is missed costs a waiter a second.
async fn hear_wakes(inner: Arc<Inner>, node: Arc<Node>) {
    let mut messages = node.subscriber().message_rx();
    let mut end = node.end();
    loop {
        let message = tokio::select! {
            message = messages.recv() => message,
            () = end_of(&mut end) => return,
        };
        match message {
            Ok(message) if message.kind == MessageKind::SMessage => {
                let waiters = message.value.as_str().unwrap_or_default();
                inner.waits.wake(&waiters);
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

async fn subscribe_on_connection(inner: Arc<Inner>, node: Arc<Node>) {
    let subscriber = node.subscriber();
    let mut connections = subscriber.reconnect_rx();
    let mut end = node.end();
    let mut channels = Vec::new();
    if subscriber.is_connected() {
        channels = subscribe(&inner, &node).await;
    }
    loop {
        let connection = tokio::select! {
            connection = tokio::time::timeout(SUBSCRIBE_AGAIN, connections.recv()) => connection,
            () = end_of(&mut end) => return,
        };
        match connection {
            Ok(Ok(_) | Err(RecvError::Lagged(_))) => {
                channels = subscribe(&inner, &node).await;
            }
            Ok(Err(RecvError::Closed)) => return,
            // The client says that all is well even where Redis refused, so ask again: who listens
            // already loses nothing.
            Err(_) if subscriber.is_connected() && !channels.is_empty() => {
                let again = subscriber.subscribe(channels.clone()).await;
                let wakes = subscribe_wakes(&inner, &node).await;
                debug!(refused = again.and(wakes).is_err(), "subscribed again");
            }
            Err(_) => {}
        }
    }
}

/// Returns the channels.
async fn subscribe(inner: &Inner, node: &Arc<Node>) -> Vec<String> {
    let subscriber = node.subscriber();
    let database = inner.redis.database();
    let channels: Vec<String> = match turn_on(subscriber).await {
        Channels::Alarms => {
            let partitions = inner.keys.partitions.iter();
            let channel = |alarm: &str| format!("__keyspace@{database}__:{alarm}");
            partitions.map(|p| channel(&p.alarm)).collect()
        }
        Channels::Everything => vec![format!("__keyevent@{database}__:expired")],
    };
    if let Err(error) = subscriber.subscribe(channels.clone()).await {
        warn!(%error, "can't subscribe to expiry events: this replica runs on its timer meanwhile");
    }
    if let Err(error) = subscribe_wakes(inner, node).await {
        warn!(%error, "can't subscribe to wakes: who waits on this replica asks every second meanwhile");
    }
    channels
}

/// Sharded channels: those whose slots this primary has, one a command, for a Cluster takes channels of one slot at a
/// time.
async fn subscribe_wakes(inner: &Inner, node: &Arc<Node>) -> Result<(), fred::error::Error> {
    let partitions = inner.keys.partitions.iter();
    let here = partitions.filter(|p| inner.redis.owns(node, p.slot));
    let each = here.map(|p| node.subscriber().ssubscribe(p.wakes.as_str()));
    try_join_all(each).await.map(|_| ())
}
