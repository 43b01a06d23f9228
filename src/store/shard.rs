//! The part of a pool that lies in one partition, as a call names it.

use fred::types::Value;

use crate::token::{Metadata, PoolName, TokenValue};

/// Which pool, which making of it, and which policy the caller has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shard {
    pub pool: PoolName,
    pub partition: usize,
    /// Another number each time that a pool of this name is made.
    pub generation: u64,
    /// Counts the changes of its policy.
    pub version: u64,
}

impl Shard {
    /// The first three arguments of each item.
    pub fn encode(&self, args: &mut Vec<Value>) {
        args.push(self.pool.as_str().into());
        args.push(number(self.generation));
        args.push(number(self.version));
    }
}

/// Which shard of a pool a call is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// That in which this token lies.
    Token(&'a TokenValue),
    /// That of this number.
    Number(usize),
    /// That of this number, in the making of the pool that has this generation.
    Shard(usize, u64),
    /// That in this partition: a bearer token tells it.
    Partition(usize),
}

/// A number as an argument.
pub(super) fn number(value: u64) -> Value {
    value.to_string().into()
}

/// A number as an argument, 0 for none.
pub(super) fn number_or_zero(value: Option<u64>) -> Value {
    number(value.unwrap_or(0))
}

/// A text as an argument, empty for none.
pub(super) fn text_or_empty(value: Option<&str>) -> Value {
    value.unwrap_or_default().into()
}

/// How many bytes weigh as much as one token in a batch: about what copying them costs.
const BYTES_PER_WEIGHT: usize = 512;

/// Metadata as arguments: how many members, then their names and JSON texts in turn.
pub(super) fn encode_metadata(metadata: &Metadata, args: &mut Vec<Value>) {
    args.push(number(metadata.len() as u64));
    for (name, value) in metadata.members() {
        args.push(name.into());
        args.push(value.into());
    }
}

/// What an item with this metadata weighs in a batch.
pub(super) fn metadata_weight(metadata: &Metadata) -> usize {
    1 + metadata.bytes() / BYTES_PER_WEIGHT
}

/// What an item that names this token weighs in a batch.
pub(super) fn token_weight(token: &TokenValue) -> usize {
    1 + token.as_str().len() / BYTES_PER_WEIGHT
}

/// What an item with these tokens weighs in a batch.
pub(super) fn tokens_weight(tokens: &[TokenValue]) -> usize {
    tokens.iter().map(token_weight).sum()
}
