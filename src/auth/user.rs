//! Users, and what failed logins are counted by.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use sha2::{Digest, Sha256};

use crate::token::Invalid;

/// Most bytes of a user's name: with the epoch it has to fit into a holder's label.
pub const USER_NAME_BYTES_MAX: usize = 128;
/// Failed logins that one user and address may have in [`ATTEMPTS_WINDOW_MS`].
pub const ATTEMPTS_MAX: u64 = 10;
/// How long a failed login counts: 15 minutes.
pub const ATTEMPTS_WINDOW_MS: u64 = 15 * 60 * 1_000;
/// Bits of an IPv6 address that name a site: whoever has one has all addresses in it.
const IPV6_SITE_BITS: u32 = 64;

/// A user's name. It fits into an htpasswd file and into one line of a log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(String);

impl UserName {
    /// # Errors
    /// When it is empty, too long, or holds what neither an htpasswd file nor a line of a log could.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let told = |why: &str| Err(Invalid(format!("a user's name {why}")));
        if text.is_empty() || text.len() > USER_NAME_BYTES_MAX {
            return told(&format!("must have 1 to {USER_NAME_BYTES_MAX} bytes"));
        }
        if text.chars().any(|c| c.is_control() || c == ':') {
            return told("must not contain a colon or control characters");
        }
        if text.trim() != text {
            return told("must not begin or end with a space");
        }
        Ok(Self(text.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A user as the store keeps them.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    pub name: UserName,
    /// A PHC string of Argon2id, or a bcrypt hash that was imported.
    pub password_hash: String,
    /// When the password was set, in Redis's microseconds; greater each time. A session holds the one under which
    /// it began, so that it dies with the password.
    pub epoch: u64,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, epoch) = (&self.name, self.epoch);
        write!(f, "User({name:?}, epoch {epoch})")
    }
}

/// What failed logins are counted by: a user's name as it was given, and where the login came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptKey([u8; 32]);

impl AttemptKey {
    /// Any text is taken for a name: unknown users are counted like known ones.
    #[must_use]
    pub fn new(user: &str, address: IpAddr) -> Self {
        let hash = Sha256::new()
            .chain_update(b"tokend login\0")
            .chain_update(site(address).to_string())
            .chain_update([0])
            .chain_update(user)
            .finalize();
        Self(hash.into())
    }

    /// The name under which the store counts.
    #[must_use]
    pub fn id(&self) -> String {
        self.0[..16].iter().map(|b| format!("{b:02x}")).collect()
    }

    /// In which of so many partitions it lies.
    #[must_use]
    pub fn partition(&self, partitions: usize) -> usize {
        let [a, b, c, d, ..] = self.0;
        u32::from_be_bytes([a, b, c, d]) as usize % partitions
    }
}

/// The address, or the first of its /64: a site has 2^64 of them, and they are all one caller's.
fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let bits = address.to_bits() >> IPV6_SITE_BITS << IPV6_SITE_BITS;
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// How many failed logins are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// [`ATTEMPTS_MAX`].
    pub limit: u64,
    pub remaining: u64,
    /// Over the limit, and until when; such a login is to be answered with 429 whatever its password.
    pub retry_after_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_into_htpasswd_and_a_log() {
        for good in ["a", "Jörg Müller", "a@b.example", &"x".repeat(128)] {
            assert_eq!(UserName::parse(good).expect(good).as_str(), good);
        }
        for bad in [
            "",
            " a",
            "a ",
            "a:b",
            "a\nb",
            "a\u{85}b",
            "\u{a0}a",
            &"x".repeat(129),
            &"ä".repeat(65),
        ] {
            assert!(UserName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn debug_shows_no_hash() {
        let user = User {
            name: UserName::parse("ann").expect("a name"),
            password_hash: "$2b$secret".to_owned(),
            epoch: 7,
        };
        assert!(!format!("{user:?}").contains("secret"));
    }

    #[test]
    fn an_address_counts_with_its_site() {
        let key = |user: &str, address: &str| {
            AttemptKey::new(user, address.parse().expect("an address")).id()
        };
        assert_eq!(key("ann", "192.0.2.1"), key("ann", "::ffff:192.0.2.1"));
        assert_eq!(key("ann", "2001:db8::1"), key("ann", "2001:db8::ffff:2"));
        assert_ne!(key("ann", "2001:db8::1"), key("ann", "2001:db8:0:1::1"));
        assert_ne!(key("ann", "192.0.2.1"), key("ann", "192.0.2.2"));
        assert_ne!(key("ann", "192.0.2.1"), key("bob", "192.0.2.1"));
        assert_eq!(key("ann", "192.0.2.1").len(), 32);
    }
}
