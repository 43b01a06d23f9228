//! `generate`: add tokens to a pool, generated or the caller's own. See `lua/generate.lua`.

use fred::types::Value;

use super::batch::Verb;
use super::fingerprint::fingerprint;
use super::reply::{Reply, protocol};
use super::reserve::positions;
use super::shard::{
    Shard, encode_metadata, metadata_weight, number, number_or_zero, text_or_empty, tokens_weight,
};
use crate::token::{
    Created, GenerateOutcome, Holder, IdempotencyKey, Metadata, NewToken, StoreError, TokenValue,
};

/// What to add to a pool.
#[derive(Debug, Clone)]
pub enum NewTokens {
    /// So many generated ones, 1 to [`crate::token::TOKENS_PER_CALL_MAX`].
    Generate(usize),
    /// The caller's own values, 1 to [`crate::token::TOKENS_PER_CALL_MAX`].
    Import(Vec<NewToken>),
}

#[derive(Debug, Clone)]
pub struct GenerateRequest {
    pub tokens: NewTokens,
    pub key: Option<IdempotencyKey>,
}

impl GenerateRequest {
    /// Tells it from another request under the same key. A retry has the same bytes, so values count as they were
    /// given.
    pub(super) fn fingerprint(&self) -> String {
        match &self.tokens {
            NewTokens::Generate(count) => fingerprint(["generate", &count.to_string()]),
            NewTokens::Import(tokens) => {
                let given = tokens.iter().map(|token| token.given().as_str());
                fingerprint(std::iter::once("import").chain(given))
            }
        }
    }
}

/// A bearer token that comes into being held.
#[derive(Debug, Clone)]
pub(super) struct Birth {
    /// What the store knows it by: its hash, or its family's name.
    pub id: TokenValue,
    pub subject: Option<Holder>,
    /// Instead of the flow's lifetime; 1 s to 30 d.
    pub lifetime_ms: Option<u64>,
    pub metadata: Metadata,
}

/// Under what a shard remembers what it added.
enum Key {
    Caller(IdempotencyKey, String),
    Operation(String),
}

pub(super) struct Generate {
    shard: Shard,
    /// The caller's, or of an addition over several shards, which has reserved room under that name.
    key: Option<Key>,
    subject: Option<Holder>,
    lifetime_ms: Option<u64>,
    metadata: Metadata,
    /// Room that was reserved for the tokens; empty for none.
    reservation: String,
    tokens: Vec<TokenValue>,
}

/// The values of an import, as the pool gets them.
pub(super) fn values(tokens: &[NewToken]) -> Vec<TokenValue> {
    tokens.iter().map(NewToken::value).cloned().collect()
}

/// Tokens as scripts keep them in one text.
pub(super) fn split(joined: &str) -> Result<Vec<TokenValue>, StoreError> {
    let tokens = joined.split('\n').filter(|token| !token.is_empty());
    tokens
        .map(|token| TokenValue::parse(token).map_err(|_| protocol("tokens", &"text")))
        .collect()
}

impl Generate {
    pub fn new(shard: Shard, request: &GenerateRequest) -> Self {
        let tokens = match &request.tokens {
            NewTokens::Generate(count) => (0..*count).map(|_| TokenValue::generate()).collect(),
            NewTokens::Import(tokens) => values(tokens),
        };
        let fingerprint = request.fingerprint();
        Self {
            shard,
            reservation: String::new(),
            key: request.key.clone().map(|key| Key::Caller(key, fingerprint)),
            subject: None,
            lifetime_ms: None,
            metadata: Metadata::default(),
            tokens,
        }
    }

    pub fn birth(shard: Shard, birth: &Birth) -> Self {
        Self {
            shard,
            reservation: String::new(),
            key: None,
            subject: birth.subject.clone(),
            lifetime_ms: birth.lifetime_ms,
            metadata: birth.metadata.clone(),
            tokens: vec![birth.id.clone()],
        }
    }

    /// A shard's part of an addition over several, under the reservation of that name; remembered under it, if
    /// the same may come again.
    pub fn part(
        shard: Shard,
        reservation: &str,
        remembered: bool,
        tokens: Vec<TokenValue>,
    ) -> Self {
        Self {
            shard,
            key: remembered.then(|| Key::Operation(reservation.to_owned())),
            reservation: reservation.to_owned(),
            subject: None,
            lifetime_ms: None,
            metadata: Metadata::default(),
            tokens,
        }
    }

    /// Those given, but for the positions (from 1, rising) of those that the pool had.
    fn added(
        &self,
        existing: &[Value],
        born: Option<Created>,
    ) -> Result<GenerateOutcome, StoreError> {
        let mut had = vec![false; self.tokens.len()];
        for position in positions(existing, self.tokens.len())? {
            had[position] = true;
        }
        let new = self.tokens.iter().zip(had).filter(|(_, had)| !had);
        Ok(GenerateOutcome::Added {
            tokens: new.map(|(token, _)| token.clone()).collect(),
            existing: existing.len() as u64,
            born,
        })
    }
}

impl Verb for Generate {
    type Outcome = GenerateOutcome;
    const NAME: &'static str = "generate";

    fn shard(&self) -> &Shard {
        &self.shard
    }

    fn weight(&self) -> usize {
        tokens_weight(&self.tokens).max(metadata_weight(&self.metadata))
    }

    fn encode(&self, args: &mut Vec<Value>) {
        let (key, fingerprint) = match &self.key {
            None => ("", ""),
            Some(Key::Caller(key, fingerprint)) => (key.as_str(), fingerprint.as_str()),
            Some(Key::Operation(name)) => (name.as_str(), "-"),
        };
        args.extend([key, fingerprint, &self.reservation].map(Value::from));
        args.push(text_or_empty(self.subject.as_ref().map(Holder::as_str)));
        args.push(number_or_zero(self.lifetime_ms));
        encode_metadata(&self.metadata, args);
        args.push(number(self.tokens.len() as u64));
        args.extend(self.tokens.iter().map(|token| token.as_str().into()));
    }

    fn decode(&self, mut reply: Reply, now_ms: u64) -> Result<GenerateOutcome, StoreError> {
        match reply.tag.as_str() {
            "added" => {
                let existing = reply.list()?;
                let born = reply.int_or_none()?.map(|expires_at_ms| Created {
                    created_at_ms: now_ms,
                    expires_at_ms,
                });
                self.added(&existing, born)
            }
            "replayed" => {
                let existing = reply.int()?;
                let joined = reply.text()?;
                Ok(GenerateOutcome::Added {
                    tokens: split(&joined)?,
                    existing,
                    born: None,
                })
            }
            "full" => Ok(GenerateOutcome::PoolFull {
                max_tokens: reply.int()?,
                total: reply.int()?,
            }),
            "mismatch" => Ok(GenerateOutcome::IdempotencyMismatch),
            _ => reply.unknown(),
        }
    }
}
