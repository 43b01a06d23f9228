//! The verbs of pools: what handlers call. Each is an item for its batcher, sent to the token's shard; what
//! no token names goes over all of them (`walk.rs`, `fill.rs`).

use std::borrow::Cow;

use super::Store;
use super::assign::{AssignRequest, Offer};
use super::delete::Delete;
use super::generate::GenerateRequest;
use super::inspect::Inspect;
use super::keep_alive::KeepAlive;
use super::unblock::Unblock;
use crate::metrics::Refused;
use crate::token::{
    AssignOutcome, DeleteOutcome, Fence, GenerateOutcome, InspectOutcome, KeepAliveOutcome,
    PoolName, StoreError, TokenValue, UnblockOutcome,
};

impl Store {
    /// Adds tokens; all or nothing against the cap.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn generate(
        &self,
        pool: &PoolName,
        request: GenerateRequest,
    ) -> Result<GenerateOutcome, StoreError> {
        let filling = async {
            let request = self.inner.respelled(pool, &request).await?;
            self.inner.fill(pool, &request).await
        };
        let done = self.inner.within(true, Box::pin(filling)).await;
        if let Ok(GenerateOutcome::PoolFull { .. }) = done {
            self.inner.metrics.refused(pool.as_str(), Refused::Generate);
        }
        done
    }

    /// Grants a token.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn assign(
        &self,
        pool: &PoolName,
        mut request: AssignRequest,
    ) -> Result<AssignOutcome<Offer>, StoreError> {
        let walking = async {
            if let Some(name) = &request.token
                && let Cow::Owned(nfc) = self.inner.spelling(pool, name).await?
            {
                request.token = Some(nfc);
            }
            self.inner.walk(pool, &request).await
        };
        self.inner.within(true, walking).await
    }

    /// Restarts a lease (with the pool's lifetime or the one given) or a free token's idle clock.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn keep_alive(
        &self,
        pool: &PoolName,
        token: &TokenValue,
        fence: Option<Fence>,
        lifetime_ms: Option<u64>,
    ) -> Result<KeepAliveOutcome, StoreError> {
        let item = |shard, token| KeepAlive {
            shard,
            token,
            fence,
            lifetime_ms,
        };
        let batchers = &self.inner.batchers.keep_alive;
        let done = self.inner.run_named(pool, token, batchers, item);
        Ok(done.await?.unwrap_or(KeepAliveOutcome::PoolNotFound))
    }

    /// Takes a token back from its holder.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn unblock(
        &self,
        pool: &PoolName,
        token: &TokenValue,
        fence: Option<Fence>,
    ) -> Result<UnblockOutcome, StoreError> {
        let item = |shard, token| Unblock::new(shard, token, fence);
        let batchers = &self.inner.batchers.unblock;
        let done = self.inner.run_named(pool, token, batchers, item);
        Ok(done.await?.unwrap_or(UnblockOutcome::PoolNotFound))
    }

    /// Removes a token for good, in whatever state it is.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn delete(
        &self,
        pool: &PoolName,
        token: &TokenValue,
    ) -> Result<DeleteOutcome, StoreError> {
        let item = |shard, token| Delete { shard, token };
        let batchers = &self.inner.batchers.delete;
        let done = self.inner.run_named(pool, token, batchers, item);
        Ok(done.await?.unwrap_or(DeleteOutcome::PoolNotFound))
    }

    /// How a token stands now.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn inspect(
        &self,
        pool: &PoolName,
        token: &TokenValue,
    ) -> Result<InspectOutcome, StoreError> {
        let item = |shard, token| Inspect {
            shard,
            token,
            with_metadata: false,
        };
        let batchers = &self.inner.batchers.inspect;
        let done = self.inner.run_named(pool, token, batchers, item);
        Ok(match done.await? {
            Some(Some(found)) => InspectOutcome::Found(found.view),
            Some(None) => InspectOutcome::TokenNotFound,
            None => InspectOutcome::PoolNotFound,
        })
    }
}
