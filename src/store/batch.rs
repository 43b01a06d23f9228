//! Group commit: per verb and partition, what queued while a call was under way goes out as one call.
//!
//! Nothing in flight → send at once. Something in flight → queue. The answer comes → send all that
//! queued, up to the limit. So an idle service adds no delay, and a busy one shares the cost of a call.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fred::types::Value;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::{Instrument, debug_span, error};

use super::keys::Partition;
use super::redis::{Called, Redis, UNCONFIRMED, error_of};
use super::reply::Reply;
use super::script::Script;
use super::shard::Shard;
use crate::metrics::Metrics;
use crate::token::StoreError;
use crate::traces::{CallSpan, Caller, Sent};

/// Most tokens in one call (or one larger item): about 10 ms of Redis.
pub(super) const BATCH_TOKENS_MAX: usize = 1_000;
/// Most tokens waiting per verb and partition. Beyond it callers are told to come back: memory is
/// bounded, and what waits longer than [`QUEUE_MS_MAX`] would be refused anyhow.
pub(super) const QUEUE_TOKENS_MAX: usize = 20_000;
/// Longest that an item may wait to be sent. With the call's own limit it keeps an answer under 2 s.
pub(super) const QUEUE_MS_MAX: u64 = 700;

/// One item of a verb: how it is said to the script and how the script's reply is understood.
pub(super) trait Verb: Send + 'static {
    type Outcome: Send;
    /// The script's name: also the label of the metrics.
    const NAME: &'static str;

    fn shard(&self) -> &Shard;
    /// How many tokens it is about.
    fn weight(&self) -> usize {
        1
    }
    /// The arguments behind pool, generation and version.
    fn encode(&self, args: &mut Vec<Value>);
    /// The outcome of a reply whose tag is neither `stale` nor `again`.
    fn decode(&self, reply: Reply, now_ms: u64) -> Result<Self::Outcome, StoreError>;
}

/// What becomes of an item.
pub(super) enum Done<O> {
    Outcome(O),
    /// The shard knows another generation or only an older policy: look at the registry.
    Stale,
    /// The call's bound was reached before an answer was known: send it again.
    Again,
}

struct Waiting<V: Verb> {
    item: V,
    since: Instant,
    caller: Caller,
    answer: oneshot::Sender<Result<Done<V::Outcome>, StoreError>>,
}

struct Queue<V: Verb> {
    waiting: VecDeque<Waiting<V>>,
    tokens: usize,
    /// Whether a task is sending. It ends only with an empty queue, under the lock.
    sending: bool,
}

/// The batcher of one verb in one partition.
pub(super) struct Batcher<V: Verb> {
    queue: Mutex<Queue<V>>,
    script: Arc<Script>,
    partition: Partition,
    redis: Arc<Redis>,
    metrics: Arc<Metrics>,
    /// The runtime that outlives the HTTP workers: an answer is decoded even if its worker has gone.
    runtime: Handle,
}

