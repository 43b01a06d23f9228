//! `list`: one page of a pool's tokens. See `lua/list.lua`.

use fred::types::Value;

use super::inspect::view;
use super::reply::Reply;
use super::shard::{Shard, number, text_or_empty};
use crate::token::{Invalid, Page, State, StoreError};

/// Where a walk goes on: Redis's own cursor, and how much of what it gives has been shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    scan: u64,
    skip: u64,
}

impl Cursor {
    /// From its public form `<scan>.<skip>`.
    pub fn parse(text: Option<&str>) -> Result<Self, Invalid> {
        let Some(text) = text else {
            return Ok(Self::default());
        };
        text.split_once('.')
            .and_then(|(scan, skip)| {
                Some(Self {
                    scan: scan.parse().ok()?,
                    // A page never skips more than Redis keeps in one bucket of a small hash.
                    skip: skip.parse().ok().filter(|skip| *skip < 1 << 32)?,
                })
            })
            .ok_or_else(|| Invalid("must be the cursor of the page before".to_owned()))
    }
}

pub(super) fn encode(
    shard: &Shard,
    state: Option<State>,
    cursor: Cursor,
    limit: usize,
) -> Vec<Value> {
    let mut args = Vec::new();
    shard.encode(&mut args);
    args.push(text_or_empty(state.map(State::as_str)));
    args.push(number(cursor.scan));
    args.push(number(cursor.skip));
    args.push(number(limit as u64));
    args
}

/// `None`: the shard is stale.
pub(super) fn decode(mut reply: Reply) -> Result<Option<Page>, StoreError> {
    match reply.tag.as_str() {
        "stale" => Ok(None),
        "page" => {
            let scan = reply.text()?;
            let skip = reply.int()?;
            let tokens = reply.rest().map(|entry| {
                let mut entry = Reply::untagged(entry)?;
                let token = entry.token()?;
                view(token, &mut entry)
            });
            Ok(Some(Page {
                tokens: tokens.collect::<Result<_, _>>()?,
                cursor: Some(format!("{scan}.{skip}")).filter(|_| !scan.is_empty()),
            }))
        }
        _ => reply.unknown(),
    }
}
