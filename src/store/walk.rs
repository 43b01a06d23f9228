//! An assign over the shards of a pool: `assign` asked of one after the other until one grants.
//!
//! Without a key it goes over them in a random order, and on past one that does not answer: a grant that nobody was
//! told of is given back, or lapses. The pool is empty only if each shard was seen so.
//!
//! **Under a key** there must be one grant however many walk at once and whatever became of those before. All walk
//! in the key's own order, in rounds. A shard remembers the grant, or the last round in which it was passed, and
//! grants in no round that it has passed; a walk goes on only from a shard that has passed its round, and begins
//! a round only when all have passed the one before. So a grant in a round excludes each other one, in this round
//! (of two shards one comes first, and was passed) and in the next (which never begins). A shard that does not
//! answer ends the walk: it may have granted.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rand::seq::SliceRandom;

use super::Inner;
use super::assign::{Asked, Assign, AssignRequest, Hint, Leg, Offer};
use super::register::Entry;
use super::shard::Place;
use crate::token::{AssignOutcome, IdempotencyKey, PoolName, StoreError, TokenValue};

/// How long a shard is waited for before the next is asked besides: many times what an answer takes, so that a Redis
/// that is merely busy is not asked for more; and a few times in what an answer may take, so that shards of a frozen
/// primary leave time for the others.
const PATIENCE_MS: u64 = 300;
/// Times that a call begins again because its pool was made again meanwhile.
pub(super) const REMADE_MAX: usize = 5;

type Answer = AssignOutcome<Offer>;

impl Inner {
    /// Asks one shard after the other; the caller has the time limit.
    pub(super) async fn walk(
        self: &Arc<Self>,
        pool: &PoolName,
        request: &AssignRequest,
    ) -> Result<Answer, StoreError> {
        self.ready().await?;
        for _ in 0..REMADE_MAX {
            let Some(entry) = self.registry.entry(self, pool).await? else {
                return Ok(AssignOutcome::PoolNotFound);
            };
            let shards = entry.policy.shards;
            let walk = Walk {
                inner: self,
                pool,
                entry: &entry,
                request,
            };
            let answer = match (&request.key, &request.token) {
                _ if shards == 1 => walk.only(0).await?,
                (None, Some(token)) => walk.only(token.shard(shards)).await?,
                (None, None) => Box::pin(walk.anywhere()).await?,
                (Some(key), _) => Box::pin(walk.in_rounds(key)).await?,
            };
            if let Some(answer) = answer {
                return Ok(answer);
            }
        }
        Err(remade())
    }
}

/// Why a call ends whose pool is made again and again.
pub(super) fn remade() -> StoreError {
    StoreError::Unavailable("the pool is being changed".to_owned())
}

/// One walk over one making of a pool. `None` from its steps: it was deleted meanwhile, or made again.
struct Walk<'a> {
    inner: &'a Arc<Inner>,
    pool: &'a PoolName,
    entry: &'a Entry,
    request: &'a AssignRequest,
}

impl Walk<'_> {
    async fn ask(&self, number: u32, leg: Leg) -> Result<Option<Asked>, StoreError> {
        let store = Arc::downgrade(self.inner);
        let item = |shard| Assign::new(shard, self.request, leg, store.clone());
        let place = Place::Shard(number as usize, self.entry.generation);
        let batchers = &self.inner.batchers.assign;
        self.inner.rounds(self.pool, place, batchers, item).await
    }

    async fn only(&self, number: u32) -> Result<Option<Answer>, StoreError> {
        let asked = self.ask(number, Leg::default()).await?;
        Ok(asked.map(|asked| match asked {
            Asked::Answer(answer) => answer,
            Asked::Empty(hint) | Asked::Passed { hint, .. } => hint.empty(),
        }))
    }

    /// Without a key: whichever grants first. One that is slow is waited for along with the next; should it grant
    /// too late, its grant is given back.
    async fn anywhere(&self) -> Result<Option<Answer>, StoreError> {
        let shards = self.entry.policy.shards;
        // Not one after the other: neighbours lie on one primary.
        let mut order: Vec<_> = (0..shards).collect();
        order.shuffle(&mut rand::rng());
        let mut left = order.into_iter();
        let mut asked = FuturesUnordered::new();
        let (mut hint, mut failure) = (Hint::default(), None);
        loop {
            if asked.is_empty() {
                let Some(number) = left.next() else { break };
                asked.push(self.ask(number, Leg::default()));
            }
            let patience = Duration::from_millis(PATIENCE_MS);
            let answer = tokio::select! {
                biased;
                Some(answer) = asked.next() => answer,
                () = tokio::time::sleep(patience), if left.len() > 0 => {
                    asked.extend(left.next().map(|number| self.ask(number, Leg::default())));
                    continue;
                }
            };
            match answer {
                Ok(None) => return Ok(None),
                Ok(Some(Asked::Answer(answer))) => return Ok(Some(answer)),
                Ok(Some(Asked::Empty(here) | Asked::Passed { hint: here, .. })) => hint.merge(here),
                Err(error) => failure = Some(worse(failure, error)),
            }
        }
        // A shard that did not answer was not seen empty.
        failure.map_or_else(|| Ok(Some(hint.empty())), Err)
    }

    /// Under a key.
    async fn in_rounds(&self, key: &IdempotencyKey) -> Result<Option<Answer>, StoreError> {
        let shards = self.entry.policy.shards;
        let start = first_shard(key, shards);
        let mut round = 1;
        // At most the rest of the round that others began, and one that lies within this call.
        let mut ours = false;
        loop {
            let mut hint = Hint::default();
            for number in (start..shards).chain(0..start) {
                let token = self.request.token.as_ref();
                let elsewhere = token.is_some_and(|token| token.shard(shards) != number);
                match self.ask(number, Leg { round, elsewhere }).await? {
                    None => return Ok(None),
                    Some(Asked::Answer(answer)) => return Ok(Some(answer)),
                    Some(Asked::Empty(here)) => {
                        // The first shard has passed no round: nobody walked before this call.
                        ours |= number == start;
                        hint.merge(here);
                    }
                    Some(Asked::Passed {
                        round: passed,
                        hint: here,
                    }) => {
                        round = passed.max(round);
                        hint.merge(here);
                    }
                }
            }
            if ours {
                return Ok(Some(hint.empty()));
            }
            ours = true;
            round += 1;
        }
    }
}

/// The shard in which a key's walk starts, and in which its additions are decided.
pub(super) fn first_shard(key: &IdempotencyKey, shards: u32) -> u32 {
    // Hashed as a token's place is: what is good for one text is good for the other.
    TokenValue::parse(key.as_str()).map_or(0, |key| key.shard(shards))
}

/// Of two failures the one that leaves more open.
pub(super) fn worse(one: Option<StoreError>, other: StoreError) -> StoreError {
    match one {
        Some(StoreError::OutcomeUnknown(why)) => StoreError::OutcomeUnknown(why),
        _ => other,
    }
}
