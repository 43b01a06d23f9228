//! Rotating tokens: a family and a number, signed. The store keeps the family's current number alone, so
//! no spent token piles up and a dump of it holds no token.
//!
//! A token is `partition.key-id.family.number.signature`, the signature being HMAC-SHA-256 over the flow and
//! all that the token says.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::RngExt as _;
use sha2::{Digest, Sha256};

use super::bearer::BEARER_BYTES_MAX;
use super::{Fence, Flow, Invalid, KeyIds, TokenValue};

/// Shortest secret: as many bytes as the hash has (RFC 2104, section 3).
pub const SECRET_BYTES_MIN: usize = 32;
/// `ROTATION_RETRY` unless it is set: longer than a Redis failover and the retries behind it.
pub const ROTATION_RETRY_DEFAULT: Duration = Duration::from_secs(60);
/// Random bytes of a family's name.
const FAMILY_BYTES: usize = 16;
/// Bytes of the hash of a key that name it.
const KEY_ID_BYTES: usize = 6;
/// Bytes of a signature.
const SIGNATURE_BYTES: usize = 32;

type Sha256Mac = Hmac<Sha256>;

/// One secret. Debug shows its id alone.
#[derive(Clone)]
struct Key {
    id: String,
    mac: Sha256Mac,
}

/// The secrets of one flow: the first signs, all verify. So a new one is rolled out by adding it behind the
/// old one everywhere, then putting it first, then dropping the old one.
#[derive(Clone)]
pub struct Keys {
    flow: Flow,
    keys: Vec<Key>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.keys.iter().map(|key| &key.id))
            .finish()
    }
}

/// A token that one of our keys has signed. Whether it is still good, the store knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotating {
    pub partition: usize,
    /// The family's name: what the store knows it by.
    pub family: TokenValue,
    /// The number of this token in its family, from 1.
    pub number: Fence,
}

/// The id of a secret: tells nothing about it.
#[must_use]
pub fn key_id(secret: &[u8]) -> String {
    let hash = Sha256::new()
        .chain_update(b"tokend key id\0")
        .chain_update(secret)
        .finalize();
    URL_SAFE_NO_PAD.encode(&hash[..KEY_ID_BYTES])
}

/// The id of the key that a text names, if the text has the form of a rotating token.
#[must_use]
pub fn named_key(token: &str) -> Option<&str> {
    if token.len() > BEARER_BYTES_MAX {
        return None;
    }
    let mut parts = token.split('.');
    let (partition, id) = (parts.next()?, parts.next()?);
    let (_family, number) = (parts.next()?, parts.next()?);
    let signature = parts.next()?;
    let numbers = partition.parse::<usize>().is_ok() && number.parse::<u64>().is_ok();
    let is_hash = |text: &str, bytes| {
        URL_SAFE_NO_PAD
            .decode(text)
            .is_ok_and(|it| it.len() == bytes)
    };
    let is_ours = numbers && is_hash(id, KEY_ID_BYTES) && is_hash(signature, SIGNATURE_BYTES);
    (is_ours && parts.next().is_none()).then_some(id)
}

/// A new family's name, 128 random bits.
///
/// # Panics
/// Never: base64 is printable and short.
#[must_use]
pub fn new_family() -> TokenValue {
    let text = URL_SAFE_NO_PAD.encode(rand::rng().random::<[u8; FAMILY_BYTES]>());
    TokenValue::parse(&text).expect("base64 is a value")
}

impl Keys {
    /// # Errors
    /// When there is no secret, or one is under [`SECRET_BYTES_MIN`] bytes.
    pub fn new(flow: Flow, secrets: &[Vec<u8>]) -> Result<Self, Invalid> {
        if secrets.is_empty() || secrets.iter().any(|secret| secret.len() < SECRET_BYTES_MIN) {
            return Err(Invalid(format!(
                "each secret must have at least {SECRET_BYTES_MIN} bytes"
            )));
        }
        let key = |secret: &Vec<u8>| {
            let mac = Sha256Mac::new_from_slice(secret).expect("HMAC takes keys of any length");
            Key {
                id: key_id(secret),
                mac,
            }
        };
        Ok(Self {
            flow,
            keys: secrets.iter().map(key).collect(),
        })
    }

    /// The ids of the keys.
    #[must_use]
    pub fn ids(&self) -> KeyIds {
        KeyIds::signing(self.keys.iter().map(|key| key.id.clone()).collect())
    }

