//! Which pools there are. The truth is one HASH in Redis; each replica keeps a copy to name generations
//! with, and a shard that disagrees makes it read again. So a copy may be old, and an answer never is.
//!
//! A change is made in two steps, registry first, shards second. A replica that dies between them leaves a
//! half-done change, which any replica that meets it finishes.

use std::collections::btree_map::Entry::Vacant;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use fred::interfaces::HashesInterface;
use tracing::{info, warn};

use super::Inner;
use super::drop_pool::drop_pool;
use super::layout::layout;
use super::register::{self, Entry, Status};
use super::set_pool::{SetPool, set_pool};
use super::shard::{Place, Shard};
use crate::token::{Flow, Policy, PolicyPatch, PoolName, StoreError};

/// Times that a change is tried again when another replica changes the same pool at that moment.
const CONFLICTS_MAX: usize = 20;

/// What a PUT did.
pub(super) enum Put {
    Created(Entry),
    Changed(Entry),
    Refused(Refusal),
}

/// Why a policy can't be this pool's.
pub(super) enum Refusal {
    /// It has that many shards.
    ShardsFixed(u32),
    /// It has more shards than it may have tokens.
    TooFewTokens(u32),
}

#[derive(Default)]
pub(super) struct Registry {
    copy: RwLock<HashMap<PoolName, Entry>>,
    /// Of pools that are known here: a thousand calls that find a shard stale look at the truth once.
    flights: Mutex<HashMap<PoolName, Arc<Flight>>>,
}

/// One refresh of a pool at a time.
#[derive(Default)]
struct Flight {
    /// How many were begun.
    begun: AtomicU64,
    /// What the last one found. Held while one runs.
    last: tokio::sync::Mutex<Option<Found>>,
}

type Found = Result<Option<Entry>, StoreError>;

impl Registry {
    fn copied(&self, pool: &PoolName) -> Option<Entry> {
        let copy = self.copy.read().unwrap_or_else(PoisonError::into_inner);
        copy.get(pool).cloned()
    }

    /// Whether there is such a pool, as far as this replica knows.
    pub fn knows(&self, pool: &PoolName) -> bool {
        let copy = self.copy.read().unwrap_or_else(PoisonError::into_inner);
        copy.contains_key(pool)
    }

    fn keep(&self, pool: &PoolName, entry: Option<Entry>) {
        let mut copy = self.copy.write().unwrap_or_else(PoisonError::into_inner);
        match entry {
            Some(entry) => copy.insert(pool.clone(), entry),
            None => copy.remove(pool),
        };
    }

    /// The shard to send a call to; `None` if there is no such pool.
    pub async fn shard(
        &self,
        inner: &Inner,
        pool: &PoolName,
        place: Place<'_>,
    ) -> Result<Option<Shard>, StoreError> {
        let entry = self.entry(inner, pool).await?;
        Ok(entry.and_then(|entry| inner.shard_at(pool, &entry, place)))
    }

    /// What this replica knows of a pool, which may be old; `None` if there is no such pool.
    pub async fn entry(&self, inner: &Inner, pool: &PoolName) -> Result<Option<Entry>, StoreError> {
        match self.copied(pool) {
            Some(entry) => Ok(Some(entry)),
            // Boxed: this is the way seldom gone, and its size would be every request's.
            None => Box::pin(self.refresh(inner, pool)).await,
        }
    }

    fn flight(&self, pool: &PoolName) -> Option<Arc<Flight>> {
        // A name that somebody made up must not be remembered.
        if pool.flow().is_none() && self.copied(pool).is_none() {
            return None;
        }
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        Some(flights.entry(pool.clone()).or_default().clone())
    }

    /// Reads the truth after a shard disagreed (or a pool was not known here), finishes what was left
    /// half-done, and says what to use now. Whoever asks while another does waits, and takes what a refresh
    /// found that began after it asked.
    pub async fn refresh(
        &self,
        inner: &Inner,
        pool: &PoolName,
    ) -> Result<Option<Entry>, StoreError> {
        let Some(flight) = self.flight(pool) else {
            return self.refresh_now(inner, pool).await;
        };
        let before = flight.begun.load(Ordering::Acquire);
        let mut last = flight.last.lock().await;
        if flight.begun.load(Ordering::Acquire) > before
            && let Some(found) = &*last
        {
            return found.clone();
        }
        *last = None; // should this one be cut short
        flight.begun.fetch_add(1, Ordering::AcqRel);
        let found = self.refresh_now(inner, pool).await;
        *last = Some(found.clone());
        found
    }

