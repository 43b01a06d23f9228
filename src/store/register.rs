//! `register`: change one pool's entry in the registry. See `lua/register.lua`.
//!
//! An entry is `<generation> <version> <status> <policy as JSON>`. The script reads and writes it whole,
//! and only if it still is what the caller read.

use fred::types::Value;

use super::Inner;
use super::shard::number;
use crate::token::{Policy, PoolName, StoreError};

/// Whether a pool may be used, or is being deleted by a replica that may have died since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Active,
    Deleting,
}

/// What the registry says of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub generation: u64,
    pub version: u64,
    pub status: Status,
    pub policy: Policy,
    /// The entry as it was read. A newer release may have written more than this one knows, so it is
    /// compared as it stands.
    raw: String,
}

impl Entry {
    /// An entry that is to be written. Generation 0 is made anew from Redis's clock.
    pub fn active(generation: u64, version: u64, policy: Policy) -> Self {
        Self {
            generation,
            version,
            status: Status::Active,
            policy,
            raw: String::new(),
        }
    }

    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let bad = || StoreError::Protocol("a registry entry of another form".to_owned());
        let mut parts = text.splitn(4, ' ');
        let mut next = || parts.next().ok_or_else(bad);
        Ok(Self {
            generation: next()?.parse().map_err(|_| bad())?,
            version: next()?.parse().map_err(|_| bad())?,
            status: match next()? {
                "active" => Status::Active,
                "deleting" => Status::Deleting,
                _ => return Err(bad()),
            },
            policy: serde_json::from_str(next()?).map_err(|_| bad())?,
            raw: text.to_owned(),
        })
    }

    /// All but the generation.
    fn rest(&self) -> String {
        let status = match self.status {
            Status::Active => "active",
            Status::Deleting => "deleting",
        };
        let policy = serde_json::to_string(&self.policy).expect("a policy is plain numbers");
        format!("{} {status} {policy}", self.version)
    }
}

/// Writes `entry` where `expected` (`None`: no entry) still stands. Generation 0 is made anew from
/// Redis's clock. `None`: somebody was faster, read again.
pub(super) async fn store(
    inner: &Inner,
    pool: &PoolName,
    expected: Option<&Entry>,
    entry: &Entry,
) -> Result<Option<Entry>, StoreError> {
    let args = vec![
        pool.as_str().into(),
        expected.map_or("", |entry| entry.raw.as_str()).into(),
        number(entry.generation),
        entry.rest().into(),
    ];
    let mut reply = call(inner, args).await?.only()?;
    match reply.tag.as_str() {
        "stored" => {
            let generation = reply.int()?;
            Entry::parse(&format!("{generation} {}", entry.rest())).map(Some)
        }
        "conflict" => Ok(None),
        _ => reply.unknown(),
    }
}

/// Removes the entry where it still is `expected`. Says whether it did.
pub(super) async fn remove(
    inner: &Inner,
    pool: &PoolName,
    expected: &Entry,
) -> Result<bool, StoreError> {
    let args = vec![
        pool.as_str().into(),
        expected.raw.as_str().into(),
        "-1".into(),
        "".into(),
    ];
    let reply = call(inner, args).await?.only()?;
    match reply.tag.as_str() {
        "removed" => Ok(true),
        "conflict" => Ok(false),
        _ => reply.unknown(),
    }
}

async fn call(inner: &Inner, args: Vec<Value>) -> Result<super::reply::Answer, StoreError> {
    let keys = vec![inner.keys.registry.clone()];
    inner.call(&inner.scripts.register, keys, args).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_back_as_it_was_written() {
        let mut entry = Entry::active(1_790_000_000_000_000, 3, Policy::FOR_DEFAULT_POOL);
        entry.status = Status::Deleting;
        let text = format!("{} {}", entry.generation, entry.rest());
        let read = Entry::parse(&text).expect("an entry");
        assert_eq!((read.generation, read.version), (entry.generation, 3));
        assert_eq!(
            (read.status, &read.policy),
            (Status::Deleting, &entry.policy)
        );
        assert_eq!(read.raw, text);
        assert!(Entry::parse("1 2 sleeping {}").is_err());
        assert!(Entry::parse("").is_err());
    }

    #[test]
    fn what_a_newer_release_adds_to_a_policy_does_not_hinder_this_one() {
        let policy = serde_json::to_string(&Policy::FOR_NEW_POOL).expect("JSON");
        let text = format!(
            "7 1 active {}",
            policy.replacen('{', "{\"colour\":\"red\",", 1)
        );
        let read = Entry::parse(&text).expect("an entry");
        assert_eq!(read.policy, Policy::FOR_NEW_POOL);
        assert_eq!(read.raw, text);
    }
}
