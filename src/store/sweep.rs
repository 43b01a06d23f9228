//! `sweep`: settle what has fallen due. See `lua/sweep.lua`.
//!
//! One task per partition. It sleeps until the partition's next deadline, as Redis last told it, or until
//! the doorbell rings, and never longer than the floor: since no duration is under 1 s, no deadline meets
//! a replica unannounced, even with every event lost.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, trace};

use super::Inner;
use super::shard::number;
use crate::token::StoreError;

/// Most entries that one call settles: about 5 ms of Redis, so that other callers never wait long.
const SWEEP_ENTRIES_MAX: u64 = 1_000;
/// Longest that a replica goes without asking Redis what falls due next.
const FLOOR_MS: u64 = 500;
/// A little of chance before a timer acts, so that replicas do not act in one instant. The one that
/// acts first rings for the others.
const JITTER_MS: u64 = 30;
/// Pause after a failed call: Redis is away, and each second counts when it is back.
const RETRY_MS: u64 = 100;

/// What made a sweep happen: the label of `tokend_sweeps_total`.
#[derive(Clone, Copy)]
enum Trigger {
    Event,
    Timer,
}

impl Trigger {
    fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Timer => "timer",
        }
    }
}

/// Starts a task for each partition; `bells[n]` wakes the n-th. They end when the store stops.
pub(super) fn start(inner: &Arc<Inner>, bells: &[Arc<Notify>]) {
    for (partition, bell) in bells.iter().enumerate() {
        let (inner, bell) = (inner.clone(), bell.clone());
        tokio::spawn(async move { keep_sweeping(&inner, partition, &bell).await });
    }
}

async fn keep_sweeping(inner: &Inner, partition: usize, bell: &Notify) {
    let mut wait = Duration::ZERO;
    while !inner.redis.stopping() {
        let until = Instant::now() + wait;
        // One sweep for however many rings: Notify keeps at most one.
        let trigger = tokio::select! {
            () = bell.notified() => Trigger::Event,
            () = tokio::time::sleep_until(until) => Trigger::Timer,
        };
        wait = match sweep(inner, partition, trigger).await {
            Ok(wait) => wait,
            Err(error) => {
                debug!(partition, %error, "sweep failed");
                Duration::from_millis(RETRY_MS)
            }
        };
    }
}

/// One bounded call. Returns how long nothing more can be due.
async fn sweep(inner: &Inner, partition: usize, trigger: Trigger) -> Result<Duration, StoreError> {
    if !inner.prepared() {
        return Ok(Duration::from_millis(RETRY_MS));
    }
    let args = vec![number(SWEEP_ENTRIES_MAX)];
    let answer = inner
        .call_partition(&inner.scripts.sweep, partition, args)
        .await?;
    inner
        .metrics
        .sweeps
        .with_label_values(&[trigger.as_str()])
        .inc();
    inner.metrics.settled(&answer.settled_lags());
    let (now, next) = (answer.now_ms, answer.next_turn_ms);
    let mut reply = answer.only()?;
    if reply.tag != "swept" {
        return reply.unknown();
    }
    let (entries, more) = (reply.int()?, reply.int()? > 0);
    trace!(
        partition,
        entries,
        more,
        trigger = trigger.as_str(),
        "swept"
    );
    if more {
        return Ok(Duration::ZERO);
    }
    let floor = FLOOR_MS - rand::rng().random_range(0..FLOOR_MS / 5);
    let due = next.map_or(floor, |at| {
        at.saturating_sub(now) + rand::rng().random_range(0..JITTER_MS)
    });
    Ok(Duration::from_millis(due.clamp(1, floor)))
}
