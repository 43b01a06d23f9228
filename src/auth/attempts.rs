//! What failed logins are counted by, and how many there may be (docs/adr/0020-login-limits.md).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use sha2::{Digest, Sha256};

/// How long a failed login counts: 15 minutes.
pub const WINDOW_MS: u64 = 15 * 60 * 1_000;
/// How long the address of a successful login is known: 30 days.
pub const KNOWN_MS: u64 = 30 * 24 * 60 * 60 * 1_000;
/// Most addresses that are known of one user. The one that was used longest ago goes first.
pub const KNOWN_MAX: u64 = 10;
/// Most counts that a partition keeps per window. One more replaces a random one.
pub const ENTRIES_MAX: u64 = 5_000;
/// Bits of an IPv6 address that name a site: one customer has all addresses in it.
const IPV6_SITE_BITS: u32 = 64;

/// Which of the limits was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Failures of one user from one address.
    Pair,
    /// Failures of one user from all addresses that are not known of that user.
    User,
    /// Failures from one address, of all users who are not known there.
    Address,
}

impl Limit {
    /// Failures that are allowed in [`WINDOW_MS`].
    #[must_use]
    pub const fn max(self) -> u64 {
        match self {
            Self::Pair => 10,
            Self::User => 20,
            Self::Address => 50,
        }
    }

    /// As metrics and the log name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pair => "pair",
            Self::User => "user",
            Self::Address => "address",
        }
    }
}

/// A login that is refused whatever its password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimited {
    pub limit: Limit,
    /// Until the next try.
    pub retry_after_ms: u64,
}

/// What the counts say of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// The user has logged in from this address in the last [`KNOWN_MS`]. Only [`Limit::Pair`] applies then.
    pub known: bool,
    pub refused: Option<RateLimited>,
}

/// An IPv4 address, or the first address of an IPv6 /64: a customer has all 2^64 addresses of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Site(IpAddr);

impl From<IpAddr> for Site {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let bits = address.to_bits() >> IPV6_SITE_BITS << IPV6_SITE_BITS;
                IpAddr::V6(Ipv6Addr::from_bits(bits))
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a count in the store: a hash, so that it has one length and shows neither name nor address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountId([u8; 32]);

impl CountId {
    fn new(kind: &str, parts: &[&str]) -> Self {
        let start = Sha256::new()
            .chain_update("tokend login\0")
            .chain_update(kind);
        let hashed = parts.iter().fold(start, |hash, part| {
            hash.chain_update([0]).chain_update(part)
        });
        Self(hashed.finalize().into())
    }

    /// The partition, of this many, that has the count.
    #[must_use]
    pub fn partition(&self, partitions: usize) -> usize {
        let [a, b, c, d, ..] = self.0;
        u32::from_be_bytes([a, b, c, d]) as usize % partitions
    }
}

impl fmt::Display for CountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..16].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// One login, as it is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginAttempt {
    pub user: CountId,
    pub address: CountId,
    pub pair: CountId,
}

impl LoginAttempt {
    /// Any text is taken for a name: unknown users are counted like known ones. Spellings of one name must be
    /// given in one form, or each has a count of its own.
    #[must_use]
    pub fn new(user: &str, site: Site) -> Self {
        let site = site.to_string();
        Self {
            user: CountId::new("user", &[user]),
            address: CountId::new("address", &[&site]),
            pair: CountId::new("pair", &[&site, user]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_counts_with_its_site() {
        let of = |user: &str, address: &str| {
            let address: IpAddr = address.parse().expect("an address");
            LoginAttempt::new(user, address.into())
        };
        assert_eq!(of("ann", "192.0.2.1"), of("ann", "::ffff:192.0.2.1"));
        assert_eq!(of("ann", "2001:db8::1"), of("ann", "2001:db8::ffff:2"));
        let (here, there) = (of("ann", "192.0.2.1"), of("ann", "192.0.2.2"));
        let bob = of("bob", "192.0.2.1");
        assert_ne!(of("ann", "2001:db8::1"), of("ann", "2001:db8:0:1::1"));
        assert!(here.user == there.user && here.user != bob.user);
        assert!(here.address == bob.address && here.address != there.address);
        assert!(here.pair != bob.pair && here.pair != there.pair);
        assert_eq!(here.pair.to_string().len(), 32);
    }
}
