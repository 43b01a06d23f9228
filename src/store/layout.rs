//! `layout`: agree on the number of partitions, and hear whether the data set has moved on. See `lua/layout.lua`.

use fred::types::Value;

use super::Inner;
use super::keys::SCHEMA;
use super::reply::Answer;
use super::shard::number;
use crate::token::StoreError;

/// The script's keys and arguments.
pub(super) fn encode(inner: &Inner) -> (Vec<String>, Vec<Value>) {
    let mine = inner.keys.partitions.len() as u64;
    (vec![inner.keys.layout.clone()], vec![number(mine)])
}

/// What all replicas of a data set agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// The number of partitions that it was made with; made now if there was none.
    pub partitions: u64,
    /// The key schema to which it has moved.
    pub superseded_by: Option<u64>,
}

impl Layout {
    /// Why this tokend can't use it; `None`: it can.
    pub fn refusal(self, inner: &Inner) -> Option<String> {
        let ours = inner.keys.partitions.len() as u64;
        let Self {
            partitions: theirs,
            superseded_by,
        } = self;
        if let Some(newer) = superseded_by {
            return Some(format!(
                "this data set has moved to key schema {newer}, and this tokend knows schema {SCHEMA}: run the \
                 newer tokend, or go back as docs/OPERATIONS.md says (Upgrade and rollback)"
            ));
        }
        (theirs != ours).then(|| {
            format!(
                "PARTITIONS is {ours}, but this data set was made with {theirs}: set PARTITIONS={theirs}, or another \
                 KEY_PREFIX for a new data set"
            )
        })
    }
}

pub(super) fn decode(answer: Answer) -> Result<Layout, StoreError> {
    let mut reply = answer.only()?;
    match reply.tag.as_str() {
        "layout" => Ok(Layout {
            partitions: reply.int()?,
            superseded_by: reply.int_or_none()?,
        }),
        _ => reply.unknown(),
    }
}

/// Asks, and is told.
pub(super) async fn layout(inner: &Inner) -> Result<Layout, StoreError> {
    let (keys, args) = encode(inner);
    decode(inner.call(&inner.scripts.layout, keys, args).await?)
}
