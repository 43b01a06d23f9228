//! `commit`: decide what an addition over several shards is about. See `lua/commit.lua`.

use fred::types::Value;

use super::batch::Verb;
use super::generate::split;
use super::reply::Reply;
use super::shard::{Shard, number, tokens_weight};
use crate::token::{IdempotencyKey, StoreError, TokenValue};

/// What is added under one key, decided once.
#[derive(Debug, Clone, Default)]
pub(super) struct Decision {
    /// Names it, and the reservations for it; empty for none yet.
    pub operation: String,
    /// How many of the caller's values the pool had.
    pub existing: u64,
    pub tokens: Vec<TokenValue>,
}

#[derive(Debug)]
pub(super) enum Committed {
    Ours,
    Found(Decision),
    None,
    Mismatch,
}

pub(super) struct Commit {
    pub shard: Shard,
    pub key: IdempotencyKey,
    pub fingerprint: String,
    /// Without an operation it only looks.
    pub decision: Decision,
}

impl Verb for Commit {
    type Outcome = Committed;
    const NAME: &'static str = "commit";

    fn shard(&self) -> &Shard {
        &self.shard
    }

    fn weight(&self) -> usize {
        tokens_weight(&self.decision.tokens).max(1)
    }

    fn encode(&self, args: &mut Vec<Value>) {
        let Decision {
            operation,
            existing,
            tokens,
        } = &self.decision;
        args.push(self.key.as_str().into());
        args.push(self.fingerprint.as_str().into());
        args.push(operation.as_str().into());
        args.push(number(*existing));
        args.push(number(tokens.len() as u64));
        args.extend(tokens.iter().map(|token| token.as_str().into()));
    }

    fn decode(&self, mut reply: Reply, _now_ms: u64) -> Result<Committed, StoreError> {
        match reply.tag.as_str() {
            "committed" => Ok(Committed::Ours),
            "none" => Ok(Committed::None),
            "found" => Ok(Committed::Found(Decision {
                operation: reply.text()?,
                existing: reply.int()?,
                tokens: split(&reply.text()?)?,
            })),
            "mismatch" => Ok(Committed::Mismatch),
            _ => reply.unknown(),
        }
    }
}
