//! What each verb can answer. Times are Redis's clock in milliseconds since the Unix epoch;
//! `*_in_ms` are counted from the moment Redis answered.

use super::{Fence, Holder, Metadata, Policy, PoolName, State, TokenValue};

/// Why the store could not answer. Business outcomes are not errors: they are the enums below.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nothing ran: Redis is unreachable, refused before starting, or too much is queued.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// The call was sent and no answer came: it may or may not have run.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(String),
    /// Redis said something that this build does not understand. A bug of ours.
    #[error("store protocol: {0}")]
    Protocol(String),
}

impl StoreError {
    /// Its kind in one word, for metrics and traces.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::OutcomeUnknown(_) => "unknown",
            Self::Protocol(_) => "protocol",
        }
    }
}

/// A grant as told to its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub token: TokenValue,
    pub fence: Fence,
    pub expires_at_ms: u64,
    pub expires_in_ms: u64,
    pub holder: Option<Holder>,
}

/// `O` is how a grant is handed over: the store wraps it so that one nobody took is given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssignOutcome<O = Grant> {
    Granted(O),
    /// Nothing to assign; a hint of when there may be, absent if the pool is empty.
    Empty {
        retry_after_ms: Option<u64>,
    },
    /// The named token is held or cooling; when it may next be free.
    NotFree {
        state: State,
        retry_after_ms: u64,
    },
    /// The named token does not exist.
    TokenNotFound,
    /// A replay of a key whose lease has ended.
    LeaseLost,
    IdempotencyMismatch,
    PoolNotFound,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GenerateOutcome {
    /// The tokens that are new, in the order given, and how many the pool already had.
    Added {
        tokens: Vec<TokenValue>,
        existing: u64,
        /// Of tokens that are born held: now, and when they lapse.
        born: Option<Created>,
    },
    /// It would pass `max_tokens`; nothing was added.
    PoolFull {
        max_tokens: u64,
        total: u64,
    },
    IdempotencyMismatch,
    PoolNotFound,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeepAliveOutcome {
    /// `state` is `Held` or `Free`. The deadline of a free one is its idle limit, if the pool has one.
    Kept {
        state: State,
        expires_at_ms: Option<u64>,
        expires_in_ms: Option<u64>,
    },
    /// It is cooling.
    NotHeld {
        state: State,
    },
    LeaseLost,
    TokenNotFound,
    PoolNotFound,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnblockOutcome {
    /// `state` is `Cooling` or `Free`; `available_at_ms` is now for a free one.
    Released {
        state: State,
        available_at_ms: u64,
    },
    /// It is free or cooling.
    NotHeld {
        state: State,
    },
    LeaseLost,
    TokenNotFound,
    PoolNotFound,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeleteOutcome {
    Deleted,
    TokenNotFound,
    PoolNotFound,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InspectOutcome {
    Found(TokenView),
    TokenNotFound,
    PoolNotFound,
}

/// A token as it stands now, every deadline that has passed counted as happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenView {
    pub token: TokenValue,
    pub state: State,
    /// The last grant's fence; 0 for a token that was never granted.
    pub fence: u64,
    /// Only while held.
    pub holder: Option<Holder>,
    /// Its pending deadline: a lease's end, the end of cooling, or the idle limit.
    pub expires_at_ms: Option<u64>,
    /// Only while held.
    pub granted_at_ms: Option<u64>,
}

/// When a bearer token was made and when it lapses, by Redis's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Created {
    pub created_at_ms: u64,
    pub expires_at_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateOutcome {
    Created(Created),
    /// The flow has as many tokens as it may.
    Full,
}

/// A bearer token that is alive, as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BearerView {
    /// Of a rotating token: the family's current number. Else 1.
    pub number: Fence,
    /// Who it was made for.
    pub subject: Option<Holder>,
    /// When the current number was made.
    pub since_ms: u64,
    pub expires_at_ms: u64,
    /// When Redis said so.
    pub now_ms: u64,
    /// Only where it was asked for.
    pub metadata: Metadata,
}

/// What a rotating token was exchanged for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchanged {
    /// The number that is good from here on.
    pub number: Fence,
    pub subject: Option<Holder>,
    pub expires_at_ms: u64,
    /// When Redis said so.
    pub now_ms: u64,
    pub metadata: Metadata,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExchangeOutcome {
    /// Rotated; for a retry in time, the result of the first call.
    Exchanged(Exchanged),
    /// Its number was exchanged before and gets no successor any more. Nothing was revoked.
    Spent,
    /// Its number was exchanged before, and the whole family is revoked now.
    Reused,
    /// Merged, the metadata would be over its limit; nothing was changed.
    TooLarge,
    /// There is no such family (any more).
    Absent,
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub tokens: Vec<TokenView>,
    /// What to pass for the next page; `None` at the end.
    pub cursor: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolCounts {
    pub free: u64,
    pub held: u64,
    pub cooling: u64,
}

impl PoolCounts {
    #[must_use]
    pub fn total(&self) -> u64 {
        self.free + self.held + self.cooling
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolView {
    pub name: PoolName,
    pub policy: Policy,
    pub counts: PoolCounts,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutPoolOutcome {
    Created(PoolView),
    Changed(PoolView),
    /// `shards` is fixed at creation.
    ShardsFixed {
        shards: u32,
    },
    /// There are only so many partitions.
    TooManyShards {
        partitions: u32,
    },
    /// The cap would leave a shard without a share.
    TooFewTokens {
        shards: u32,
    },
}
