//! `sweep`: settle what has fallen due. See `lua/sweep.lua`.
//!
//! One task per partition. While the partition is this replica's (`duty.rs`), it sleeps until the partition's next
//! deadline, as Redis last told it, or until the doorbell rings, and never longer than the floor: since no duration
//! is under 1 s, no deadline meets a replica unannounced, even with every event lost.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::RngExt;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, trace};

use super::shard::number;
use super::{Inner, duty, settings};
use crate::token::StoreError;
use crate::traces::{Sent, Swept};

/// Most entries of a call that looks what is due: about 1 ms of Redis, for all partitions may look at once.
const LOOK_ENTRIES_MAX: u64 = 100;
/// Most entries of a call that catches up: about 10 ms of Redis, so that other callers never wait long. A replica
/// makes one such call at a time, whatever the number of its partitions: they would stand before everybody else.
const CATCH_UP_ENTRIES_MAX: u64 = 1_000;
/// Longest that a replica goes without asking Redis what falls due next.
const FLOOR_MS: u64 = 500;
/// A little of chance before a timer acts: replicas that do not know of each other should not act in one instant.
const JITTER_MS: u64 = 30;
/// A ring that comes so soon after a sweep says what the sweep has seen: it was its own look at the alarm that made
/// Redis ring. Less than a tick, and what it could have missed within it the floor finds.
const ECHO_MS: u64 = 50;
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

/// What a sweep found about the next one.
enum Next {
    /// More is due than it was allowed.
    Behind,
    /// Nothing more can be due for so long.
    In(Duration),
}

impl Next {
    fn wait(&self) -> Duration {
        match self {
            Self::Behind => Duration::ZERO,
            Self::In(wait) => *wait,
        }
    }
}

/// Starts a task for each partition, woken by its bell. They end when the store stops.
pub(super) fn start(inner: &Arc<Inner>) {
    for (partition, bell) in inner.bells.iter().enumerate() {
        let (inner, bell) = (inner.clone(), bell.clone());
        tokio::spawn(async move { keep_sweeping(&inner, partition, &bell).await });
    }
    let beating = inner.clone();
    tokio::spawn(async move { duty::keep_beating(&beating).await });
    let comparing = inner.clone();
    tokio::spawn(async move { settings::keep_comparing(&comparing).await });
}

async fn keep_sweeping(inner: &Inner, partition: usize, bell: &Notify) {
    let mut next = Next::In(Duration::ZERO);
    let mut looked = None;
    while !inner.redis.stopping() {
        if !inner.duty.is_mine(partition) {
            inner.duty.until_mine(partition).await;
            // Nobody may have looked since its last owner did.
            next = Next::In(Duration::ZERO);
            continue;
        }
        let trigger = wait(bell, next.wait(), looked).await;
        // Its owner may be another one by now.
        if !inner.duty.is_mine(partition) {
            continue;
        }
        let done = match next {
            Next::Behind => {
                let _turn = inner.catching_up.lock().await;
                sweep(inner, partition, trigger, CATCH_UP_ENTRIES_MAX).await
            }
            Next::In(_) => sweep(inner, partition, trigger, LOOK_ENTRIES_MAX).await,
        };
        inner.duty.swept(partition, done.is_ok());
        looked = done.is_ok().then(Instant::now);
        next = done.unwrap_or_else(|error| {
            debug!(partition, %error, "sweep failed");
            Next::In(Duration::from_millis(RETRY_MS))
        });
    }
}

/// Waits so long, or until the bell rings for another reason than the sweep that has just looked.
async fn wait(bell: &Notify, longest: Duration, looked: Option<Instant>) -> Trigger {
    let until = Instant::now() + longest;
    loop {
        // One sweep for however many rings: Notify keeps at most one.
        tokio::select! {
            () = tokio::time::sleep_until(until) => return Trigger::Timer,
            () = bell.notified() => {}
        }
        if !is_echo(looked, Instant::now()) {
            return Trigger::Event;
        }
    }
}

fn is_echo(looked: Option<Instant>, now: Instant) -> bool {
    let echo = Duration::from_millis(ECHO_MS);
    looked.is_some_and(|looked| now.saturating_duration_since(looked) < echo)
}

/// One bounded call.
async fn sweep(
    inner: &Inner,
    partition: usize,
    trigger: Trigger,
    entries_max: u64,
) -> Result<Next, StoreError> {
    if !inner.prepared() {
        return Ok(Next::In(Duration::from_millis(RETRY_MS)));
    }
    let args = vec![number(entries_max)];
    let since = inner.traces.clock();
    let answer = inner
        .call_partition(&inner.scripts.sweep, partition, args)
        .await;
    let tell = |entries, error| tell(inner, partition, since, trigger, entries, error);
    // What was not sent is no sweep: while Redis is away there would be one every 100 ms.
    if let Err(error) = &answer
        && !matches!(error, StoreError::Unavailable(_))
    {
        tell(0, Some(error.kind()));
    }
    let answer = answer?;
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
    // A replica looks twice a second in each partition, and mostly in vain: of that no trace tells.
    if entries > 0 {
        tell(entries, None);
    }
    trace!(
        partition,
        entries,
        more,
        trigger = trigger.as_str(),
        "swept"
    );
    if more {
        return Ok(Next::Behind);
    }
    let floor = FLOOR_MS - rand::rng().random_range(0..FLOOR_MS / 5);
    let due = next.map_or(floor, |at| {
        at.saturating_sub(now) + rand::rng().random_range(0..JITTER_MS)
    });
    Ok(Next::In(Duration::from_millis(due.clamp(1, floor))))
}

/// For a trace: a sweep since then, if there are traces.
fn tell(
    inner: &Inner,
    partition: usize,
    since: Option<SystemTime>,
    trigger: Trigger,
    entries: u64,
    error: Option<&'static str>,
) {
    let Some(since) = since else { return };
    let slot = inner.keys.partitions[partition].slot;
    inner.traces.swept(&Swept {
        since,
        sent: Sent {
            script: inner.scripts.sweep.name,
            partition: Some(partition),
            items: 0,
            server: inner.redis.server(slot),
        },
        trigger: trigger.as_str(),
        entries,
        error,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_an_echo_for_a_moment_after_a_sweep() {
        let looked = Instant::now();
        let after = |ms| looked + Duration::from_millis(ms);
        assert!(is_echo(Some(looked), after(0)));
        assert!(is_echo(Some(looked), after(ECHO_MS - 1)));
        assert!(!is_echo(Some(looked), after(ECHO_MS)));
        assert!(!is_echo(None, looked));
    }

    #[tokio::test]
    async fn an_echo_wakes_nobody() {
        let bell = Notify::new();
        bell.notify_one();
        let to_come = Some(Instant::now() + Duration::from_secs(3_600));
        let woken = wait(&bell, Duration::from_millis(1), to_come).await;
        assert_eq!(woken.as_str(), "timer");
        bell.notify_one();
        let woken = wait(&bell, Duration::from_secs(3_600), None).await;
        assert_eq!(woken.as_str(), "event");
    }
}
