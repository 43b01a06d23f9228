//! What is asked of bearer tokens: create, exchange, inspect, delete. The verbs are the pools'; what differs
//! is that the caller names the partition, which a bearer token tells.

use std::collections::BTreeSet;
use std::time::Duration;

use super::delete::Delete;
use super::exchange::{Exchange, ExchangeRequest};
use super::generate::{Birth, Generate};
use super::inspect::{Found, Inspect};
use super::shard::Place;
use super::{Store, list};
use crate::metrics::Refused;
use crate::token::bearer::BearerHash;
use crate::token::rotating::{Rotating, new_family};
use crate::token::{
    BearerView, CreateOutcome, Created, DeleteOutcome, ExchangeOutcome, Fence, Flow,
    GenerateOutcome, Holder, Metadata, PoolName, State, StoreError, TokenValue,
};

/// Tokens of one step of a walk.
const WALK_TOKENS: usize = 100;
/// Pause between two steps: a walk over a million tokens must not be felt.
const WALK_PAUSE: Duration = Duration::from_millis(5);

impl Store {
    /// Makes a new opaque token and says what it is; the store keeps its hash. `None`: the flow is full.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn create_opaque(
        &self,
        flow: Flow,
        new_token: fn() -> String,
        subject: Option<Holder>,
        lifetime_ms: Option<u64>,
    ) -> Result<Option<(String, Created)>, StoreError> {
        let partitions = self.inner.keys.partitions.len();
        let tries = async {
            let mut full = BTreeSet::new();
            while full.len() < partitions {
                let token = new_token();
                let hash = BearerHash::of(&token);
                let partition = hash.partition(partitions);
                if full.contains(&partition) {
                    continue;
                }
                let birth = Birth {
                    id: hash.id(),
                    subject: subject.clone(),
                    lifetime_ms,
                    metadata: Metadata::default(),
                };
                match self.create(flow, partition, &birth).await? {
                    CreateOutcome::Created(created) => return Ok(Some((token, created))),
                    CreateOutcome::Full => full.insert(partition),
                };
            }
            Ok(None)
        };
        // One limit for all that is tried, however many partitions are full.
        let created = self.inner.within(true, Box::pin(tries)).await;
        self.count_full(flow, &created);
        created
    }

    /// Makes a new family of rotating tokens; its first token is number 1. `None`: the flow is full.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn create_family(
        &self,
        flow: Flow,
        subject: Option<Holder>,
        metadata: Metadata,
    ) -> Result<Option<(Rotating, Created)>, StoreError> {
        let partitions = self.inner.keys.partitions.len();
        let birth = Birth {
            id: new_family(),
            subject,
            lifetime_ms: None,
            metadata,
        };
        let start = rand::random_range(0..partitions);
        let tries = async {
            for partition in (start..partitions).chain(0..start) {
                if let CreateOutcome::Created(created) =
                    self.create(flow, partition, &birth).await?
                {
                    let token = Rotating {
                        partition,
                        family: birth.id.clone(),
                        number: Fence::FIRST,
                    };
                    return Ok(Some((token, created)));
                }
            }
            Ok(None)
        };
        let created = self.inner.within(true, Box::pin(tries)).await;
        self.count_full(flow, &created);
        created
    }

    /// Counts a token that was not made, for there is no room.
    fn count_full<T>(&self, flow: Flow, created: &Result<Option<T>, StoreError>) {
        if let Ok(None) = created {
            let pool = PoolName::of_flow(flow);
            self.inner.metrics.refused(pool.as_str(), Refused::Generate);
        }
    }

    /// One try; its caller has the time limit.
    async fn create(
        &self,
        flow: Flow,
        partition: usize,
        birth: &Birth,
    ) -> Result<CreateOutcome, StoreError> {
        let inner = &self.inner;
        let item = |shard| Generate::birth(shard, birth);
        let (pool, at) = (PoolName::of_flow(flow), Place::Partition(partition));
        let done = inner.rounds(&pool, at, &inner.batchers.generate, item);
        match done.await? {
            Some(GenerateOutcome::Added {
                born: Some(created),
                existing: 0,
                ..
            }) => Ok(CreateOutcome::Created(created)),
            Some(GenerateOutcome::PoolFull { .. }) => Ok(CreateOutcome::Full),
            other => Err(StoreError::Protocol(format!(
                "a token was not made: {}",
                if other.is_some() {
                    "it exists"
                } else {
                    "no pool"
                }
            ))),
        }
    }

    /// An opaque token, if it is alive.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn inspect_opaque(
        &self,
        flow: Flow,
        token: &str,
    ) -> Result<Option<BearerView>, StoreError> {
        let hash = BearerHash::of(token);
        let partition = hash.partition(self.inner.keys.partitions.len());
        self.inspect_bearer(flow, partition, &hash.id(), false)
            .await
    }

    /// A family, if it is alive. Whether a token of it is good depends on its number besides.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn inspect_family(
        &self,
        flow: Flow,
        partition: usize,
        family: &TokenValue,
    ) -> Result<Option<BearerView>, StoreError> {
        self.inspect_bearer(flow, partition, family, false).await
    }

    async fn inspect_bearer(
        &self,
        flow: Flow,
        partition: usize,
        id: &TokenValue,
        with_metadata: bool,
    ) -> Result<Option<BearerView>, StoreError> {
        let inner = &self.inner;
        if partition >= inner.keys.partitions.len() {
            return Ok(None); // of another data set
        }
        let item = |shard| Inspect {
            shard,
            token: id.clone(),
            with_metadata,
        };
        let (pool, at) = (PoolName::of_flow(flow), Place::Partition(partition));
        let done = inner.run(&pool, at, &inner.batchers.inspect, item);
        let Some(Some(Found {
            view,
            metadata,
            now_ms,
        })) = done.await?
        else {
            return Ok(None);
        };
        if view.state != State::Held {
            return Ok(None);
        }
        let missing = || StoreError::Protocol("a bearer token without its times".to_owned());
        Ok(Some(BearerView {
            number: Fence::parse(view.fence).map_err(|_| missing())?,
            subject: view.holder,
            since_ms: view.granted_at_ms.ok_or_else(missing)?,
            expires_at_ms: view.expires_at_ms.ok_or_else(missing)?,
            now_ms,
            metadata,
        }))
    }

    /// Rotates a token.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn exchange(
        &self,
        flow: Flow,
        request: &ExchangeRequest,
    ) -> Result<ExchangeOutcome, StoreError> {
        let inner = &self.inner;
        let partition = request.token.partition;
        if partition >= inner.keys.partitions.len() {
            return Ok(ExchangeOutcome::Absent); // of another data set
        }
        let item = |shard| Exchange {
            shard,
            request: request.clone(),
        };
        let (pool, at) = (PoolName::of_flow(flow), Place::Partition(partition));
        let done = inner.run(&pool, at, &inner.batchers.exchange, item);
        Ok(done.await?.unwrap_or(ExchangeOutcome::Absent))
    }

    /// Deletes an opaque token. Says whether there was one.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn delete_opaque(&self, flow: Flow, token: &str) -> Result<bool, StoreError> {
        let hash = BearerHash::of(token);
        let partition = hash.partition(self.inner.keys.partitions.len());
        self.delete_bearer(flow, partition, &hash.id()).await
    }

    /// Deletes a family: each token of it is dead from here on. Says whether there was one.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn delete_family(
        &self,
        flow: Flow,
        partition: usize,
        family: &TokenValue,
    ) -> Result<bool, StoreError> {
        self.delete_bearer(flow, partition, family).await
    }

    async fn delete_bearer(
        &self,
        flow: Flow,
        partition: usize,
        id: &TokenValue,
    ) -> Result<bool, StoreError> {
        let inner = &self.inner;
        if partition >= inner.keys.partitions.len() {
            return Ok(false);
        }
        let item = |shard| Delete {
            shard,
            token: id.clone(),
        };
        let (pool, at) = (PoolName::of_flow(flow), Place::Partition(partition));
        let done = inner.run(&pool, at, &inner.batchers.delete, item);
        Ok(matches!(done.await?, Some(DeleteOutcome::Deleted)))
    }

    /// Removes what has expired in a flow and was not swept yet, a bounded amount: it is dead anyhow.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn clear_expired(&self, flow: Flow) -> Result<(), StoreError> {
        let pool = PoolName::of_flow(flow);
        // Counting settles what is due.
        self.inner.within(true, self.one_pool(&pool)).await?;
        Ok(())
    }

    /// Shows every token of a flow that is there throughout, with its metadata, a bounded step at a time.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn walk(
        &self,
        flow: Flow,
        mut show: impl FnMut(&BearerView),
    ) -> Result<(), StoreError> {
        let pool = PoolName::of_flow(flow);
        self.inner.ready().await?;
        for partition in 0..self.inner.keys.partitions.len() {
            let (at, mut cursor) = (Place::Partition(partition), list::Cursor::default());
            loop {
                let step = self.list_step(&pool, at, None, &cursor, WALK_TOKENS);
                let Some(step) = step.await? else {
                    break;
                };
                for token in step.tokens {
                    let view = self
                        .inspect_bearer(flow, partition, &token.token, true)
                        .await?;
                    view.iter().for_each(&mut show);
                }
                let Some(next) = step.next else { break };
                cursor = next;
                tokio::time::sleep(WALK_PAUSE).await;
            }
        }
        Ok(())
    }
}
