//! Records what stores are asked and answer; `tests/support/history.rs` judges it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokend::store::{AssignRequest, GenerateRequest, NewTokens, Store};
use tokend::token::*;

pub use crate::support::history::{Did, Event, History};

mod planted;

/// Records what one pool is asked through several replicas.
#[derive(Clone)]
pub struct Recorder {
    pub pool: PoolName,
    stores: Vec<Store>,
    shards: u32,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Recorder {
    pub fn new(pool: PoolName, stores: Vec<Store>) -> Self {
        Self {
            pool,
            stores,
            shards: 1,
            events: Arc::default(),
        }
    }

    /// Of a pool of so many shards.
    pub fn over(self, shards: u32) -> Self {
        Self { shards, ..self }
    }

    pub fn history(&self) -> History {
        History {
            events: self.events.lock().expect("not poisoned").clone(),
            shards: self.shards,
        }
    }

    fn note(&self, replica: usize, start: Instant, did: Did) {
        let end = Instant::now();
        let event = Event {
            start,
            end,
            replica,
            did,
        };
        self.events.lock().expect("not poisoned").push(event);
    }

    pub async fn generate(
        &self,
        replica: usize,
        tokens: NewTokens,
    ) -> Result<GenerateOutcome, StoreError> {
        let start = Instant::now();
        let wished = match &tokens {
            NewTokens::Generate(count) => *count as u64,
            NewTokens::Import(values) => values.len() as u64,
        };
        let request = GenerateRequest { tokens, key: None };
        let answer = self.stores[replica].generate(&self.pool, request).await;
        let did = match &answer {
            Ok(GenerateOutcome::Added { tokens, .. }) => Did::Generated(tokens.clone()),
            Err(StoreError::OutcomeUnknown(_)) => Did::MaybeGenerated(wished),
            Ok(_) | Err(_) => Did::Nothing,
        };
        self.note(replica, start, did);
        answer
    }

    pub async fn assign(
        &self,
        replica: usize,
        request: AssignRequest,
    ) -> Result<Option<Grant>, StoreError> {
        self.assign_within(replica, request, Duration::ZERO).await
    }

    pub async fn assign_within(
        &self,
        replica: usize,
        request: AssignRequest,
        wait: Duration,
    ) -> Result<Option<Grant>, StoreError> {
        let start = Instant::now();
        let store = &self.stores[replica];
        let answer = match store.assign_within(&self.pool, request, wait).await {
            Ok(AssignOutcome::Granted(offer)) => Ok(Some(offer.accept())),
            Ok(_) => Ok(None),
            Err(error) => Err(error),
        };
        let did = match &answer {
            Ok(Some(grant)) => Did::Granted(grant.clone()),
            Err(StoreError::OutcomeUnknown(_)) => Did::MaybeGranted,
            Ok(None) | Err(_) => Did::Nothing,
        };
        self.note(replica, start, did);
        answer
    }

    pub async fn keep_alive(
        &self,
        replica: usize,
        grant: &Grant,
        lifetime_ms: Option<u64>,
    ) -> Result<KeepAliveOutcome, StoreError> {
        let start = Instant::now();
        let (token, fence) = (grant.token.clone(), grant.fence);
        let store = &self.stores[replica];
        let answer = store
            .keep_alive(&self.pool, &token, Some(fence), lifetime_ms)
            .await;
        let did = match &answer {
            Ok(KeepAliveOutcome::Kept {
                expires_at_ms: Some(expires_at_ms),
                expires_in_ms: Some(expires_in_ms),
                ..
            }) => Did::Kept {
                token,
                fence,
                expires_at_ms: *expires_at_ms,
                expires_in_ms: *expires_in_ms,
            },
            Ok(KeepAliveOutcome::LeaseLost) => Did::Lost { token, fence },
            Ok(KeepAliveOutcome::TokenNotFound) => Did::Absent(token),
            // It may have shortened the lease.
            Err(StoreError::OutcomeUnknown(_)) => Did::MaybeEnded {
                token,
                fence: Some(fence),
                deleted: false,
            },
            Ok(_) | Err(_) => Did::Nothing,
        };
        self.note(replica, start, did);
        answer
    }

    pub async fn unblock(
        &self,
        replica: usize,
        token: &TokenValue,
        fence: Option<Fence>,
    ) -> Result<UnblockOutcome, StoreError> {
        let start = Instant::now();
        let token = token.clone();
        let answer = self.stores[replica]
            .unblock(&self.pool, &token, fence)
            .await;
        let did = match (&answer, fence) {
            (Ok(UnblockOutcome::Released { .. }), _) => Did::Released { token, fence },
            (Ok(UnblockOutcome::LeaseLost), Some(fence)) => Did::Lost { token, fence },
            (Ok(UnblockOutcome::TokenNotFound), _) => Did::Absent(token),
            (Err(StoreError::OutcomeUnknown(_)), fence) => Did::MaybeEnded {
                token,
                fence,
                deleted: false,
            },
            (Ok(_) | Err(_), _) => Did::Nothing,
        };
        self.note(replica, start, did);
        answer
    }

    pub async fn delete(
        &self,
        replica: usize,
        token: &TokenValue,
    ) -> Result<DeleteOutcome, StoreError> {
        let start = Instant::now();
        let token = token.clone();
        let answer = self.stores[replica].delete(&self.pool, &token).await;
        let did = match &answer {
            Ok(DeleteOutcome::Deleted) => Did::Deleted(token),
            Ok(DeleteOutcome::TokenNotFound) => Did::Absent(token),
            Err(StoreError::OutcomeUnknown(_)) => Did::MaybeEnded {
                token,
                fence: None,
                deleted: true,
            },
            Ok(_) | Err(_) => Did::Nothing,
        };
        self.note(replica, start, did);
        answer
    }

    pub async fn count(&self, replica: usize) -> Result<PoolCounts, StoreError> {
        let start = Instant::now();
        let answer = self.stores[replica].show_pool(&self.pool).await;
        let counts = answer?.expect("the pool is there").counts;
        self.note(replica, start, Did::Counted(counts));
        Ok(counts)
    }
}
