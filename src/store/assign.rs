//! `assign`: grant a free token. See `lua/assign.lua`.

use std::sync::Weak;
use std::time::{Duration, Instant};

use fred::types::Value;
use tracing::debug;

use super::Inner;
use super::batch::{Done, Verb};
use super::fingerprint::fingerprint;
use super::reply::Reply;
use super::shard::{Shard, number, number_or_zero, text_or_empty, token_weight};
use super::unblock::Unblock;
use crate::token::{AssignOutcome, Grant, Holder, IdempotencyKey, StoreError, TokenValue};
use crate::traces::Caller;

/// How long a grant that nobody was told of is tried to be given back: longer than a failover takes.
const GIVE_BACK_MAX: Duration = Duration::from_secs(15);
/// Pause before it is tried again.
const GIVE_BACK_PAUSE: Duration = Duration::from_millis(250);
/// Answers that never came, after which it is taken to have run.
const UNKNOWN_MAX: u32 = 3;

/// Which token, for whom and for how long.
#[derive(Debug, Clone, Default)]
pub struct AssignRequest {
    pub holder: Option<Holder>,
    /// Instead of the pool's lifetime; 1 s to 30 d.
    pub lifetime_ms: Option<u64>,
    /// This very token, or any.
    pub token: Option<TokenValue>,
    pub key: Option<IdempotencyKey>,
}

impl AssignRequest {
    /// The arguments that assigns and waits share: key, fingerprint, holder, lifetime.
    pub(super) fn encode(&self, args: &mut Vec<Value>) {
        let holder = self.holder.as_ref().map(Holder::as_str);
        let token = self.token.as_ref().map(TokenValue::as_str);
        let lifetime = self.lifetime_ms.map(|ms| ms.to_string());
        args.push(text_or_empty(self.key.as_ref().map(IdempotencyKey::as_str)));
        args.push(match &self.key {
            None => "".into(),
            Some(_) => {
                fingerprint([holder, lifetime.as_deref(), token].map(Option::unwrap_or_default))
                    .into()
            }
        });
        args.push(text_or_empty(holder));
        args.push(number_or_zero(self.lifetime_ms));
    }
}

/// The rest of a reply that tells a grant.
pub(super) fn granted(reply: &mut Reply, now_ms: u64) -> Result<Grant, StoreError> {
    let token = reply.token()?;
    let fence = reply.fence()?;
    let expires_at_ms = reply.int()?;
    Ok(Grant {
        token,
        fence,
        expires_at_ms,
        expires_in_ms: expires_at_ms.saturating_sub(now_ms),
        holder: reply.holder()?,
    })
}

/// A grant that nobody has been told of yet. Dropped without [`Offer::accept`], one made without an
/// idempotency key is given back at once by its fence, straight to free (invariant 9): its request was
/// abandoned while the call was under way. One with a key waits for its retry.
pub struct Offer {
    grant: Option<Grant>,
    shard: Shard,
    keyed: bool,
    store: Weak<Inner>,
}

impl Offer {
    /// A grant as a script has just made it.
    pub(super) fn new(grant: Grant, shard: Shard, keyed: bool, store: Weak<Inner>) -> Self {
        Self {
            grant: Some(grant),
            shard,
            keyed,
            store,
        }
    }

    /// Takes the grant: from here on the caller is its holder.
    ///
    /// # Panics
    /// Never: an offer holds its grant until it is taken, and taking it ends it.
    #[must_use]
    pub fn accept(mut self) -> Grant {
        self.grant.take().expect("an offer holds a grant")
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        let Some(grant) = self.grant.take() else {
            return;
        };
        let Some(store) = self.store.upgrade().filter(|_| !self.keyed) else {
            return;
        };
        let shard = self.shard.clone();
        let runtime = store.runtime.clone();
        let work = async move { give_back(&store, &shard, &grant).await };
        runtime.spawn(Caller::current().carry(work));
    }
}

/// When a token may be free again, in ms from now; both absent where there is none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hint {
    /// The first has cooled.
    pub cooled: Option<u64>,
    /// The first lapses.
    pub lapsed: Option<u64>,
}

impl Hint {
    /// Of two shards.
    pub fn merge(&mut self, other: Self) {
        let first = |one: Option<u64>, other| [one, other].into_iter().flatten().min();
        self.cooled = first(self.cooled, other.cooled);
        self.lapsed = first(self.lapsed, other.lapsed);
    }