impl<V: Verb> Batcher<V> {
    pub fn new(
        script: Arc<Script>,
        partition: Partition,
        redis: Arc<Redis>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                tokens: 0,
                sending: false,
            }),
            script,
            partition,
            redis,
            metrics,
            runtime: Handle::current(),
        })
    }

    /// Sends an item with the next call and waits for its answer: bounded by [`QUEUE_MS_MAX`] and the
    /// call's own limit. Dropped before it was sent, the item is never sent.
    pub async fn submit(self: &Arc<Self>, item: V) -> Result<Done<V::Outcome>, StoreError> {
        let (answer, answered) = oneshot::channel();
        let caller = Caller::current();
        caller.note_pool(item.shard().pool.as_str());
        let starts = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.tokens >= QUEUE_TOKENS_MAX {
                return Err(self.refusal("the queue is full"));
            }
            queue.tokens += item.weight();
            queue.waiting.push_back(Waiting {
                item,
                since: Instant::now(),
                caller,
                answer,
            });
            !std::mem::replace(&mut queue.sending, true)
        };
        if starts {
            let sending = Sending(Some(self.clone()));
            let span = debug_span!("batch", verb = V::NAME);
            self.runtime.spawn(sending.run().instrument(span));
        }
        answered
            .await
            .unwrap_or_else(|_| Err(StoreError::OutcomeUnknown(format!("{}: dropped", V::NAME))))
    }

    /// What was not sent, and why: counted.
    fn refusal(&self, why: &str) -> StoreError {
        let error = StoreError::Unavailable(format!("{}: {why}", V::NAME));
        self.metrics.store_failed(&error);
        error
    }

    /// It ran, but too few replicas have it: a failover may undo it.
    fn unconfirmed(&self) -> StoreError {
        let error = StoreError::OutcomeUnknown(format!("{}: {UNCONFIRMED}", V::NAME));
        self.metrics.store_failed(&error);
        error
    }

    /// Whether it may have changed something that its answer did not tell.
    pub fn writes(&self) -> bool {
        self.script.writes
    }

    async fn send_queued(&self) {
        while let Some(batch) = self.next_batch() {
            if batch.is_empty() {
                continue;
            }
            let oldest = batch[0].since.elapsed();
            let patience = Duration::from_millis(QUEUE_MS_MAX).saturating_sub(oldest);
            let slot = self.partition.slot;
            if self.redis.usable_within(slot, patience).await.is_some() {
                self.send(still_waited_for(batch)).await;
            } else {
                fail(batch, &self.refusal("its Redis is away"));
            }
        }
    }

    /// The next items to send; `None` once the queue is empty, and the task ends. What nobody waits
    /// for any more is dropped, what waited too long is refused: neither was sent.
    fn next_batch(&self) -> Option<Vec<Waiting<V>>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.waiting.is_empty() {
            queue.sending = false;
            return None;
        }
        let mut batch = Vec::new();
        let mut tokens = 0;
        while let Some(next) = queue.waiting.front() {
            let weight = next.item.weight();
            if !batch.is_empty() && tokens + weight > BATCH_TOKENS_MAX {
                break;
            }
            let next = queue.waiting.pop_front().expect("just seen");
            queue.tokens -= weight;
            if next.answer.is_closed() {
                continue;
            }
            if next.since.elapsed() > Duration::from_millis(QUEUE_MS_MAX) {
                let refusal = self.refusal("waited too long to be sent");
                let _ = next.answer.send(Err(refusal));
                continue;
            }
            tokens += weight;
            batch.push(next);
        }
        Some(batch)
    }

    async fn send(&self, batch: Vec<Waiting<V>>) {
        if batch.is_empty() {
            return;
        }
        let keys = vec![self.partition.prefix.clone(), self.partition.guard.clone()];
        let mut args = Vec::with_capacity(batch.len() * 8);
        for waiting in &batch {
            waiting.item.shard().encode(&mut args);
            waiting.item.encode(&mut args);
        }
        self.metrics
            .batch_size
            .with_label_values(&[V::NAME])
            .observe(batch.len() as f64);
        let slot = self.partition.slot;
        let callers = batch.iter().map(|waiting| &waiting.caller);
        let span = CallSpan::start(callers, || Sent {
            script: V::NAME,
            partition: Some(self.partition.number),
            items: batch.len(),
            server: self.redis.server(slot),
        });
        let called = self.redis.call(&self.script, slot, keys, args).await;
        span.end(error_of(&called));
        match called {
            Ok(called) if called.answer.replies.len() == batch.len() => self.tell(batch, called),
            Ok(called) => {
                let (sent, got) = (batch.len(), called.answer.replies.len());
                let told = format!("{}: {sent} items, {got} replies", V::NAME);
                fail(batch, &StoreError::Protocol(told));
            }
            Err(error) => fail(batch, &error),
        }
    }

    fn tell(&self, batch: Vec<Waiting<V>>, called: Called) {
        let Called { answer, confirmed } = called;
        self.metrics.settled(&answer.settled_lags());
        for (waiting, reply) in batch.into_iter().zip(answer.replies) {
            let tag = reply.tag.clone();
            let done = match tag.as_str() {
                "stale" => Ok(Done::Stale),
                "again" => Ok(Done::Again),
                _ => waiting.item.decode(reply, answer.now_ms).map(Done::Outcome),
            };
            if let Err(error) = &done {
                error!(verb = V::NAME, %error, "a reply was not understood");
            }
            let pool = waiting.item.shard().pool.as_str();
            self.metrics
                .transitions
                .with_label_values(&[pool, V::NAME, &tag])
                .inc();
            // An answer that nobody waits for any more, or that must not be told, is dropped: a grant in it is
            // given back.
            let done = if confirmed {
                done
            } else {
                drop(done);
                Err(self.unconfirmed())
            };
            // If nobody takes it, what that makes is done in the caller's name.
            let Waiting { caller, answer, .. } = waiting;
            caller.run(|| drop(answer.send(done)));
        }
    }
}

/// The task that sends what is queued, however it ends: if it panics, or its runtime is shut down, nobody
/// must wait for it, and the next item must start another.
struct Sending<V: Verb>(Option<Arc<Batcher<V>>>);

impl<V: Verb> Sending<V> {
    async fn run(mut self) {
        if let Some(batcher) = &self.0 {
            batcher.send_queued().await;
        }
        self.0 = None; // it ended with an empty queue: another may be sending by now
    }
}

impl<V: Verb> Drop for Sending<V> {
    fn drop(&mut self) {
        let Some(batcher) = self.0.take() else { return };
        let unsent = {
            let mut queue = batcher.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.sending = false;
            queue.tokens = 0;
            std::mem::take(&mut queue.waiting)
        };
        fail(
            unsent.into(),
            &batcher.refusal("the task that sends has ended"),
        );
    }
}

/// While the connection was away, some may have given up: what was not sent is never sent.
fn still_waited_for<V: Verb>(mut batch: Vec<Waiting<V>>) -> Vec<Waiting<V>> {
    batch.retain(|waiting| !waiting.answer.is_closed());
    batch
}

fn fail<V: Verb>(batch: Vec<Waiting<V>>, error: &StoreError) {
    for waiting in batch {
        let _ = waiting.answer.send(Err(error.clone()));
    }
}
