//! `reserve`: keep room in a shard for tokens that are about to be added. See `lua/reserve.lua`.

use fred::types::Value;

use super::batch::Verb;
use super::reply::{Reply, protocol};
use super::shard::{Shard, number, tokens_weight};
use crate::token::{StoreError, TokenValue};

/// What a reservation is for.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    /// So many that are yet to be made: as many as there is room for.
    Any(usize),
    /// These, but for those that the shard has: all of them or none.
    These(Vec<TokenValue>),
    /// Nothing any more.
    Nothing,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Reserved {
    Room {
        tokens: usize,
        /// How much others have reserved here: they may let go of it yet.
        others: u64,
        /// Positions, from 0, of the tokens that the shard has.
        existing: Vec<usize>,
    },
    LetGo,
}

pub(super) struct Reserve {
    pub shard: Shard,
    pub id: String,
    /// It lapses by itself after this.
    pub ttl_ms: u64,
    pub wanted: Wanted,
}

impl Reserve {
    fn tokens(&self) -> &[TokenValue] {
        match &self.wanted {
            Wanted::These(tokens) => tokens,
            Wanted::Any(_) | Wanted::Nothing => &[],
        }
    }
}

impl Verb for Reserve {
    type Outcome = Reserved;
    const NAME: &'static str = "reserve";

    fn shard(&self) -> &Shard {
        &self.shard
    }

    fn weight(&self) -> usize {
        tokens_weight(self.tokens()).max(1)
    }

    fn encode(&self, args: &mut Vec<Value>) {
        let (ttl_ms, wanted) = match self.wanted {
            Wanted::Any(count) => (self.ttl_ms, count),
            Wanted::These(_) => (self.ttl_ms, 0),
            Wanted::Nothing => (0, 0),
        };
        args.push(self.id.as_str().into());
        args.push(number(ttl_ms));
        args.push(number(wanted as u64));
        args.push(number(self.tokens().len() as u64));
        args.extend(self.tokens().iter().map(|token| token.as_str().into()));
    }

    fn decode(&self, mut reply: Reply, _now_ms: u64) -> Result<Reserved, StoreError> {
        match reply.tag.as_str() {
            "reserved" => Ok(Reserved::Room {
                tokens: usize::try_from(reply.int()?).map_err(|_| protocol("a count", &"more"))?,
                others: reply.int()?,
                existing: positions(&reply.list()?, self.tokens().len())?,
            }),
            "let_go" => Ok(Reserved::LetGo),
            _ => reply.unknown(),
        }
    }
}

/// Positions, from 0, among so many, of a script's, which count from 1.
pub(super) fn positions(told: &[Value], count: usize) -> Result<Vec<usize>, StoreError> {
    let read = |position: &Value| {
        let at = position.as_usize()?.checked_sub(1)?;
        (at < count).then_some(at)
    };
    told.iter()
        .map(|position| read(position).ok_or_else(|| protocol("a position", position)))
        .collect()
}
