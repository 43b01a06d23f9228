//! Shorthands for what most tests do.

use std::time::Duration;

use fred::prelude::*;
use tokend::store::{AssignRequest, GenerateRequest, NewTokens};
use tokend::token::*;

use crate::harness::*;

/// A policy in seconds: lifetime, idle limit, cooldown.
pub fn policy(lifetime: u64, idle_limit: u64, cooldown: u64) -> PolicyPatch {
    PolicyPatch {
        lifetime_ms: Some(lifetime * 1_000),
        idle_limit_ms: Some(idle_limit * 1_000),
        cooldown_ms: Some(cooldown * 1_000),
        ..PolicyPatch::default()
    }
}

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Values that a careless key, pattern or separator would break.
pub fn weird_values() -> Vec<String> {
    let mut values: Vec<String> = [
        "plain",
        "with space",
        "colon:colon",
        "100%",
        "%d %s",
        "'single' \"double\"",
        "back\\slash",
        "{p0.0}",
        "*",
        "[a-z]",
        "üñï¢ödé",
        "日本語",
        "🦀",
        "0",
        "-1",
        "1e9",
        "nil",
    ]
    .map(str::to_owned)
    .to_vec();
    values.push("x".repeat(TOKEN_BYTES_MAX));
    values.push("é".repeat(TOKEN_BYTES_MAX / 2));
    values
}

/// Any token for this key.
pub fn keyed(value: &str) -> AssignRequest {
    AssignRequest {
        key: key(value),
        ..AssignRequest::default()
    }
}

/// This very token.
pub fn named(value: &str) -> AssignRequest {
    AssignRequest {
        token: Some(token(value)),
        ..AssignRequest::default()
    }
}

/// Any token for so many seconds.
pub fn lasting(seconds: u64) -> AssignRequest {
    AssignRequest {
        lifetime_ms: Some(seconds * 1_000),
        ..AssignRequest::default()
    }
}

impl Fixture {
    pub async fn granted(&self, pool: &PoolName, request: AssignRequest) -> Grant {
        match self.assign(pool, request).await {
            AssignOutcome::Granted(grant) => grant,
            other => panic!("not granted: {other:?}"),
        }
    }

    /// How a token stands; `None` if it is absent.
    pub async fn look(&self, pool: &PoolName, value: &str) -> Option<TokenView> {
        match self.store.inspect(pool, &token(value)).await {
            Ok(InspectOutcome::Found(view)) => Some(view),
            Ok(InspectOutcome::TokenNotFound) => None,
            other => panic!("not inspected: {other:?}"),
        }
    }

    pub async fn state(&self, pool: &PoolName, value: &str) -> Option<State> {
        self.look(pool, value).await.map(|view| view.state)
    }

    pub async fn keep(
        &self,
        pool: &PoolName,
        value: &str,
        fence: Option<Fence>,
        lifetime: Option<u64>,
    ) -> KeepAliveOutcome {
        let lifetime_ms = lifetime.map(|seconds| seconds * 1_000);
        let value = token(value);
        let done = self.store.keep_alive(pool, &value, fence, lifetime_ms);
        done.await.expect("keep-alive")
    }

    /// Keeps a token alive; returns its state and seconds to its deadline, rounded up.
    pub async fn kept(&self, pool: &PoolName, value: &str, lifetime: Option<u64>) -> (State, u64) {
        match self.keep(pool, value, None, lifetime).await {
            KeepAliveOutcome::Kept {
                state,
                expires_in_ms,
                ..
            } => (state, expires_in_ms.unwrap_or(0).div_ceil(1_000)),
            other => panic!("not kept: {other:?}"),
        }
    }

    pub async fn unblock(
        &self,
        pool: &PoolName,
        value: &str,
        fence: Option<Fence>,
    ) -> UnblockOutcome {
        let value = token(value);
        let done = self.store.unblock(pool, &value, fence);
        done.await.expect("unblock")
    }

    pub async fn delete(&self, pool: &PoolName, value: &str) -> DeleteOutcome {
        let value = token(value);
        let done = self.store.delete(pool, &value);
        done.await.expect("delete")
    }

    pub async fn generate_keyed(
        &self,
        pool: &PoolName,
        tokens: NewTokens,
        name: &str,
    ) -> GenerateOutcome {
        let request = GenerateRequest {
            tokens,
            key: key(name),
        };
        self.store.generate(pool, request).await.expect("generate")
    }

    /// Changes a pool's policy.
    pub async fn change(&self, pool: &PoolName, patch: PolicyPatch) {
        match self.store.put_pool(pool, patch).await {
            Ok(PutPoolOutcome::Changed(_)) => {}
            other => panic!("not changed: {other:?}"),
        }
    }

    /// Ends this replica's sweeper, so that nothing is settled but by the calls that the test makes.
    pub async fn without_sweeper(self) -> Self {
        self.store.stop().await;
        self
    }

    /// Members of the stored free set: what no verb has looked at and no sweep has touched.
    pub async fn stored_free(&self, pool: &PoolName) -> usize {
        let key = format!("{}:free:{pool}", self.prefix_of(pool).await);
        self.redis.scard(key).await.expect("scard")
    }

    /// Records that are stored, settled or not.
    pub async fn lasting_records(&self, pool: &PoolName) -> usize {
        let key = format!("{}:records:{pool}", self.prefix_of(pool).await);
        self.redis.hlen(key).await.expect("hlen")
    }

    /// Redis's clock, ms.
    pub async fn now_ms(&self) -> u64 {
        self.dump().await.0
    }
}

/// An import of these.
pub fn these(values: &[&str]) -> NewTokens {
    NewTokens::Import(values.iter().map(|value| new_token(value)).collect())
}

/// The text values of the tokens.
pub fn values(tokens: &[TokenValue]) -> Vec<&str> {
    tokens.iter().map(TokenValue::as_str).collect()
}
