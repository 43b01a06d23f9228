//! The domain: what a token, a pool, a policy and a lease are, and what each verb can answer.
//!
//! **Architecture Invariant:** nothing here does I/O. A value that exists has been validated: every
//! newtype is made by `parse`, so no handler and no script sees a raw string.

pub mod bearer;
mod flow;
mod kind;
mod metadata;
mod outcome;
mod policy;
pub mod rotating;
mod setting;
pub mod text;

pub use flow::{Flow, FlowLimits, FlowsLimits};
pub use kind::Kind;
pub use metadata::{METADATA_BYTES_MAX, Metadata};
pub use outcome::{
    AssignOutcome, BearerView, CreateOutcome, Created, DeleteOutcome, ExchangeOutcome, Exchanged,
    GenerateOutcome, Grant, InspectOutcome, KeepAliveOutcome, Page, PoolCounts, PoolView,
    PutPoolOutcome, StoreError, TokenView, UnblockOutcome,
};
pub use policy::{Born, OnLapse, Policy, PolicyPatch};
pub use setting::{KeyIds, Setting, Settings};
pub use text::NewToken;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Most bytes of a token's value: a JWT or a cookie, as browsers and proxies take them. Redis keeps two copies of it.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// Most bytes of a holder's label. It is a part of the record.
pub const HOLDER_BYTES_MAX: usize = 256;
/// Most characters of an `Idempotency-Key`.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 128;
/// Longest that an assign waits for a token: what common proxies let a request take.
pub const WAIT_MAX: Duration = Duration::from_mins(1);
/// Most tokens that one call may add: one script call's worth of work (about 50 ms of Redis).
pub const TOKENS_PER_CALL_MAX: usize = 10_000;
/// Most tokens on one page of a listing.
pub const PAGE_TOKENS_MAX: usize = 1_000;
/// Longest duration anywhere: 30 days, in milliseconds.
pub const DURATION_MS_MAX: u64 = 30 * 24 * 3_600 * 1_000;
/// Shortest duration that is not "none": 1 s. Replicas ask Redis at least twice a second, so no
/// deadline can meet them unannounced.
pub const DURATION_MS_MIN: u64 = 1_000;
/// Most partitions of a data set, and so most shards of a pool: each costs every replica a subscription, and one of
/// them a poll twice a second.
pub const PARTITIONS_MAX: u32 = 1024;
/// The pool that `/tokens/*` acts on. The environment decides its policy.
pub const DEFAULT_POOL: &str = "default";

/// Why a value was refused, in words for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;
            fn try_from(value: String) -> Result<Self, Invalid> {
                Self::parse(&value)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_newtype! {
    /// A pool's name: `[a-z0-9][a-z0-9-]{0,62}`. The flows' own pools start with `_` and so lie
    /// outside it.
    PoolName
}
text_newtype! {
    /// A token's value: 1 to [`TOKEN_BYTES_MAX`] bytes of UTF-8 without control characters. This is the loose rule,
    /// for values that name an existing token. [`NewToken`] has the strict one.
    TokenValue
}
text_newtype! {
    /// A label for who holds a lease: 1 to [`HOLDER_BYTES_MAX`] bytes of UTF-8 in NFC, without control characters,
    /// invisible ones and outer white space.
    Holder
}
text_newtype! {
    /// An `Idempotency-Key`: 1 to [`IDEMPOTENCY_KEY_CHARS_MAX`] printable ASCII characters, no space at either end.
    IdempotencyKey
}

impl PoolName {
    /// # Errors
    /// When the name is not `[a-z0-9][a-z0-9-]{0,62}`.
    pub fn parse(value: &str) -> Result<Self, Invalid> {
        let bytes = value.as_bytes();
        let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let fits = (1..=63).contains(&bytes.len())
            && bytes.first().is_some_and(plain)
            && bytes.iter().all(|b| plain(b) || *b == b'-');
        if fits {
            Ok(Self(value.to_owned()))
        } else {
            Err(Invalid(
                "a pool's name has 1 to 63 characters of a-z, 0-9 and -, and does not start with -"
                    .to_owned(),
            ))
        }
    }

    /// The pool of a flow: no caller can name it.
    #[must_use]
    pub fn of_flow(flow: Flow) -> Self {
        Self(flow.pool_name().to_owned())
    }

    /// The flow whose pool this is.
    #[must_use]
    pub fn flow(&self) -> Option<Flow> {
        Flow::ALL
            .into_iter()
            .find(|flow| flow.pool_name() == self.0)
    }

    /// A name as the store keeps it: a public one, or a flow's.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse_stored(value: &str) -> Result<Self, Invalid> {
        let mut flows = Flow::ALL.into_iter();
        match flows.find(|flow| flow.pool_name() == value) {
            Some(flow) => Ok(Self::of_flow(flow)),
            None => Self::parse(value),
        }
    }

    /// The pool that `/tokens/*` acts on.
    #[must_use]
    pub fn default_pool() -> Self {
        Self(DEFAULT_POOL.to_owned())
    }

    /// Whether this is the pool whose policy the environment decides.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.0 == DEFAULT_POOL
    }
}

