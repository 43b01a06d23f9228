//! `list`: one page of a pool's tokens. See `lua/list.lua`.

use std::fmt;

use fred::types::Value;

use super::inspect::view;
use super::reply::{Reply, protocol};
use super::shard::{Shard, number, text_or_empty};
use crate::token::{Invalid, State, StoreError, TokenValue, TokenView};

/// Where a walk goes on: in which of the pool's shards, Redis's own cursor there, and the last token shown of
/// what that gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    pub shard: usize,
    scan: u64,
    after: Option<TokenValue>,
}

/// What one call shows.
pub(super) struct Step {
    pub tokens: Vec<TokenView>,
    /// Where the walk goes on in this shard; `None` at its end.
    pub next: Option<Cursor>,
}

impl Cursor {
    /// From its public form `<scan>.<token in hex>`, with `.<shard>` behind it where that is not the first.
    pub fn parse(text: Option<&str>) -> Result<Self, Invalid> {
        let Some(text) = text else {
            return Ok(Self::default());
        };
        let mut parts = text.splitn(3, '.');
        let mut read = || {
            Some(Self {
                scan: parts.next()?.parse().ok()?,
                after: match parts.next()? {
                    "" => None,
                    hex => Some(from_hex(hex)?),
                },
                shard: match parts.next() {
                    None => 0,
                    Some(shard) => shard.parse().ok()?,
                },
            })
        };
        read().ok_or_else(Self::unknown)
    }

    /// With which that shard begins.
    pub fn at_shard(shard: usize) -> Self {
        Self {
            shard,
            ..Self::default()
        }
    }

    /// Why a cursor is refused.
    pub fn unknown() -> Invalid {
        Invalid("must be the cursor of the page before".to_owned())
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.", self.scan)?;
        let after = self.after.as_ref().map_or("", TokenValue::as_str);
        after.bytes().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        match self.shard {
            0 => Ok(()),
            shard => write!(f, ".{shard}"),
        }
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

/// What the shard of that number answered. `None`: it is stale.
pub(super) fn decode(mut reply: Reply, shard: usize) -> Result<Option<Step>, StoreError> {
    match reply.tag.as_str() {
        "stale" => Ok(None),
        "page" => {
            let (scan, after) = (reply.text()?, reply.text()?);
            let next = match scan.as_str() {
                "" => None,
                scan => Some(Cursor {
                    shard,
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
            Ok(Some(Step {
                tokens: tokens.collect::<Result<_, _>>()?,
                next,
            }))
        }
        _ => reply.unknown(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_names_its_shard_but_for_the_first() {
        let parse = |text| Cursor::parse(Some(text));
        for text in ["0.", "17.", "5.61", "5.61.2", "0..15"] {
            assert_eq!(parse(text).expect("a cursor").to_string(), text);
        }
        assert_eq!(parse("5.61.2").expect("a cursor").shard, 2);
        // As they were before there were shards.
        assert_eq!(parse("5.61").expect("a cursor").shard, 0);
        for text in ["", "5", "5.6", "5.61.", "5.61.-1", "5.61.2.3", "5.61.x"] {
            assert_eq!(parse(text), Err(Cursor::unknown()), "{text}");
        }
    }
}
