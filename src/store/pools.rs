//! What is asked of pools rather than of tokens: create, change, delete, count, list.

use std::time::{Duration, Instant};

use super::list::Cursor;
use super::register::Entry;
use super::registry::{Put, Refusal};
use super::shard::Place;
use super::{Inner, ROUNDS_MS_MAX, Store, count, list};
use crate::token::{
    Invalid, Page, PolicyPatch, PoolCounts, PoolName, PoolView, PutPoolOutcome, State, StoreError,
};

impl Inner {
    fn view(&self, pool: &PoolName, entry: Entry, counts: PoolCounts) -> PoolView {
        PoolView {
            name: pool.clone(),
            policy: entry.policy,
            counts,
        }
    }
}

impl Store {
    /// One page; `cursor` from the page before. `Ok(None)`: no such pool. `Some(Err(_))`: a cursor that
    /// this store never gave. A page may be short, even empty, and yet have a cursor.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn list_tokens(
        &self,
        pool: &PoolName,
        state: Option<State>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Option<Result<Page, Invalid>>, StoreError> {
        let cursor = match Cursor::parse(cursor) {
            Ok(cursor) => cursor,
            Err(invalid) => return Ok(Some(Err(invalid))),
        };
        let page = self.page_from(pool, state, cursor, limit);
        self.inner.within(false, page).await
    }

    /// Shard after shard until the page is full.
    async fn page_from(
        &self,
        pool: &PoolName,
        state: Option<State>,
        mut cursor: Cursor,
        limit: usize,
    ) -> Result<Option<Result<Page, Invalid>>, StoreError> {
        let inner = &self.inner;
        inner.ready().await?;
        let until = Instant::now() + Duration::from_millis(ROUNDS_MS_MAX);
        let mut tokens = Vec::new();
        loop {
            let Some(entry) = inner.registry.entry(inner, pool).await? else {
                return Ok(None);
            };
            let shards = entry.policy.shards as usize;
            if cursor.shard >= shards {
                return Ok(Some(Err(Cursor::unknown()))); // of a pool that was made again with fewer
            }
            let at = Place::Shard(cursor.shard, entry.generation);
            let left = limit - tokens.len();
            let Some(step) = self.list_step(pool, at, state, &cursor, left).await? else {
                if Instant::now() < until {
                    continue; // deleted, or made again: what there is now
                }
                return Err(StoreError::Unavailable(
                    "list: the pool is being changed".to_owned(),
                ));
            };
            tokens.extend(step.tokens);
            let behind = Some(cursor.shard + 1).filter(|shard| *shard < shards);
            let next = step.next.or_else(|| behind.map(Cursor::at_shard));
            match next {
                // Few of a large pool are in the state asked for, or the shard has no more: go on, a bounded
                // call at a time.
                Some(next)
                    if (tokens.is_empty() || next.shard > cursor.shard)
                        && tokens.len() < limit
                        && Instant::now() < until =>
                {
                    cursor = next;
                }
                next => {
                    let cursor = next.map(|cursor| cursor.to_string());
                    return Ok(Some(Ok(Page { tokens, cursor })));
                }
            }
        }
    }

    /// One call's worth of a shard. `None`: it is gone.
    pub(super) async fn list_step(
        &self,
        pool: &PoolName,
        place: Place<'_>,
        state: Option<State>,
        cursor: &Cursor,
        limit: usize,
    ) -> Result<Option<list::Step>, StoreError> {
        let inner = &self.inner;
        let until = Instant::now() + Duration::from_millis(ROUNDS_MS_MAX);
        let mut shard = inner.registry.shard(inner, pool, place).await?;
        while let Some(at) = shard {
            let args = list::encode(&at, state, cursor, limit);
            let answer = inner
                .call_partition(&inner.scripts.list, at.partition, args)
                .await?;
            if let Some(step) = list::decode(answer.only()?, cursor.shard)? {
                return Ok(Some(step));
            }
            if Instant::now() >= until {
                return Err(StoreError::Unavailable(
                    "list: the pool is being changed".to_owned(),
                ));
            }
            let entry = Box::pin(inner.registry.refresh(inner, pool)).await?;
            shard = entry.and_then(|entry| inner.shard_at(pool, &entry, place));
        }
        Ok(None)
    }

