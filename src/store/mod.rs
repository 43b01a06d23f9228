//! The store: all state, in Redis, reached only through atomic scripts.
//!
//! Reading order: [`Store`] here is what handlers call; `assign.rs` (and its siblings, one per verb) binds
//! one script; `batch.rs` groups what is called at once; `redis.rs` calls; `sweep.rs` and `events.rs` take
//! back what has lapsed, `duty.rs` says who does it where; `registry.rs` knows the pools; `keys.rs` names the keys.
//!
//! **Architecture Invariant:** nothing here names actix, and nothing outside names fred, Lua or a key.
//! There is one store: no trait with one implementation, no mock.

mod assign;
mod attempt;
mod batch;
mod beat;
mod checks;
mod commit;
mod count;
mod delete;
mod drop_pool;
mod durability;
mod duty;
mod events;
mod exchange;
mod fill;
mod fingerprint;
mod flows;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gauges;
mod generate;
mod hold;
mod inspect;
mod keep_alive;
mod keys;
mod layout;
mod list;
mod pools;
mod prepare;
mod redis;
mod register;
mod registry;
mod reply;
mod reserve;
mod room;
mod script;
mod set_pool;
mod set_user;
mod settings;
mod shard;
mod spelling;
mod start;
mod sweep;
mod unblock;
mod users;
mod verbs;
mod wait;
mod waiting;
mod walk;
mod writes;

pub use self::redis::{UrlMistake, check_url};
pub use assign::{AssignRequest, Offer};
pub use checks::{Diagnosis, Finding, Grade};
pub use durability::Durability;
pub use exchange::{ExchangeRequest, GRACE_MS};
pub use gauges::Readiness;
pub use generate::{GenerateRequest, NewTokens};
pub use settings::Shared;
pub use start::{StartError, StoreConfig};
pub use users::UserListed;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fred::clients::Client;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use self::assign::Assign;
use self::batch::{Batcher, Done, Verb};
use self::commit::Commit;
use self::delete::Delete;
use self::duty::Duty;
use self::exchange::Exchange;
use self::generate::Generate;
use self::inspect::Inspect;
use self::keep_alive::KeepAlive;
use self::keys::{Keys, slot_of};
use self::redis::{Redis, UNCONFIRMED, error_of};
use self::register::Entry;
use self::registry::Registry;
use self::reply::Answer;
use self::reserve::Reserve;
use self::script::{Script, Scripts};
use self::shard::{Place, Shard};
use self::unblock::Unblock;
use self::wait::Wait;
use self::waiting::Waits;
use crate::metrics::Metrics;
use crate::token::{PoolName, StoreError};
use crate::traces::{CallSpan, Caller, Sent, Traces};

/// Longest that any answer takes, with what HTTP adds less than 2 s. A call has its own, shorter limits;
/// this one holds however many calls there are.
const ANSWER_MS_MAX: u64 = 1_900;
/// Longest that a verb goes on when its calls say `stale` or `again`.
const ROUNDS_MS_MAX: u64 = 500;
/// Longest that `/readyz` and the gauges wait for Redis.
const PROBE_MS_MAX: u64 = 1_000;

/// One replica's way to Redis. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// Per verb, a batcher for each partition.
struct Batchers {
    assign: Vec<Arc<Batcher<Assign>>>,
    commit: Vec<Arc<Batcher<Commit>>>,
    delete: Vec<Arc<Batcher<Delete>>>,
    exchange: Vec<Arc<Batcher<Exchange>>>,
    generate: Vec<Arc<Batcher<Generate>>>,
    inspect: Vec<Arc<Batcher<Inspect>>>,
    keep_alive: Vec<Arc<Batcher<KeepAlive>>>,
    reserve: Vec<Arc<Batcher<Reserve>>>,
    unblock: Vec<Arc<Batcher<Unblock>>>,
    wait: Vec<Arc<Batcher<Wait>>>,
}

