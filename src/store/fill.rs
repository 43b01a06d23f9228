//! Adding tokens over the shards of a pool: all of them or none, and never past the cap.
//!
//! Each shard has a share of the cap. First room is reserved wherever a token is to lie, then the tokens are added.
//! A reservation counts against its shard's share, lapses by itself, and is let go of where another shard has no
//! room. Generated tokens are made for shards with room; an import's lie where they lie.
//!
//! **Under a key** there is one decision, kept where the key's walk begins: which tokens, under the name of an
//! operation. It is made once all room is reserved, and whoever comes with the key follows it. A shard remembers
//! what it did under that name, so following it twice adds nothing twice, and nothing that was deleted meanwhile.
//! Its reservations last as long as the decision is found, so that it can always be followed to its end.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::commit::{Commit, Committed, Decision};
use super::generate::{Generate, GenerateRequest, NewTokens, values};
use super::hold::Hold;
use super::register::Entry;
use super::room::Room;
use super::shard::{Place, Shard};
use super::walk::{REMADE_MAX, first_shard, remade, worse};
use super::{Inner, count};
use crate::token::{GenerateOutcome, PoolName, StoreError, TokenValue};

/// When a reservation lapses: far longer than a call lives.
const RESERVED_MS: u64 = 10_000;
/// The same under a key: longer than its decision is found, two windows of 10 minutes at most.
const RESERVED_KEYED_MS: u64 = 21 * 60_000;
/// Pause before what others have reserved is looked at again. By chance, and longer each time, so that those who
/// stand in each other's way do not go on doing so.
const CONTESTED_MS: std::ops::Range<u64> = 5..50;
/// How often the pause doubles.
const DOUBLES_MAX: u32 = 3;
/// Longest that it is looked at again before the pool counts as full.
const CONTESTED_MS_MAX: u64 = 1_200;

impl Inner {
    /// Adds tokens; the caller has the time limit.
    pub(super) async fn fill(
        self: &Arc<Self>,
        pool: &PoolName,
        request: &GenerateRequest,
    ) -> Result<GenerateOutcome, StoreError> {
        self.ready().await?;
        for _ in 0..REMADE_MAX {
            let Some(entry) = self.registry.entry(self, pool).await? else {
                return Ok(GenerateOutcome::PoolNotFound);
            };
            let fill = Fill {
                inner: self,
                pool,
                entry: &entry,
                request,
            };
            let done = match entry.policy.shards {
                1 => {
                    let item = |shard| Generate::new(shard, request);
                    fill.add_at(0, item).await?
                }
                _ => Box::pin(fill.over_all()).await?,
            };
            if let Some(outcome) = done {
                return Ok(outcome);
            }
        }
        Err(remade())
    }
}

/// Whether the key has been decided.
enum Look {
    Undecided,
    Answer(GenerateOutcome),
    Remade,
}

/// One addition to one making of a pool. `None` from its steps: it was deleted meanwhile, or made again.
pub(super) struct Fill<'a> {
    pub inner: &'a Arc<Inner>,
    pub pool: &'a PoolName,
    pub entry: &'a Entry,
    pub request: &'a GenerateRequest,
}

