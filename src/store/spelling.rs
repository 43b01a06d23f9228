//! The spelling under which a pool has a token. New tokens are stored in NFC. Older versions stored what they were
//! given, so a name in another form is looked up as it was given first: only that form can be meant exactly.
//!
//! Versions since then add no other form, so one that was absent stays absent, and the look and the act that
//! follows need not be one step.

use std::borrow::Cow;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::Inner;
use super::batch::{BATCH_TOKENS_MAX, Batcher, Verb};
use super::generate::{GenerateRequest, NewTokens};
use super::inspect::Inspect;
use super::shard::{Place, Shard};
use crate::token::{NewToken, PoolName, StoreError, TokenValue};

impl Inner {
    /// Sends an item about the token of that name to its shard. `None`: no such pool.
    pub(super) async fn run_named<V: Verb>(
        &self,
        pool: &PoolName,
        name: &TokenValue,
        batchers: &[Arc<Batcher<V>>],
        item: impl Fn(Shard, TokenValue) -> V,
    ) -> Result<Option<V::Outcome>, StoreError> {
        let writes = batchers.iter().any(|batcher| batcher.writes());
        let steps = async {
            let token = self.spelling(pool, name).await?;
            let item = |shard| item(shard, TokenValue::clone(&token));
            self.rounds(pool, Place::Token(&token), batchers, item)
                .await
        };
        self.within(writes, steps).await
    }

    /// The name as it was given if it is in NFC or the pool has it so, else in NFC.
    pub(super) async fn spelling<'a>(
        &self,
        pool: &PoolName,
        name: &'a TokenValue,
    ) -> Result<Cow<'a, TokenValue>, StoreError> {
        match name.nfc() {
            Some(nfc) if !Box::pin(self.has(pool, name)).await? => Ok(Cow::Owned(nfc)),
            _ => Ok(Cow::Borrowed(name)),
        }
    }

    /// The request with its new tokens in the spelling that the pool has: an import that is repeated must not add
    /// a second spelling of what an older version has stored.
    pub(super) async fn respelled<'a>(
        &self,
        pool: &PoolName,
        request: &'a GenerateRequest,
    ) -> Result<Cow<'a, GenerateRequest>, StoreError> {
        let NewTokens::Import(tokens) = &request.tokens else {
            return Ok(Cow::Borrowed(request));
        };
        if !tokens.iter().any(NewToken::is_respelled) {
            return Ok(Cow::Borrowed(request));
        }
        let looks = stream::iter(tokens.clone()).map(|token| self.respell(pool, token));
        let looks = looks.buffered(BATCH_TOKENS_MAX);
        Ok(Cow::Owned(GenerateRequest {
            tokens: NewTokens::Import(looks.try_collect().await?),
            key: request.key.clone(),
        }))
    }

    async fn respell(&self, pool: &PoolName, mut token: NewToken) -> Result<NewToken, StoreError> {
        if token.is_respelled() && self.has(pool, token.given()).await? {
            token.keep_as_given();
        }
        Ok(token)
    }

    async fn has(&self, pool: &PoolName, token: &TokenValue) -> Result<bool, StoreError> {
        let item = |shard| Inspect {
            shard,
            token: token.clone(),
            with_metadata: false,
        };
        let batchers = &self.batchers.inspect;
        let found = self
            .rounds(pool, Place::Token(token), batchers, item)
            .await?;
        Ok(found.is_some_and(|found| found.is_some()))
    }
}