    /// What becomes of a token that lapses is not known yet, so one that cools says more.
    pub fn empty<O>(self) -> AssignOutcome<O> {
        AssignOutcome::Empty {
            retry_after_ms: self.cooled.or(self.lapsed),
        }
    }
}

/// What one shard says.
pub(super) enum Asked {
    Answer(AssignOutcome<Offer>),
    /// It has no free token.
    Empty(Hint),
    /// A walk of this key has been here in that round, and found nothing.
    Passed {
        round: u64,
        hint: Hint,
    },
}

/// Of a walk under an idempotency key over several shards: see `walk.rs`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Leg {
    /// From 1; 0 for a call that goes to one shard, or has no key.
    pub round: u64,
    /// The token asked for lies in another shard.
    pub elsewhere: bool,
}

/// Gives a grant back by its fence: sent again where that failed, for a second one finds the lease lost. If it can't
/// be sent for so long, the lease lapses at its deadline.
async fn give_back(store: &Inner, shard: &Shard, grant: &Grant) {
    let until = Instant::now() + GIVE_BACK_MAX;
    let mut unknown = 0;
    loop {
        let item = Unblock::give_back(shard.clone(), grant.token.clone(), grant.fence);
        match store.batchers.unblock[shard.partition].submit(item).await {
            Ok(Done::Outcome(_)) => return debug!("gave back a grant that nobody waited for"),
            Err(StoreError::OutcomeUnknown(_)) => unknown += 1,
            Err(_) | Ok(Done::Again) => {}
            Ok(Done::Stale) => return debug!("the pool of a grant that is given back has changed"),
        }
        // Most likely it ran, and too few replicas have confirmed that.
        if unknown == UNKNOWN_MAX || Instant::now() >= until || store.redis.stopping() {
            return debug!("a grant that nobody waited for lapses at its deadline");
        }
        tokio::time::sleep(GIVE_BACK_PAUSE).await;
    }
}

pub(super) struct Assign {
    shard: Shard,
    request: AssignRequest,
    leg: Leg,
    store: Weak<Inner>,
}

impl Assign {
    pub fn new(shard: Shard, request: &AssignRequest, leg: Leg, store: Weak<Inner>) -> Self {
        Self {
            shard,
            request: request.clone(),
            leg,
            store,
        }
    }
}

fn hint(reply: &mut Reply, now_ms: u64) -> Result<Hint, StoreError> {
    let mut next = || Ok(reply.int_or_none()?.map(|at| at.saturating_sub(now_ms)));
    Ok(Hint {
        cooled: next()?,
        lapsed: next()?,
    })
}

impl Verb for Assign {
    type Outcome = Asked;
    const NAME: &'static str = "assign";

    fn shard(&self) -> &Shard {
        &self.shard
    }

    fn weight(&self) -> usize {
        self.request.token.as_ref().map_or(1, token_weight)
    }

    fn encode(&self, args: &mut Vec<Value>) {
        self.request.encode(args);
        let token = self.request.token.as_ref().map(TokenValue::as_str);
        args.push(text_or_empty(token));
        args.push(number(self.leg.round));
        args.push(if self.leg.elsewhere { "elsewhere" } else { "" }.into());
    }

    fn decode(&self, mut reply: Reply, now_ms: u64) -> Result<Asked, StoreError> {
        let answer = match reply.tag.as_str() {
            "granted" => {
                let grant = granted(&mut reply, now_ms)?;
                let keyed = self.request.key.is_some();
                let offer = Offer::new(grant, self.shard.clone(), keyed, self.store.clone());
                AssignOutcome::Granted(offer)
            }
            "empty" => return Ok(Asked::Empty(hint(&mut reply, now_ms)?)),
            "passed" => {
                let round = reply.int()?;
                let hint = hint(&mut reply, now_ms)?;
                return Ok(Asked::Passed { round, hint });
            }
            "not_free" => AssignOutcome::NotFree {
                state: reply.state()?,
                retry_after_ms: reply.int()?.saturating_sub(now_ms),
            },
            "absent" => AssignOutcome::TokenNotFound,
            "lease_lost" => AssignOutcome::LeaseLost,
            "mismatch" => AssignOutcome::IdempotencyMismatch,
            _ => return reply.unknown(),
        };
        Ok(Asked::Answer(answer))
    }
}
