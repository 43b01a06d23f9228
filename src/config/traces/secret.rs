//! Settings of traces that may hold a key.

use std::fmt;

use reqwest::header::HeaderMap;

/// A URL of a collector. It may hold a key: Debug shows its scheme, host and port alone.
#[derive(Clone)]
pub struct Endpoint(pub(super) String);

impl Endpoint {
    /// All of it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub(super) fn host(&self) -> String {
        reqwest::Url::parse(&self.0)
            .map(|url| url.origin().ascii_serialization())
            .unwrap_or_default()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host())
    }
}

/// Headers for the collector. They tend to hold a key: Debug counts them.
#[derive(Clone, Default)]
pub struct SecretHeaders(pub(super) HeaderMap);

impl SecretHeaders {
    /// Decoded.
    #[must_use]
    pub fn expose(&self) -> &HeaderMap {
        &self.0
    }
}

impl fmt::Debug for SecretHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} headers", self.0.len())
    }
}
