//! The flows beside the pools: temporary, one-time, unified and session tokens. Each is a policy on the same
//! state machine, in a pool that no caller can name, spread over all partitions.

use super::{Born, OnLapse, Policy};

/// A flow of bearer tokens: whoever has one may use it, so the store keeps only what it can be checked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flow {
    /// Short-lived opaque tokens: `/app/*`.
    Temporary,
    /// Rotating tokens with metadata: `/token` with a JSON object.
    OneTime,
    /// Opaque tokens of one fixed lifetime, for any service to introspect: `/token` without.
    Unified,
    /// Logins: the families of refresh tokens, `/auth/*`.
    Session,
}

impl Flow {
    pub const ALL: [Self; 4] = [Self::Temporary, Self::OneTime, Self::Unified, Self::Session];

    /// The name of its pool. It starts with `_`, so it is outside the pattern of public names.
    #[must_use]
    pub const fn pool_name(self) -> &'static str {
        match self {
            Self::Temporary => "_temporary",
            Self::OneTime => "_one_time",
            Self::Unified => "_unified",
            Self::Session => "_session",
        }
    }
}

/// What the environment says of one flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowLimits {
    /// How long a token lives, 1 s to 30 d.
    pub lifetime_ms: u64,
    /// Most tokens alive at once, over all partitions.
    pub max: u64,
}

/// The limits of all four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowsLimits {
    pub temporary: FlowLimits,
    pub one_time: FlowLimits,
    pub unified: FlowLimits,
    pub session: FlowLimits,
}

impl FlowsLimits {
    /// Where the environment says nothing: 60 min, 2 h, 24 h and 30 d; a million of each.
    pub const DEFAULT: Self = Self {
        temporary: FlowLimits::new(3_600),
        one_time: FlowLimits::new(2 * 3_600),
        unified: FlowLimits::new(24 * 3_600),
        session: FlowLimits::new(30 * 24 * 3_600),
    };

    #[must_use]
    pub fn of(&self, flow: Flow) -> FlowLimits {
        match flow {
            Flow::Temporary => self.temporary,
            Flow::OneTime => self.one_time,
            Flow::Unified => self.unified,
            Flow::Session => self.session,
        }
    }
}

impl FlowLimits {
    const fn new(lifetime_s: u64) -> Self {
        Self {
            lifetime_ms: lifetime_s * 1_000,
            max: 1_000_000,
        }
    }

    /// The policy of the flow's pool: born held, deleted when the lifetime has passed.
    #[must_use]
    pub fn policy(self, partitions: u32) -> Policy {
        Policy {
            lifetime_ms: self.lifetime_ms,
            max_tokens: self.max,
            on_lapse: OnLapse::Delete,
            born: Born::Held,
            shards: partitions,
            ..Policy::FOR_NEW_POOL
        }
    }
}
