//! `list`: one page of a pool's tokens. See `lua/list.lua`.

use std::fmt;

use fred::types::Value;

use super::inspect::view;
use super::reply::{Reply, protocol};
use super::shard::{Shard, number, text_or_empty};
use crate::token::{Invalid, State, StoreError, TokenView};

/// Characters of a digest: SHA-1 in hex.
const DIGEST_CHARS: usize = 40;

/// Where a walk goes on: in which of the pool's shards, Redis's own cursor there, and how far what that gives is
/// shown already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    pub shard: usize,
    scan: u64,
    shown: Option<Shown>,
}

/// A step of Redis that did not fit a page.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    /// Redis's cursor behind it.
    till: u64,
    /// The digest of the last token of it that was shown, in the order of digests.
    after: String,
}

/// What one call shows.
pub(super) struct Step {
    pub tokens: Vec<TokenView>,
    /// Where the walk goes on in this shard; `None` at its end.
    pub next: Option<Cursor>,
}

impl Cursor {
    /// From its public form: `<scan>.`, `<till>~<digest>` where a step was cut, and `.<shard>` where that is not the
    /// first.
    pub fn parse(text: Option<&str>) -> Result<Self, Invalid> {
        let Some(text) = text else {
            return Ok(Self::default());
        };
        let mut parts = text.splitn(3, '.');
        let mut read = || {
            Some(Self {
                scan: parts.next()?.parse().ok()?,
                shown: match parts.next()? {
                    "" => None,
                    shown => Some(Shown::parse(shown)?),
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

impl Shown {
    fn parse(text: &str) -> Option<Self> {
        let (till, after) = text.split_once('~')?;
        Some(Self {
            till: till.parse().ok()?,
            after: digest(after)?,
        })
    }
}

fn digest(text: &str) -> Option<String> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (text.len() == DIGEST_CHARS && text.bytes().all(hex)).then(|| text.to_owned())
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.", self.scan)?;
        if let Some(Shown { till, after }) = &self.shown {
            write!(f, "{till}~{after}")?;
        }
        match self.shard {
            0 => Ok(()),
            shard => write!(f, ".{shard}"),
        }
    }
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
    let shown = cursor.shown.as_ref();
    args.push(text_or_empty(shown.map(|shown| &*shown.after)));
    args.push(shown.map_or(Value::from(""), |shown| number(shown.till)));
    args.push(number(limit as u64));
    args
}

/// What the shard of that number answered. `None`: it is stale.
pub(super) fn decode(mut reply: Reply, shard: usize) -> Result<Option<Step>, StoreError> {
    match reply.tag.as_str() {
        "stale" => Ok(None),
        "page" => {
            let (scan, after, till) = (reply.text()?, reply.text()?, reply.text()?);
            let read = |text: &str| text.parse().map_err(|_| protocol("a cursor", &"text"));
            let shown = match after.as_str() {
                "" => None,
                after => Some(Shown {
                    till: read(&till)?,
                    after: digest(after).ok_or_else(|| protocol("a digest", &"text"))?,
                }),
            };
            let next = match scan.as_str() {
                "" => None,
                scan => Some(Cursor {
                    shard,
                    scan: read(scan)?,
                    shown,
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
        let parse = |text: &str| Cursor::parse(Some(text));
        let cut = format!("5.9~{}", "0af".repeat(13) + "9");
        let in_shard_2 = format!("{cut}.2");
        for text in ["0.", "17.", &cut, &in_shard_2, "0..15"] {
            assert_eq!(parse(text).expect("a cursor").to_string(), text);
        }
        assert_eq!(parse(&in_shard_2).expect("a cursor").shard, 2);
        assert_eq!(parse(&cut).expect("a cursor").shard, 0);
        let wrong = [".", ".-1", ".2.3", ".x", "a", "0"].map(|end| format!("{cut}{end}"));
        let wrong = wrong.iter().map(String::as_str);
        for text in wrong.chain(["", "5", "5.61", "5.~61", "5.9-61", "5.9~61"]) {
            assert_eq!(parse(text), Err(Cursor::unknown()), "{text}");
        }
        assert!(parse(&cut.to_uppercase()).is_err());
    }
}
