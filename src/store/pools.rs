//! What is asked of pools rather than of tokens: create, change, delete, count, list.

use std::time::{Duration, Instant};

use super::register::Entry;
use super::registry::Put;
use super::{Inner, PROBE_MS_MAX, ROUNDS_MS_MAX, Store, count, list};
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
        let cursor = match list::Cursor::parse(cursor) {
            Ok(cursor) => cursor,
            Err(invalid) => return Ok(Some(Err(invalid))),
        };
        let page = self.page_at(pool, None, state, cursor, limit);
        Ok(self.inner.within(false, page).await?.map(Ok))
    }

    pub(super) async fn page_at(
        &self,
        pool: &PoolName,
        partition: Option<usize>,
        state: Option<State>,
        mut cursor: list::Cursor,
        limit: usize,
    ) -> Result<Option<Page>, StoreError> {
        let inner = &self.inner;
        inner.ready().await?;
        let until = Instant::now() + Duration::from_millis(ROUNDS_MS_MAX);
        let mut shard = inner.registry.shard(inner, pool, partition).await?;
        while let Some(at) = shard {
            let args = list::encode(&at, state, &cursor, limit);
            let answer = inner
                .call_partition(&inner.scripts.list, at.partition, args)
                .await?;
            if let Some(page) = list::decode(answer.only()?)? {
                // Few of a large pool are in the state asked for: go on, a bounded call at a time.
                match &page.cursor {
                    Some(next) if page.tokens.is_empty() && Instant::now() < until => {
                        cursor = list::Cursor::parse(Some(next)).unwrap_or_default();
                        shard = Some(at);
                        continue;
                    }
                    _ => return Ok(Some(page)),
                }
            }
            if Instant::now() >= until {
                return Err(StoreError::Unavailable(
                    "list: the pool is being changed".to_owned(),
                ));
            }
            let entry = Box::pin(inner.registry.refresh(inner, pool)).await?;
            shard = entry.map(|entry| inner.shard_at(pool, &entry, partition));
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

    async fn all_pools(&self) -> Result<Vec<PoolView>, StoreError> {
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
        let (created, entry) = match Box::pin(inner.registry.put(inner, pool, patch)).await? {
            Put::Created(entry) => (true, entry),
            Put::Changed(entry) => (false, entry),
            Put::ShardsFixed(shards) => return Ok(PutPoolOutcome::ShardsFixed { shards }),
        };
        let counts = count::count(inner, &[inner.shard(pool, &entry)]).await?;
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

    /// Sets `tokend_pool_tokens` from Redis. Without an answer in `PROBE_MS_MAX` it tells of no pool:
    /// a gap in a graph is honest, an old value is not.
    pub async fn refresh_pool_gauges(&self) {
        let gauge = &self.inner.metrics.pool_tokens;
        let limit = Duration::from_millis(PROBE_MS_MAX);
        let views = tokio::time::timeout(limit, self.all_pools()).await;
        gauge.reset();
        let Ok(Ok(views)) = views else { return };
        for view in views {
            for (state, count) in [
                (State::Free, view.counts.free),
                (State::Held, view.counts.held),
                (State::Cooling, view.counts.cooling),
            ] {
                gauge
                    .with_label_values(&[view.name.as_str(), state.as_str()])
                    .set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
    }
}