struct Inner {
    config: StoreConfig,
    keys: Keys,
    scripts: Scripts,
    redis: Arc<Redis>,
    /// One per partition: rung when something there may have fallen due.
    bells: Vec<Arc<Notify>>,
    registry: Registry,
    /// Which partitions this replica sweeps.
    duty: Duty,
    /// Held by the one sweep of this replica that catches up.
    catching_up: tokio::sync::Mutex<()>,
    batchers: Batchers,
    /// Who waits for a token on this replica.
    waits: Waits,
    /// What it says of its settings to the other replicas.
    shared: Shared,
    /// What was found on the Redis servers, and told.
    told: checks::Told,
    metrics: Arc<Metrics>,
    /// Where sweeps are told of.
    traces: Traces,
    /// The layout is agreed: what lies in this Redis is our data set.
    prepared: AtomicBool,
    runtime: Handle,
}

impl Inner {
    fn prepared(&self) -> bool {
        self.prepared.load(Ordering::Acquire)
    }

    /// The shard that a call is for; `None` where it is of another making of the pool.
    fn shard_at(&self, pool: &PoolName, entry: &Entry, place: Place<'_>) -> Option<Shard> {
        let shards = entry.policy.shards;
        let number = match place {
            Place::Token(token) => token.shard(shards) as usize,
            Place::Number(number) if number < shards as usize => number,
            Place::Shard(number, generation) if generation == entry.generation => number,
            Place::Number(_) | Place::Shard(..) => return None,
            Place::Partition(partition) => return Some(self.shard_in(partition, pool, entry)),
        };
        let partition = self
            .keys
            .partition_of_shard(pool.as_str(), number, shards as usize);
        Some(self.shard_in(partition, pool, entry))
    }

    fn shard_in(&self, partition: usize, pool: &PoolName, entry: &Entry) -> Shard {
        Shard {
            pool: pool.clone(),
            partition,
            generation: entry.generation,
            version: entry.version,
        }
    }

    /// All shards of a pool, by their numbers: a flow has one in each partition.
    fn shards(&self, pool: &PoolName, entry: &Entry) -> Vec<Shard> {
        if pool.flow().is_some() {
            let partitions = 0..self.keys.partitions.len();
            return partitions
                .map(|partition| self.shard_in(partition, pool, entry))
                .collect();
        }
        (0..entry.policy.shards as usize)
            .filter_map(|number| self.shard_at(pool, entry, Place::Shard(number, entry.generation)))
            .collect()
    }

    async fn call(
        &self,
        script: &Script,
        keys: Vec<String>,
        args: Vec<fred::types::Value>,
    ) -> Result<Answer, StoreError> {
        self.call_in(None, script, keys, args).await
    }

    async fn call_in(
        &self,
        partition: Option<usize>,
        script: &Script,
        keys: Vec<String>,
        args: Vec<fred::types::Value>,
    ) -> Result<Answer, StoreError> {
        let slot = keys.first().map_or(0, |key| slot_of(key));
        if self
            .redis
            .usable_within(slot, self.patience())
            .await
            .is_none()
        {
            return Err(self.not_connected());
        }
        let span = CallSpan::start(&[Caller::current()], || Sent {
            script: script.name,
            partition,
            items: 1,
            server: self.redis.server(slot),
        });
        let called = self.redis.call(script, slot, keys, args).await;
        span.end(error_of(&called));
        let called = called?;
        if called.confirmed {
            return Ok(called.answer);
        }
        let told = format!("{}: {UNCONFIRMED}", script.name);
        let error = StoreError::OutcomeUnknown(told);
        self.metrics.store_failed(&error);
        Err(error)
    }

    /// Calls a script outside the batchers.
    async fn call_partition(
        &self,
        script: &Script,
        partition: usize,
        args: Vec<fred::types::Value>,
    ) -> Result<Answer, StoreError> {
        let names = &self.keys.partitions[partition];
        let keys = vec![names.prefix.clone(), names.guard.clone()];
        self.call_in(Some(partition), script, keys, args).await
    }

