//! A pool's policy: how long its leases last and what becomes of a token that comes back.

use serde::{Deserialize, Serialize};

use super::{DURATION_MS_MAX, DURATION_MS_MIN, Invalid};

/// What becomes of a token whose lease lapsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLapse {
    /// It cools, then is free again.
    Recycle,
    /// It is deleted.
    Delete,
}

/// In which state a token comes into being.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Born {
    /// To be assigned: a pool's.
    #[default]
    Free,
    /// Whoever asked for it holds it: a flow's.
    Held,
}

/// All durations in milliseconds; 0 means "none" where the field says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// A lease lapses after this, unless kept alive. 1 s to 30 d.
    pub lifetime_ms: u64,
    /// A free token that nobody kept alive for this long is deleted. 0 = never, or 1 s to 30 d.
    pub idle_limit_ms: u64,
    /// A token that left its holder is assignable again after this. 0 = at once, or 1 s to 30 d.
    pub cooldown_ms: u64,
    /// Most tokens that the pool may hold, over all states. 1 to [`Policy::MAX_TOKENS_MAX`].
    pub max_tokens: u64,
    /// Keep-alive never extends a lease past this since its grant. 0 = no limit, or 1 s to 30 d.
    pub max_hold_ms: u64,
    pub on_lapse: OnLapse,
    /// Absent in the registry of releases that knew only pools.
    #[serde(default)]
    pub born: Born,
    /// Over how many partitions the pool is spread, 1 to as many as there are. Fixed at creation; all for a flow's.
    pub shards: u32,
}

impl Policy {
    /// Above this a pool's records no longer fit one Redis of ordinary size (157 bytes each).
    pub const MAX_TOKENS_MAX: u64 = 100_000_000;

    /// The policy of a pool made by PUT with nothing given.
    pub const FOR_NEW_POOL: Self = Self {
        lifetime_ms: 60_000,
        idle_limit_ms: 0,
        cooldown_ms: 0,
        max_tokens: 10_000,
        max_hold_ms: 0,
        on_lapse: OnLapse::Recycle,
        born: Born::Free,
        shards: 1,
    };

    /// The policy of `default` where the environment says nothing.
    pub const FOR_DEFAULT_POOL: Self = Self {
        idle_limit_ms: 300_000,
        cooldown_ms: 120_000,
        ..Self::FOR_NEW_POOL
    };

    /// This policy with the fields that the patch names.
    #[must_use]
    pub fn with(&self, patch: &PolicyPatch) -> Self {
        Self {
            lifetime_ms: patch.lifetime_ms.unwrap_or(self.lifetime_ms),
            idle_limit_ms: patch.idle_limit_ms.unwrap_or(self.idle_limit_ms),
            cooldown_ms: patch.cooldown_ms.unwrap_or(self.cooldown_ms),
            max_tokens: patch.max_tokens.unwrap_or(self.max_tokens),
            max_hold_ms: patch.max_hold_ms.unwrap_or(self.max_hold_ms),
            on_lapse: patch.on_lapse.unwrap_or(self.on_lapse),
            born: self.born,
            shards: patch.shards.unwrap_or(self.shards),
        }
    }

    /// Why a pool's cap is refused of which each shard has a share: one of none could never hold anything.
    #[must_use]
    pub fn too_few_tokens(shards: u32) -> Invalid {
        Invalid(format!("must be at least {shards}, the number of shards"))
    }

    /// Every field that is out of its range, with the field's public name and why.
    #[must_use]
    pub fn mistakes(&self) -> Vec<(&'static str, Invalid)> {
        let real = DURATION_MS_MIN..=DURATION_MS_MAX;
        let mut found = Vec::new();
        if !real.contains(&self.lifetime_ms) {
            found.push((
                "lifetime",
                Invalid("must be 1 to 2592000 seconds (30 days)".to_owned()),
            ));
        }
        for (name, ms) in [
            ("idle_limit", self.idle_limit_ms),
            ("cooldown", self.cooldown_ms),
            ("max_hold", self.max_hold_ms),
        ] {
            if ms != 0 && !real.contains(&ms) {
                found.push((
                    name,
                    Invalid("must be 0 (none) or 1 to 2592000 seconds (30 days)".to_owned()),
                ));
            }
        }
        if !(1..=Self::MAX_TOKENS_MAX).contains(&self.max_tokens) {
            found.push((
                "max_tokens",
                Invalid(format!("must be 1 to {}", Self::MAX_TOKENS_MAX)),
            ));
        }
        if self.shards == 0 {
            found.push(("shards", Invalid("must be at least 1".to_owned())));
        }
        if self.max_tokens < u64::from(self.shards) {
            found.push(("max_tokens", Self::too_few_tokens(self.shards)));
        }
        found
    }
}

/// The policy fields that a PUT names; the others keep their value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyPatch {
    pub lifetime_ms: Option<u64>,
    pub idle_limit_ms: Option<u64>,
    pub cooldown_ms: Option<u64>,
    pub max_tokens: Option<u64>,
    pub max_hold_ms: Option<u64>,
    pub on_lapse: Option<OnLapse>,
    /// The store refuses another value than the pool's, and more than there are partitions.
    pub shards: Option<u32>,
}
