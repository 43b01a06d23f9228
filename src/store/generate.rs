//! `generate`: add tokens to a pool, generated or the caller's own. See `lua/generate.lua`.

use fred::types::Value;

use super::batch::Verb;
use super::fingerprint::fingerprint;
use super::reply::{Reply, protocol};
use super::shard::{
    Shard, encode_metadata, metadata_weight, number, number_or_zero, text_or_empty,
};
use crate::token::{
    Created, GenerateOutcome, Holder, IdempotencyKey, Metadata, StoreError, TokenValue,
};

/// What to add to a pool.
#[derive(Debug, Clone)]
pub enum NewTokens {
    /// So many generated ones, 1 to [`crate::token::TOKENS_PER_CALL_MAX`].
    Generate(usize),
    /// The caller's own values, 1 to [`crate::token::TOKENS_PER_CALL_MAX`].
    Import(Vec<TokenValue>),
}

#[derive(Debug, Clone)]
pub struct GenerateRequest {
    pub tokens: NewTokens,
    pub key: Option<IdempotencyKey>,
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

pub(super) struct Generate {
    shard: Shard,
    key: Option<IdempotencyKey>,
    fingerprint: String,
    subject: Option<Holder>,
    lifetime_ms: Option<u64>,
    metadata: Metadata,
    tokens: Vec<TokenValue>,
}

impl Generate {
    pub fn new(shard: Shard, request: &GenerateRequest) -> Self {
        let (tokens, fingerprint) = match &request.tokens {
            NewTokens::Generate(count) => (
                (0..*count).map(|_| TokenValue::generate()).collect(),
                fingerprint(["generate", &count.to_string()]),
            ),
            NewTokens::Import(tokens) => (
                tokens.clone(),
                fingerprint(std::iter::once("import").chain(tokens.iter().map(TokenValue::as_str))),
            ),
        };
        Self {
            shard,
            key: request.key.clone(),
            fingerprint,
            subject: None,
            lifetime_ms: None,
            metadata: Metadata::default(),
            tokens,
        }
    }

    pub fn birth(shard: Shard, birth: &Birth) -> Self {
        Self {
            shard,
            key: None,
            fingerprint: String::new(),
            subject: birth.subject.clone(),
            lifetime_ms: birth.lifetime_ms,
            metadata: birth.metadata.clone(),
            tokens: vec![birth.id.clone()],
        }
    }

    /// Those given, but for the positions (from 1, rising) of those that the pool had.
    fn added(
        &self,
        existing: &[Value],
        born: Option<Created>,
    ) -> Result<GenerateOutcome, StoreError> {
        let mut had = vec![false; self.tokens.len()];
        for position in existing {
            position
                .as_usize()
                .and_then(|position| had.get_mut(position.wrapping_sub(1)))
                .map(|had| *had = true)
                .ok_or_else(|| protocol("a position", position))?;
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
        self.tokens.len().max(metadata_weight(&self.metadata))
    }

    fn encode(&self, args: &mut Vec<Value>) {
        args.push(text_or_empty(self.key.as_ref().map(IdempotencyKey::as_str)));
        args.push(self.fingerprint.as_str().into());
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
                let tokens = joined.split('\n').filter(|token| !token.is_empty());
                Ok(GenerateOutcome::Added {
                    tokens: tokens
                        .map(|token| {
                            TokenValue::parse(token).map_err(|_| protocol("tokens", &"text"))
                        })
                        .collect::<Result<_, _>>()?,
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
