//! `layout`: agree on the number of partitions. See `lua/layout.lua`.

use fred::types::Value;

use super::Inner;
use super::reply::Answer;
use super::shard::number;
use crate::token::StoreError;

/// The script's keys and arguments.
pub(super) fn encode(inner: &Inner) -> (Vec<String>, Vec<Value>) {
    let mine = inner.keys.partitions.len() as u64;
    (vec![inner.keys.layout.clone()], vec![number(mine)])
}

/// The number of partitions that this data set was made with; made now if there was none.
pub(super) fn decode(answer: Answer) -> Result<u64, StoreError> {
    let mut reply = answer.only()?;
    match reply.tag.as_str() {
        "layout" => reply.int(),
        _ => reply.unknown(),
    }
}

/// Asks, and is told.
pub(super) async fn layout(inner: &Inner) -> Result<u64, StoreError> {
    let (keys, args) = encode(inner);
    decode(inner.call(&inner.scripts.layout, keys, args).await?)
}