impl Fill<'_> {
    pub fn shards(&self) -> u32 {
        self.entry.policy.shards
    }

    fn place(&self, number: u32) -> Place<'static> {
        Place::Shard(number as usize, self.entry.generation)
    }

    /// The tokens by the shards in which they lie.
    pub fn parts(&self, tokens: &[TokenValue]) -> Vec<Vec<TokenValue>> {
        let mut parts = vec![Vec::new(); self.shards() as usize];
        for token in tokens {
            parts[token.shard(self.shards()) as usize].push(token.clone());
        }
        parts
    }

    async fn over_all(&self) -> Result<Option<GenerateOutcome>, StoreError> {
        let until = Instant::now() + Duration::from_millis(CONTESTED_MS_MAX);
        let mut doubled = 0;
        if let Some(done) = self.in_one_shard().await? {
            return Ok(Some(done));
        }
        loop {
            match self.look().await? {
                Look::Undecided => {}
                Look::Answer(outcome) => return Ok(Some(outcome)),
                Look::Remade => return Ok(None),
            }
            let ttl_ms = match self.request.key {
                None => RESERVED_MS,
                Some(_) => RESERVED_KEYED_MS,
            };
            let shards = self.inner.shards(self.pool, self.entry);
            let mut hold = Hold::new(self.inner, shards, ttl_ms);
            let contested = match self.reserve(&mut hold).await? {
                None => return Ok(None),
                Some(Room::Enough(decision)) => return self.decide(hold, decision).await,
                Some(Room::Short { contested }) => contested,
            };
            hold.let_go().await;
            if !contested || Instant::now() >= until {
                // It may be full of what another call with this key has added.
                return match self.look().await? {
                    Look::Undecided => self.full().await.map(Some),
                    Look::Answer(outcome) => Ok(Some(outcome)),
                    Look::Remade => Ok(None),
                };
            }
            let pause = rand::random_range(CONTESTED_MS) << doubled;
            doubled = DOUBLES_MAX.min(doubled + 1);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Without a key, and where all tokens lie in one shard, that shard does it at once, if it has room.
    async fn in_one_shard(&self) -> Result<Option<GenerateOutcome>, StoreError> {
        let tokens = match &self.request.tokens {
            _ if self.request.key.is_some() => return Ok(None),
            NewTokens::Generate(1) => vec![TokenValue::generate()],
            NewTokens::Generate(_) => return Ok(None),
            NewTokens::Import(tokens) => values(tokens),
        };
        let shard_of = |token: &TokenValue| token.shard(self.shards());
        let number = tokens.first().map_or(0, shard_of);
        if tokens.iter().any(|token| shard_of(token) != number) {
            return Ok(None);
        }
        let item = |shard| Generate::part(shard, "", false, tokens.clone());
        let done = self.add_at(number, item).await?;
        Ok(done.filter(|done| matches!(done, GenerateOutcome::Added { .. })))
    }

    async fn add_at(
        &self,
        number: u32,
        item: impl Fn(Shard) -> Generate,
    ) -> Result<Option<GenerateOutcome>, StoreError> {
        let (place, batchers) = (self.place(number), &self.inner.batchers.generate);
        self.inner.rounds(self.pool, place, batchers, item).await
    }

    async fn full(&self) -> Result<GenerateOutcome, StoreError> {
        let shards = self.inner.shards(self.pool, self.entry);
        let counts = count::count(self.inner, &shards).await?;
        let counts = counts.get(self.pool).copied().unwrap_or_default();
        Ok(GenerateOutcome::PoolFull {
            max_tokens: self.entry.policy.max_tokens,
            total: counts.total(),
        })
    }

    async fn look(&self) -> Result<Look, StoreError> {
        if self.request.key.is_none() {
            return Ok(Look::Undecided);
        }
        match self.commit(&Decision::default()).await? {
            None => Ok(Look::Remade),
            Some(Committed::Mismatch) => Ok(Look::Answer(GenerateOutcome::IdempotencyMismatch)),
            Some(Committed::Found(decision)) => {
                let added = self.add(&decision).await?;
                Ok(added.map_or(Look::Remade, Look::Answer))
            }
            Some(Committed::None | Committed::Ours) => Ok(Look::Undecided),
        }
    }

    /// Makes the decision, or finds another's. `None` too where there is no key.
    async fn commit(&self, decision: &Decision) -> Result<Option<Committed>, StoreError> {
        let Some(key) = &self.request.key else {
            return Ok(Some(Committed::Ours));
        };
        let item = |shard| Commit {
            shard,
            key: key.clone(),
            fingerprint: self.request.fingerprint(),
            decision: decision.clone(),
        };
        let place = self.place(first_shard(key, self.shards()));
        let batchers = &self.inner.batchers.commit;
        self.inner.rounds(self.pool, place, batchers, item).await
    }

    /// All room is reserved: from here on it is done, by this call or by one with the same key.
    async fn decide(
        &self,
        mut hold: Hold,
        decision: Decision,
    ) -> Result<Option<GenerateOutcome>, StoreError> {
        // Cut short in here, it may have been decided: who decided must find its room.
        hold.kept = self.request.key.is_some();
        match self.commit(&decision).await {
            Ok(Some(Committed::Ours)) => {
                let added = self.add(&decision).await;
                // Each shard let go of what it used.
                hold.kept |= matches!(added, Ok(Some(_)));
                added
            }
            Ok(Some(Committed::Found(theirs))) => {
                hold.let_go().await;
                self.add(&theirs).await
            }
            Ok(Some(Committed::Mismatch)) => {
                hold.let_go().await;
                Ok(Some(GenerateOutcome::IdempotencyMismatch))
            }
            Ok(Some(Committed::None) | None) => {
                hold.let_go().await;
                Ok(None)
            }
            Err(error) => {
                hold.kept = matches!(error, StoreError::OutcomeUnknown(_));
                Err(error)
            }
        }
    }

    /// Adds what was decided. Where one shard does not answer and others did, some of it is there.
    async fn add(&self, decision: &Decision) -> Result<Option<GenerateOutcome>, StoreError> {
        let remembered = self.request.key.is_some();
        let parts = self.parts(&decision.tokens).into_iter().zip(0..);
        let calls = parts
            .filter(|(part, _)| !part.is_empty())
            .map(async |(part, number)| {
                let name = decision.operation.as_str();
                let item = |shard| Generate::part(shard, name, remembered, part.clone());
                self.add_at(number, item).await
            });
        let (mut added, mut existing) = (HashSet::new(), decision.existing);
        let mut failure = None;
        for done in join_all(calls).await {
            match done {
                Ok(None) => return Ok(None), // and what was added has gone with the pool
                Ok(Some(GenerateOutcome::Added {
                    tokens,
                    existing: had,
                    ..
                })) => {
                    added.extend(tokens);
                    existing += had;
                }
                Ok(Some(_)) => {
                    let told = "generate: a reservation has lapsed".to_owned();
                    failure = Some(StoreError::OutcomeUnknown(told));
                }
                Err(error) => failure = Some(worse(failure, error)),
            }
        }
        match failure {
            Some(StoreError::Unavailable(why)) if !added.is_empty() || remembered => {
                Err(StoreError::OutcomeUnknown(why))
            }
            Some(error) => Err(error),
            None => {
                let mut tokens = decision.tokens.clone();
                tokens.retain(|token| added.contains(token));
                Ok(Some(GenerateOutcome::Added {
                    tokens,
                    existing,
                    born: None,
                }))
            }
        }
    }
}