impl TokenValue {
    /// # Errors
    /// When the value is empty, too long, or has control characters.
    pub fn parse(value: &str) -> Result<Self, Invalid> {
        text::printable(value, "a token", TOKEN_BYTES_MAX)?;
        Ok(Self(value.to_owned()))
    }

    /// A new UUIDv4, 122 random bits.
    #[must_use]
    pub fn generate() -> Self {
        Self(uuid::Uuid::new_v4().to_string())
    }

    /// In which of its pool's shards it lies: stable for all time. Of a good hash of the whole value, so that
    /// values that somebody chose are spread as evenly as ours.
    #[must_use]
    pub fn shard(&self, shards: u32) -> u32 {
        let hash = Sha256::digest(self.0.as_bytes());
        let first = hash
            .iter()
            .take(4)
            .fold(0, |sum: u32, byte| sum << 8 | u32::from(*byte));
        first % shards.max(1)
    }
}

impl Holder {
    /// # Errors
    /// When the label is empty or too long, or has control characters, invisible ones or outer white space.
    pub fn parse(value: &str) -> Result<Self, Invalid> {
        let label = text::strict(value, "a holder", HOLDER_BYTES_MAX)?;
        Ok(Self(label.into_owned()))
    }

    /// A label as the store keeps it: an older version took any printable one.
    ///
    /// # Errors
    /// When the label is empty, too long, or has control characters.
    pub fn parse_stored(value: &str) -> Result<Self, Invalid> {
        text::printable(value, "a holder", HOLDER_BYTES_MAX)?;
        Ok(Self(value.to_owned()))
    }
}

impl IdempotencyKey {
    /// # Errors
    /// When the key is empty, too long, not printable ASCII, or has a space at either end. HTTP drops those spaces,
    /// so two keys that differ only in them would name one operation.
    pub fn parse(value: &str) -> Result<Self, Invalid> {
        let fits = (1..=IDEMPOTENCY_KEY_CHARS_MAX).contains(&value.len())
            && value.bytes().all(|b| (0x20..=0x7e).contains(&b))
            && value.trim_ascii() == value;
        if fits {
            Ok(Self(value.to_owned()))
        } else {
            Err(Invalid(format!(
                "an Idempotency-Key must have 1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII characters, no space at either end"
            )))
        }
    }
}

/// The number of a grant. Strictly increases with every grant of a partition and is never granted
/// twice; at least 1. At most 2^53, so that every JSON reader keeps it exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Fence(u64);

impl Fence {
    /// Largest fence: 2^53, beyond which doubles (Lua, JavaScript) are not exact.
    pub const MAX: u64 = 1 << 53;

    /// The first of its kind: that of a token that is born held.
    pub const FIRST: Self = Self(1);

    /// # Errors
    /// When the number is 0 or above [`Fence::MAX`].
    pub fn parse(value: u64) -> Result<Self, Invalid> {
        if (1..=Self::MAX).contains(&value) {
            Ok(Self(value))
        } else {
            Err(Invalid(format!(
                "a fence is a whole number from 1 to {}",
                Self::MAX
            )))
        }
    }

    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

/// A lease's or a limit's length in whole milliseconds, [`DURATION_MS_MIN`] to [`DURATION_MS_MAX`].
///
/// # Errors
/// When the seconds are not finite or out of range.
pub fn duration_ms(seconds: f64) -> Result<u64, Invalid> {
    let ms = (seconds * 1_000.0).round();
    // The seconds as given: rounded, a little too many would pass.
    let range = DURATION_MS_MIN as f64 / 1_000.0..=DURATION_MS_MAX as f64 / 1_000.0;
    if range.contains(&seconds) {
        // In range, so neither truncated nor negative.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Ok(ms as u64)
    } else {
        Err(Invalid("must be 1 to 2592000 seconds (30 days)".to_owned()))
    }
}

/// Where a token that is not absent stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Assignable.
    Free,
    /// Granted to one holder until its deadline.
    Held,
    /// Back from a holder, not yet assignable.
    Cooling,
}

impl State {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Held => "held",
            Self::Cooling => "cooling",
        }
    }

    /// # Errors
    /// When the text is none of `free`, `held`, `cooling`.
    pub fn parse(value: &str) -> Result<Self, Invalid> {
        match value {
            "free" => Ok(Self::Free),
            "held" => Ok(Self::Held),
            "cooling" => Ok(Self::Cooling),
            _ => Err(Invalid("must be free, held or cooling".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lies_in_the_shard_in_which_it_always_lay() {
        let shard = |value: &str, shards| TokenValue::parse(value).expect("a value").shard(shards);
        assert_eq!(shard("seat-1", 1), 0);
        let lie = ["seat-1", "seat-2", "{p0.0}a", "{p0.0}b"].map(|value| shard(value, 16));
        assert_eq!(lie, [9, 6, 1, 14]);
    }

    #[test]
    fn values_that_look_alike_are_spread_over_the_shards() {
        let mut counts = [0; 4];
        for n in 0..4_000 {
            let value = TokenValue::parse(&format!("{{same}}-{n}")).expect("a value");
            counts[value.shard(4) as usize] += 1;
        }
        assert!(
            counts.iter().all(|count| (900..1_100).contains(count)),
            "{counts:?}"
        );
    }
}