    /// Every pool that callers made, and `default`, with its counts, by name.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn list_pools(&self) -> Result<Vec<PoolView>, StoreError> {
        let mut pools = self.inner.within(false, Box::pin(self.all_pools())).await?;
        pools.retain(|view| view.name.flow().is_none());
        Ok(pools)
    }

    pub(super) async fn all_pools(&self) -> Result<Vec<PoolView>, StoreError> {
        let inner = &self.inner;
        inner.ready().await?;
        let entries = Box::pin(inner.registry.reload(inner)).await?;
        let shards: Vec<_> = entries
            .iter()
            .flat_map(|(pool, entry)| inner.shards(pool, entry))
            .collect();
        let mut counts = count::count(inner, &shards).await?;
        let mut views = Vec::with_capacity(entries.len());
        for (pool, entry) in entries {
            // A shard that is behind the registry: a replica died half-way through a change.
            let view = match counts.remove(&pool) {
                Some(counted) => Some(inner.view(&pool, entry, counted)),
                None => self.one_pool(&pool).await?,
            };
            views.extend(view);
        }
        Ok(views)
    }

    /// One pool with its counts.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn show_pool(&self, pool: &PoolName) -> Result<Option<PoolView>, StoreError> {
        self.inner.within(false, self.one_pool(pool)).await
    }

    pub(super) async fn one_pool(&self, pool: &PoolName) -> Result<Option<PoolView>, StoreError> {
        let inner = &self.inner;
        inner.ready().await?;
        let Some(entry) = Box::pin(inner.registry.refresh(inner, pool)).await? else {
            return Ok(None);
        };
        let counts = count::count(inner, &inner.shards(pool, &entry)).await?;
        let counted = counts.get(pool).copied().unwrap_or_default();
        Ok(Some(inner.view(pool, entry, counted)))
    }

    /// Creates or changes a pool. The handler has checked the patch's ranges.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn put_pool(
        &self,
        pool: &PoolName,
        patch: PolicyPatch,
    ) -> Result<PutPoolOutcome, StoreError> {
        self.inner
            .within(true, self.change_pool(pool, &patch))
            .await
    }

    async fn change_pool(
        &self,
        pool: &PoolName,
        patch: &PolicyPatch,
    ) -> Result<PutPoolOutcome, StoreError> {
        let inner = &self.inner;
        inner.ready().await?;
        let partitions = inner.config.partitions;
        if patch.shards.is_some_and(|shards| shards > partitions) {
            return Ok(PutPoolOutcome::TooManyShards { partitions });
        }
        let (created, entry) = match Box::pin(inner.registry.put(inner, pool, patch)).await? {
            Put::Created(entry) => (true, entry),
            Put::Changed(entry) => (false, entry),
            Put::Refused(Refusal::ShardsFixed(shards)) => {
                return Ok(PutPoolOutcome::ShardsFixed { shards });
            }
            Put::Refused(Refusal::TooFewTokens(shards)) => {
                return Ok(PutPoolOutcome::TooFewTokens { shards });
            }
        };
        let counts = count::count(inner, &inner.shards(pool, &entry)).await?;
        let view = inner.view(pool, entry, counts.get(pool).copied().unwrap_or_default());
        Ok(if created {
            PutPoolOutcome::Created(view)
        } else {
            PutPoolOutcome::Changed(view)
        })
    }

    /// Deletes a pool and its tokens. Says whether there was one.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn delete_pool(&self, pool: &PoolName) -> Result<bool, StoreError> {
        let inner = &self.inner;
        let steps = async {
            inner.ready().await?;
            Box::pin(inner.registry.delete(inner, pool)).await
        };
        // Cut short, any replica that reads the registry goes on with it.
        inner.within(true, steps).await
    }
}