    async fn refresh_now(
        &self,
        inner: &Inner,
        pool: &PoolName,
    ) -> Result<Option<Entry>, StoreError> {
        let entry = match read(inner, pool).await? {
            // All data is gone, or this is the first start: `default` is always there.
            None if pool.is_default() => Some(make_default_again(inner).await?),
            // A flow's pool is made when it is first used.
            None => match pool.flow() {
                Some(flow) => Some(ensure_flow(inner, flow).await?),
                None => None,
            },
            Some(entry) if entry.status == Status::Deleting => {
                finish_deletion(inner, pool, &entry).await?;
                None
            }
            Some(entry) => match set_pool(inner, pool, &entry).await? {
                SetPool::Set { .. } => Some(entry),
                // Deleted, or made again, since the registry was read: the caller looks again.
                SetPool::Newer { .. } => read(inner, pool)
                    .await?
                    .filter(|entry| entry.status == Status::Active),
            },
        };
        self.keep(pool, entry.clone());
        Ok(entry)
    }

    /// Reads the whole registry; finishes deletions that a dead replica left, and makes `default` again
    /// if all data is gone.
    pub async fn reload(&self, inner: &Inner) -> Result<BTreeMap<PoolName, Entry>, StoreError> {
        let (deleting, mut entries) = read_all(inner)
            .await?
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(_, entry)| entry.status == Status::Deleting);
        for (pool, entry) in deleting {
            info!(pool = pool.as_str(), "finishing a deletion");
            finish_deletion(inner, &pool, &entry).await?;
        }
        if let Vacant(default) = entries.entry(PoolName::default_pool()) {
            default.insert(make_default_again(inner).await?);
        }
        let mut copy = self.copy.write().unwrap_or_else(PoisonError::into_inner);
        for gone in copy.keys().filter(|pool| !entries.contains_key(*pool)) {
            inner.metrics.forget_pool(gone.as_str());
        }
        *copy = entries.clone().into_iter().collect();
        drop(copy);
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|pool, flight| entries.contains_key(pool) || Arc::strong_count(flight) > 1);
        Ok(entries)
    }

    /// Creates or changes a pool.
    pub async fn put(
        &self,
        inner: &Inner,
        pool: &PoolName,
        patch: &PolicyPatch,
    ) -> Result<Put, StoreError> {
        let wish = |policy: &Policy| policy.with(patch);
        let (before, entry) = match put_policy(inner, pool, patch.shards, wish).await? {
            Ok(done) => done,
            Err(refusal) => return Ok(Put::Refused(refusal)),
        };
        self.keep(pool, Some(entry.clone()));
        Ok(match before {
            Some(_) => Put::Changed(entry),
            None => Put::Created(entry),
        })
    }

    /// Deletes a pool and all its tokens. Says whether there was one.
    pub async fn delete(&self, inner: &Inner, pool: &PoolName) -> Result<bool, StoreError> {
        for _ in 0..CONFLICTS_MAX {
            let Some(entry) = read(inner, pool).await? else {
                self.keep(pool, None);
                return Ok(false);
            };
            let mut marked = entry.clone();
            marked.status = Status::Deleting;
            marked.version += 1;
            let marked = match entry.status {
                Status::Deleting => Some(entry),
                Status::Active => register::store(inner, pool, Some(&entry), &marked).await?,
            };
            if let Some(marked) = marked {
                finish_deletion(inner, pool, &marked).await?;
                self.keep(pool, None);
                inner.metrics.forget_pool(pool.as_str());
                return Ok(true);
            }
        }
        Err(contended(pool))
    }
}

fn contended(pool: &PoolName) -> StoreError {
    warn!(
        pool = pool.as_str(),
        "too many replicas change this pool at once"
    );
    StoreError::Unavailable("the pool is being changed".to_owned())
}

async fn read(inner: &Inner, pool: &PoolName) -> Result<Option<Entry>, StoreError> {
    let key = inner.keys.registry.as_str();
    let text: Option<String> = inner
        .read(key, |client| async move {
            client.hget(key, pool.as_str()).await
        })
        .await?;
    text.as_deref().map(Entry::parse).transpose()
}

async fn read_all(inner: &Inner) -> Result<BTreeMap<PoolName, Entry>, StoreError> {
    let key = inner.keys.registry.as_str();
    let texts: HashMap<String, String> = inner
        .read(key, |client| async move { client.hgetall(key).await })
        .await?;
    texts
        .into_iter()
        .map(|(name, text)| {
            let pool = PoolName::parse_stored(&name)
                .map_err(|_| StoreError::Protocol("a registry entry of no pool".to_owned()))?;
            Ok((pool, Entry::parse(&text)?))
        })
        .collect()
}