    /// A plain read of one key.
    async fn read<T, F>(&self, key: &str, command: impl Fn(Client) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, fred::error::Error>>,
    {
        let read = self.redis.read(slot_of(key), self.patience(), command);
        read.await
            .inspect_err(|error| self.metrics.store_failed(error))
    }

    /// Waits until this connection has been prepared: before that the layout may be another one.
    async fn ready(&self) -> Result<(), StoreError> {
        let until = Instant::now() + self.patience();
        while !self.prepared() {
            // Who comes long after the start waits no more: a crowd must not pile up.
            if Instant::now() >= until || self.redis.age() >= self.patience() {
                let error = StoreError::Unavailable("Redis is not ready for us".to_owned());
                self.metrics.store_failed(&error);
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(redis::USABLE_POLL_MS)).await;
        }
        Ok(())
    }

    fn not_connected(&self) -> StoreError {
        let error = StoreError::Unavailable("not connected to Redis".to_owned());
        self.metrics.store_failed(&error);
        error
    }

    /// Ends what takes too long, however many steps it has. One that writes may have done so.
    async fn within<T>(
        &self,
        writes: bool,
        steps: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let limit = Duration::from_millis(ANSWER_MS_MAX);
        let Ok(answer) = tokio::time::timeout(limit, steps).await else {
            let told = "no answer in time".to_owned();
            let error = if writes {
                StoreError::OutcomeUnknown(told)
            } else {
                StoreError::Unavailable(told)
            };
            self.metrics.store_failed(&error);
            return Err(error);
        };
        answer
    }

    /// How long to wait for a connection that is away.
    fn patience(&self) -> Duration {
        Duration::from_millis(batch::QUEUE_MS_MAX)
    }

    /// Sends an item to a shard of its pool until the answer is one. `None`: no such pool, or, where the place
    /// says which making of it is meant, not that one any more.
    async fn run<V: Verb>(
        &self,
        pool: &PoolName,
        place: Place<'_>,
        batchers: &[Arc<Batcher<V>>],
        item: impl Fn(Shard) -> V,
    ) -> Result<Option<V::Outcome>, StoreError> {
        let writes = batchers.iter().any(|batcher| batcher.writes());
        let rounds = self.rounds(pool, place, batchers, item);
        self.within(writes, rounds).await
    }

    async fn rounds<V: Verb>(
        &self,
        pool: &PoolName,
        place: Place<'_>,
        batchers: &[Arc<Batcher<V>>],
        item: impl Fn(Shard) -> V,
    ) -> Result<Option<V::Outcome>, StoreError> {
        self.ready().await?;
        let until = Instant::now() + Duration::from_millis(ROUNDS_MS_MAX);
        let mut first = true;
        let mut shard = self.registry.shard(self, pool, place).await?;
        while let Some(at) = shard {
            match batchers[at.partition].submit(item(at.clone())).await? {
                Done::Outcome(outcome) => return Ok(Some(outcome)),
                Done::Again => shard = Some(at),
                Done::Stale => {
                    let entry = Box::pin(self.registry.refresh(self, pool)).await?;
                    shard = entry.and_then(|entry| self.shard_at(pool, &entry, place));
                }
            }
            // One more is always tried: a crowd whose data was lost takes this long to find out.
            if !std::mem::take(&mut first) && Instant::now() >= until {
                let told = format!("{}: still more to settle first", V::NAME);
                return Err(StoreError::Unavailable(told));
            }
        }
        Ok(None)
    }
}

impl Store {
    /// Per partition, whether this replica sweeps it at this moment.
    #[must_use]
    pub fn duty(&self) -> Vec<bool> {
        let partitions = 0..self.inner.keys.partitions.len();
        partitions
            .map(|partition| self.inner.duty.is_mine(partition))
            .collect()
    }

    /// Tells the other replicas that this one is about to stop, so that they sweep what it has swept.
    pub async fn leave(&self) {
        duty::leave(&self.inner).await;
    }

    /// Ends the sweeper and the connections. Calls that are under way have been answered by then: the
    /// HTTP server stops first.
    pub async fn stop(&self) {
        self.leave().await;
        self.inner.redis.stop().await;
    }
}
