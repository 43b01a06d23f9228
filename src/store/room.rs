//! The first half of an addition over several shards (`fill.rs`): room is reserved wherever a token is to lie.

use std::collections::{BTreeSet, HashSet};

use futures_util::future::try_join_all;

use super::commit::Decision;
use super::fill::Fill;
use super::generate::{NewTokens, values};
use super::hold::Hold;
use super::reserve::{Reserve, Reserved, Wanted};
use super::shard::Place;
use crate::token::{StoreError, TokenValue};

/// What all that was asked for room gave.
pub(super) enum Room {
    Enough(Decision),
    Short {
        /// Others have reserved some of it, and may let go of it yet.
        contested: bool,
    },
}

impl Fill<'_> {
    pub async fn reserve(&self, hold: &mut Hold) -> Result<Option<Room>, StoreError> {
        match &self.request.tokens {
            NewTokens::Generate(count) => self.reserve_any(hold, *count).await,
            NewTokens::Import(tokens) => self.reserve_these(hold, &values(tokens)).await,
        }
    }

    /// Room for so many, wherever there is some.
    async fn reserve_any(&self, hold: &mut Hold, count: usize) -> Result<Option<Room>, StoreError> {
        let mut parts = self.parts(&[]);
        let mut open = vec![true; parts.len()];
        let (mut short, mut contested) = (count, false);
        while short > 0 {
            if !open.contains(&true) {
                return Ok(Some(Room::Short { contested }));
            }
            let mut asked = BTreeSet::new();
            for _ in 0..short {
                let (number, token) = new_token_for(&open);
                parts[number].push(token);
                asked.insert(number);
            }
            let wanted = asked.iter().map(|n| (*n, Wanted::Any(parts[*n].len())));
            let Some(given) = self.ask_for_room(hold, wanted.collect()).await? else {
                return Ok(None);
            };
            short = 0;
            for (number, (tokens, others, _)) in asked.into_iter().zip(given) {
                if tokens < parts[number].len() {
                    short += parts[number].len() - tokens;
                    parts[number].truncate(tokens);
                    open[number] = false;
                    contested |= others > 0;
                }
            }
        }
        Ok(Some(Room::Enough(Decision {
            operation: hold.id.clone(),
            existing: 0,
            tokens: parts.concat(),
        })))
    }

    /// Room for these, but for those that the pool has.
    async fn reserve_these(
        &self,
        hold: &mut Hold,
        tokens: &[TokenValue],
    ) -> Result<Option<Room>, StoreError> {
        let parts = self.parts(tokens);
        let full = parts
            .iter()
            .enumerate()
            .filter(|(_, part)| !part.is_empty());
        let wanted = full.map(|(n, part)| (n, Wanted::These(part.clone())));
        let wanted: Vec<_> = wanted.collect();
        let numbers: Vec<_> = wanted.iter().map(|(number, _)| *number).collect();
        let Some(given) = self.ask_for_room(hold, wanted).await? else {
            return Ok(None);
        };
        let mut existing: Vec<HashSet<usize>> = vec![HashSet::new(); parts.len()];
        let (mut short, mut contested) = (false, false);
        for (number, (count, others, had)) in numbers.into_iter().zip(given) {
            if count < parts[number].len() - had.len() {
                short = true;
                contested |= others > 0;
            }
            existing[number] = had.into_iter().collect();
        }
        if short {
            return Ok(Some(Room::Short { contested }));
        }
        let mut next = vec![0; parts.len()];
        let mut new = tokens.to_vec(); // in the order given
        new.retain(|token| {
            let number = token.shard(self.shards()) as usize;
            next[number] += 1;
            !existing[number].contains(&(next[number] - 1))
        });
        Ok(Some(Room::Enough(Decision {
            operation: hold.id.clone(),
            existing: (tokens.len() - new.len()) as u64,
            tokens: new,
        })))
    }

    /// What each shard gave: tokens, how much others have reserved there, positions of those that it had.
    async fn ask_for_room(
        &self,
        hold: &mut Hold,
        wanted: Vec<(usize, Wanted)>,
    ) -> Result<Option<Vec<(usize, u64, Vec<usize>)>>, StoreError> {
        hold.asked.extend(wanted.iter().map(|(number, _)| *number));
        let calls = wanted.into_iter().map(async |(number, wanted)| {
            let item = |shard| Reserve {
                shard,
                id: hold.id.clone(),
                ttl_ms: hold.ttl_ms,
                wanted: wanted.clone(),
            };
            let place = Place::Shard(number, self.entry.generation);
            let batchers = &self.inner.batchers.reserve;
            self.inner.rounds(self.pool, place, batchers, item).await
        });
        let given = try_join_all(calls).await?.into_iter();
        let given = given.map(|reserved| match reserved? {
            Reserved::Room {
                tokens,
                others,
                existing,
            } => Some((tokens, others, existing)),
            Reserved::LetGo => None,
        });
        Ok(given.collect())
    }
}

/// A token that lies in a shard which is open.
fn new_token_for(open: &[bool]) -> (usize, TokenValue) {
    let shards = u32::try_from(open.len()).expect("few shards");
    loop {
        let token = TokenValue::generate();
        let number = token.shard(shards) as usize;
        if open[number] {
            return (number, token);
        }
    }
}
