//! The verbs of pools: what handlers call. Each is an item for its batcher, sent to the token's shard; what
//! no token names goes over all of them (`walk.rs`, `fill.rs`).

use super::Store;
use super::assign::{AssignRequest, Offer};
use super::delete::Delete;
use super::generate::GenerateRequest;
use super::inspect::Inspect;
use super::keep_alive::KeepAlive;
use super::shard::Place;
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
        let filling = self.inner.fill(pool, &request);
        let done = self.inner.within(true, filling).await;
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
        request: AssignRequest,
    ) -> Result<AssignOutcome<Offer>, StoreError> {
        let walking = self.inner.walk(pool, &request);
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
        let item = |shard| KeepAlive {
            shard,
            token: token.clone(),
            fence,
            lifetime_ms,
        };
        let done = self.inner.run(
            pool,
            Place::Token(token),
            &self.inner.batchers.keep_alive,
            item,
        );
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
        let item = |shard| Unblock::new(shard, token.clone(), fence);
        let done = self.inner.run(
            pool,
            Place::Token(token),
            &self.inner.batchers.unblock,
            item,
        );
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
        let item = |shard| Delete {
            shard,
            token: token.clone(),
        };
        let done = self
            .inner
            .run(pool, Place::Token(token), &self.inner.batchers.delete, item);
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
        let item = |shard| Inspect {
            shard,
            token: token.clone(),
            with_metadata: false,
        };
        let done = self.inner.run(
            pool,
            Place::Token(token),
            &self.inner.batchers.inspect,
            item,
        );
        Ok(match done.await? {
            Some(Some(found)) => InspectOutcome::Found(found.view),
            Some(None) => InspectOutcome::TokenNotFound,
            None => InspectOutcome::PoolNotFound,
        })
    }
}
