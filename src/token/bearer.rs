//! Opaque bearer tokens: 256 random bits, of which the store keeps a hash.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngExt as _;
use sha2::{Digest, Sha256};

use super::TokenValue;

/// Random bytes of a token.
const RANDOM_BYTES: usize = 32;
/// Most bytes of what may be one of ours: what is longer is not even hashed.
pub const BEARER_BYTES_MAX: usize = 256;

/// 43 URL-safe characters, 256 random bits.
#[must_use]
pub fn random() -> String {
    URL_SAFE_NO_PAD.encode(rand::rng().random::<[u8; RANDOM_BYTES]>())
}

/// A temporary token: six digits, a colon, 256 random bits.
#[must_use]
pub fn temporary() -> String {
    let digits = rand::rng().random_range(0..1_000_000_u32);
    format!("{digits:06}:{}", random())
}

/// What the store keeps of a token: enough to know it again, nothing to use it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BearerHash([u8; 32]);

impl BearerHash {
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// The name under which the store keeps it.
    ///
    /// # Panics
    /// Never: base64 is printable and short.
    #[must_use]
    pub fn id(&self) -> TokenValue {
        TokenValue::parse(&URL_SAFE_NO_PAD.encode(self.0)).expect("base64 is a value")
    }

    /// In which of so many partitions it lies: stable for all time.
    #[must_use]
    pub fn partition(&self, partitions: usize) -> usize {
        let [a, b, c, d, ..] = self.0;
        u32::from_be_bytes([a, b, c, d]) as usize % partitions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_url_safe_and_long() {
        let url_safe = |text: &str| {
            text.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        let token = random();
        assert!(token.len() == 43 && url_safe(&token), "{token}");
        assert_ne!(token, random());
        let token = temporary();
        let (digits, rest) = token.split_once(':').expect("a colon");
        assert!(
            digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_digit()),
            "{token}"
        );
        assert!(rest.len() == 43 && url_safe(rest), "{token}");
    }

    #[test]
    fn a_hash_lies_where_it_always_lay() {
        let hash = BearerHash::of("754321:abc");
        assert_eq!(
            hash.id().as_str(),
            "QcO5YSD-M0y9lsJYYJFEJkiF-o37SiJJqbZmNssbScI"
        );
        assert_eq!(hash.partition(16), 1);
    }
}