    /// Whether a key of that id is one of these.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id == id)
    }

    /// The token of that number in that family.
    #[must_use]
    pub fn sign(&self, token: &Rotating) -> String {
        let key = &self.keys[0];
        let (partition, family, number) =
            (token.partition, token.family.as_str(), token.number.get());
        let said = format!("{partition}.{}.{family}.{number}", key.id);
        let signature = self.mac(key, &said).finalize().into_bytes();
        format!("{said}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// What a token says, if one of our keys signed it; the comparison takes the same time wherever it fails.
    #[must_use]
    pub fn verify(&self, token: &str) -> Option<Rotating> {
        let (said, signature) = token.rsplit_once('.')?;
        let mut parts = said.split('.');
        let (partition, key_id) = (parts.next()?, parts.next()?);
        let (family, number) = (parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let key = self.keys.iter().find(|key| key.id == key_id)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        self.mac(key, said).verify_slice(&signature).ok()?;
        Some(Rotating {
            partition: partition.parse().ok()?,
            family: TokenValue::parse(family).ok()?,
            number: Fence::parse(number.parse().ok()?).ok()?,
        })
    }

    /// A short hash of a name under the signing key: the same for the same name on every replica, and no use to
    /// those who do not have the key.
    #[must_use]
    pub fn pseudonym(&self, name: &str) -> String {
        // No token has a NUL, so this is the signature of none.
        let mac = self.mac(&self.keys[0], &format!("name\0{name}"));
        let hash = mac.finalize().into_bytes();
        hash[..4].iter().map(|b| format!("{b:02x}")).collect()
    }

    fn mac(&self, key: &Key, said: &str) -> Sha256Mac {
        key.mac
            .clone()
            .chain_update(self.flow.pool_name())
            .chain_update([0])
            .chain_update(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(secrets: &[u8]) -> Keys {
        let secrets: Vec<_> = secrets.iter().map(|byte| vec![*byte; 32]).collect();
        Keys::new(Flow::Session, &secrets).expect("long enough")
    }

    fn token() -> Rotating {
        Rotating {
            partition: 3,
            family: new_family(),
            number: Fence::parse(7).expect("in range"),
        }
    }

    #[test]
    fn what_a_key_signed_any_of_the_list_verifies() {
        let signed = keys(b"a").sign(&token());
        assert!(keys(b"a").verify(&signed).is_some());
        assert!(keys(b"ba").verify(&signed).is_some());
        assert!(keys(b"b").verify(&signed).is_none());
    }

    #[test]
    fn a_token_names_its_key_and_what_is_no_token_names_none() {
        let signed = keys(b"a").sign(&token());
        let id = named_key(&signed).expect("a token");
        assert_eq!(id, key_id(&[b'a'; 32]));
        assert!(keys(b"ba").has(id) && !keys(b"b").has(id));
        for bad in ["", "....", "1.2.3.4.5", &signed[1..], &format!("{signed}.")] {
            assert_eq!(named_key(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_token_says_what_was_signed() {
        let token = token();
        assert_eq!(keys(b"a").verify(&keys(b"a").sign(&token)), Some(token));
    }

    #[test]
    fn no_character_can_be_changed() {
        let keys = keys(b"a");
        let signed = keys.sign(&token());
        for at in 0..signed.len() {
            for other in ["A", "0", "."] {
                let mut bad = signed.clone();
                bad.replace_range(at..=at, other);
                assert!(bad == signed || keys.verify(&bad).is_none(), "{bad}");
            }
        }
        for bad in [
            "",
            ".",
            "....",
            "1.2.3.4.5",
            &signed[1..],
            &format!("{signed}A"),
            &format!("{signed}."),
        ] {
            assert!(keys.verify(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn one_secret_signs_for_one_flow() {
        let one_time = Keys::new(Flow::OneTime, &[vec![b'a'; 32]]).expect("long enough");
        assert!(one_time.verify(&keys(b"a").sign(&token())).is_none());
    }

    #[test]
    fn short_secrets_and_none_are_refused() {
        assert!(Keys::new(Flow::OneTime, &[]).is_err());
        assert!(Keys::new(Flow::OneTime, &[vec![1; 32], vec![1; 31]]).is_err());
    }

    #[test]
    fn a_pseudonym_depends_on_the_name_and_the_key() {
        let of = |secret: u8, name: &str| keys(&[secret, 9]).pseudonym(name);
        assert_eq!(of(1, "ann"), of(1, "ann"));
        assert_ne!(of(1, "ann"), of(1, "bob"));
        assert_ne!(of(1, "ann"), of(2, "ann"));
        assert_eq!(of(1, "ann").len(), 8);
    }
}