/// Drops the shards, then the entry. Finding either gone is fine: another replica was at it too.
async fn finish_deletion(inner: &Inner, pool: &PoolName, entry: &Entry) -> Result<(), StoreError> {
    drop_pool(inner, pool, entry).await?;
    register::remove(inner, pool, entry).await?;
    Ok(())
}

/// What is left to do where `default` is gone, and so, most likely, is everything.
async fn make_default_again(inner: &Inner) -> Result<Entry, StoreError> {
    warn!(
        "this Redis has lost its data: making the pool default again, empty; other pools are gone"
    );
    layout(inner).await?;
    ensure_default(inner).await
}

/// Makes `default`, or gives it the policy that this replica's environment names: the replica that started
/// last decides, and says so where another one had decided otherwise.
pub(super) async fn ensure_default(inner: &Inner) -> Result<Entry, StoreError> {
    let policy = inner.config.default_policy.clone();
    ensure(inner, &PoolName::default_pool(), policy).await
}

/// The same for a flow's pool.
async fn ensure_flow(inner: &Inner, flow: Flow) -> Result<Entry, StoreError> {
    let partitions = inner.config.partitions;
    let policy = inner.config.flows.of(flow).policy(partitions);
    ensure(inner, &PoolName::of_flow(flow), policy).await
}

/// Gives the flows that were ever used the policies that this replica's environment names.
pub(super) async fn ensure_known_flows(inner: &Inner) -> Result<(), StoreError> {
    for flow in Flow::ALL {
        if read(inner, &PoolName::of_flow(flow)).await?.is_some() {
            ensure_flow(inner, flow).await?;
        }
    }
    Ok(())
}

async fn ensure(inner: &Inner, pool: &PoolName, policy: Policy) -> Result<Entry, StoreError> {
    let wish = |_: &Policy| policy.clone();
    match put_policy(inner, pool, None, wish).await? {
        Ok((before, entry)) => {
            if let Some(before) = before.filter(|before| before.policy != entry.policy) {
                let (before, now) = (&before.policy, &entry.policy);
                warn!(
                    ?before,
                    ?now,
                    "this environment changes the policy of the pool {pool}"
                );
            }
            Ok(entry)
        }
        Err(_) => Err(StoreError::Protocol("another number of shards".to_owned())),
    }
}

/// Sets a pool's policy to what `wish` makes of the one before.
/// Returns the entry before and the one now.
async fn put_policy(
    inner: &Inner,
    pool: &PoolName,
    fixed: Option<u32>,
    wish: impl Fn(&Policy) -> Policy,
) -> Result<Result<(Option<Entry>, Entry), Refusal>, StoreError> {
    // Made from the clock; but a flow's pool is never deleted, and what it holds must outlive its entry.
    let mut generation = u64::from(pool.flow().is_some());
    let mut version = 0;
    for _ in 0..CONFLICTS_MAX {
        let before = read(inner, pool).await?;
        if let Some(entry) = before.as_ref().filter(|e| e.status == Status::Deleting) {
            finish_deletion(inner, pool, entry).await?;
            continue;
        }
        if let Some(entry) = &before
            && fixed.is_some_and(|shards| shards != entry.policy.shards)
        {
            return Ok(Err(Refusal::ShardsFixed(entry.policy.shards)));
        }
        let wished = match &before {
            None => Entry::active(generation, version + 1, wish(&Policy::FOR_NEW_POOL)),
            Some(entry) => Entry::active(
                entry.generation.max(generation),
                entry.version.max(version) + 1,
                wish(&entry.policy),
            ),
        };
        let Policy {
            shards, max_tokens, ..
        } = wished.policy;
        if pool.flow().is_none() && max_tokens < u64::from(shards) {
            return Ok(Err(Refusal::TooFewTokens(shards)));
        }
        let same = before.as_ref().is_some_and(|b| {
            b.policy == wished.policy && b.generation == wished.generation && b.version >= version
        });
        let stored = if same {
            before.clone()
        } else {
            register::store(inner, pool, before.as_ref(), &wished).await?
        };
        let Some(stored) = stored else { continue };
        match set_pool(inner, pool, &stored).await? {
            // The shards outlived their entry, and took ours for an old one: count on from there. (Where the
            // entry is as new as they are, another replica has changed the policy meanwhile.)
            SetPool::Set { version: here }
                if here > stored.version
                    && read(inner, pool).await?.is_none_or(|e| e.version < here) =>
            {
                version = here;
            }
            SetPool::Set { .. } => return Ok(Ok((before, stored))),
            // Its tombstone is newer than a clock that went back (a failover): count on from there.
            SetPool::Newer { generation: newer } => generation = newer + 1,
        }
    }
    Err(contended(pool))
}
