//! The requests and answers of the pools' contract, as far as the command line uses them.
//!
//! Members of an answer that are not named here are ignored: a newer service may add some.

use serde::{Deserialize, Serialize};
use serde_json::Number;

/// An answer: what we understood of it, and its JSON on one line as it came.
#[derive(Debug, Clone)]
pub struct Answer<T> {
    pub value: T,
    pub json: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Pools {
    pub pools: Vec<Pool>,
}

/// A pool's counts and policy; durations in seconds.
#[derive(Debug, Clone, Deserialize)]
pub struct Pool {
    pub name: String,
    pub free: u64,
    pub held: u64,
    pub cooling: u64,
    pub total: u64,
    pub lifetime: f64,
    pub idle_limit: f64,
    pub cooldown: f64,
    pub max_tokens: u64,
    pub max_hold: f64,
    pub on_lapse: String,
    /// A service of before shards does not tell.
    #[serde(default = "one")]
    pub shards: u32,
}

fn one() -> u32 {
    1
}

/// The policy fields to set; those not given keep their value.
#[derive(Debug, Default, Serialize)]
pub struct PolicyFields {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_limit: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cooldown: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_hold: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_lapse: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shards: Option<u32>,
}

/// The tokens that are new; `existing` counts those that the pool had (imports only).
#[derive(Debug, Clone, Deserialize)]
pub struct Added {
    pub tokens: Vec<String>,
    #[serde(default)]
    pub existing: u64,
}

/// What to assign; nothing given: a random free token.
#[derive(Debug, Clone, Default, Serialize)]
pub struct AssignRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// How long to wait if no token is free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<Number>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Grant {
    pub token: String,
    pub fence: u64,
    pub expires_at: String,
    /// Seconds from the moment that the service answered.
    pub expires_in: f64,
    pub holder: Option<String>,
}

/// Which token a call means, and under which grant.
#[derive(Debug, Clone, Serialize)]
pub struct TokenRequest {
    pub token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
    /// Keep-alive only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<Number>,
}

impl TokenRequest {
    /// The token, whoever holds it.
    #[must_use]
    pub fn plain(token: impl Into<String>) -> Self {
        Self {
            token: token.into(),
            fence: None,
            lifetime: None,
        }
    }
}

/// A token's state after a verb, or as inspected; which times are there depends on the state.
#[derive(Debug, Clone, Deserialize)]
pub struct TokenState {
    pub token: String,
    pub state: String,
    pub fence: Option<u64>,
    pub holder: Option<String>,
    pub granted_at: Option<String>,
    pub expires_at: Option<String>,
    pub expires_in: Option<f64>,
    pub idle_expires_at: Option<String>,
    pub available_at: Option<String>,
}

/// The state of a token that somebody holds.
const HELD: &str = "held";

impl TokenState {
    /// The seconds that the lease has left. `None`: nobody holds the token, whatever times the answer has; an
    /// older service gives a free one `expires_in` too.
    #[must_use]
    pub fn lease(&self) -> Option<f64> {
        self.expires_in.filter(|_| self.state == HELD)
    }
}
