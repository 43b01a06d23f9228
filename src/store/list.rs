//! `list`: one page of a pool's tokens. See `lua/list.lua`.

use std::fmt;

use fred::types::Value;

use super::inspect::view;
use super::reply::{Reply, protocol};
use super::shard::{Shard, number, text_or_empty};
use crate::token::{Invalid, Page, State, StoreError, TokenValue};

/// Where a walk goes on: Redis's own cursor, and the last token shown of what that gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    scan: u64,
    after: Option<TokenValue>,
}

impl Cursor {
    /// From its public form `<scan>.<token in hex>`.
    pub fn parse(text: Option<&str>) -> Result<Self, Invalid> {
        let Some(text) = text else {
            return Ok(Self::default());
        };
        text.split_once('.')
            .and_then(|(scan, after)| {
                Some(Self {
                    scan: scan.parse().ok()?,
                    after: match after {
                        "" => None,
                        hex => Some(from_hex(hex)?),
                    },
                })
            })
            .ok_or_else(|| Invalid("must be the cursor of the page before".to_owned()))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.", self.scan)?;
        let after = self.after.as_ref().map_or("", TokenValue::as_str);
        after.bytes().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn from_hex(hex: &str) -> Option<TokenValue> {
    let digits: Option<Vec<_>> = hex.chars().map(|digit| digit.to_digit(16)).collect();
    let (pairs, []) = digits.as_ref()?.as_chunks::<2>() else {
        return None;
    };
    let bytes = pairs
        .iter()
        .map(|[high, low]| u8::try_from(high * 16 + low));
    let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().ok()?;
    TokenValue::parse(std::str::from_utf8(&bytes).ok()?).ok()
}

pub(super) fn encode(
    shard: &Shard,
    state: Option<State>,
    cursor: &Cursor,
    limit: usize,
) -> Vec<Value> {
    let mut args = Vec::new();
    shard.encode(&mut args);
    args.push(text_or_empty(state.map(State::as_str)));
    args.push(number(cursor.scan));
    let after = cursor.after.as_ref().map(TokenValue::as_str);
    args.push(text_or_empty(after));
    args.push(number(limit as u64));
    args
}

/// `None`: the shard is stale.
pub(super) fn decode(mut reply: Reply) -> Result<Option<Page>, StoreError> {
    match reply.tag.as_str() {
        "stale" => Ok(None),
        "page" => {
            let (scan, after) = (reply.text()?, reply.text()?);
            let cursor = match scan.as_str() {
                "" => None,
                scan => Some(Cursor {
                    scan: scan.parse().map_err(|_| protocol("a cursor", &"text"))?,
                    after: match after.as_str() {
                        "" => None,
                        after => Some(
                            TokenValue::parse(after).map_err(|_| protocol("a token", &"text"))?,
                        ),
                    },
                }),
            };
            let tokens = reply.rest().map(|entry| {
                let mut entry = Reply::untagged(entry)?;
                let token = entry.token()?;
                view(token, &mut entry)
            });
            Ok(Some(Page {
                tokens: tokens.collect::<Result<_, _>>()?,
                cursor: cursor.map(|cursor| cursor.to_string()),
            }))
        }
        _ => reply.unknown(),
    }
}
