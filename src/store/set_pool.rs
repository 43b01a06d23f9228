//! `set_pool`: make a pool's shard or give it a newer policy. See `lua/set_pool.lua`.

use futures_util::future::try_join_all;

use super::Inner;
use super::register::Entry;
use super::shard::{Shard, number};
use crate::token::{Born, OnLapse, Policy, PoolName, StoreError};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SetPool {
    /// The shard has this policy or a newer one: that of this version.
    Set { version: u64 },
    /// The shard knows a newer generation, or that this one was deleted.
    Newer { generation: u64 },
}

/// Every shard of the pool, each with its share of the cap.
pub(super) async fn set_pool(
    inner: &Inner,
    pool: &PoolName,
    entry: &Entry,
) -> Result<SetPool, StoreError> {
    let shards = inner.shards(pool, entry);
    let count = shards.len() as u64;
    let (share, rest) = (
        entry.policy.max_tokens / count,
        entry.policy.max_tokens % count,
    );
    let calls = shards.into_iter().zip(0..).map(|(shard, index)| {
        let max_tokens = share + u64::from(index < rest);
        set_shard(inner, shard, &entry.policy, max_tokens)
    });
    let set = try_join_all(calls).await?;
    let (mut version, mut newer) = (entry.version, None);
    for set in set {
        match set {
            SetPool::Set { version: here } => version = version.max(here),
            SetPool::Newer { generation } => newer = newer.max(Some(generation)),
        }
    }
    Ok(match newer {
        None => SetPool::Set { version },
        Some(generation) => SetPool::Newer { generation },
    })
}

async fn set_shard(
    inner: &Inner,
    shard: Shard,
    policy: &Policy,
    max_tokens: u64,
) -> Result<SetPool, StoreError> {
    let on_lapse = match policy.on_lapse {
        OnLapse::Recycle => "recycle",
        OnLapse::Delete => "delete",
    };
    let born = match policy.born {
        Born::Free => "free",
        Born::Held => "held",
    };
    let args = vec![
        shard.pool.as_str().into(),
        number(shard.generation),
        number(shard.version),
        number(policy.lifetime_ms),
        number(policy.idle_limit_ms),
        number(policy.cooldown_ms),
        number(max_tokens),
        number(policy.max_hold_ms),
        on_lapse.into(),
        born.into(),
    ];
    loop {
        let answer = inner
            .call_partition(&inner.scripts.set_pool, shard.partition, args.clone())
            .await?;
        let mut reply = answer.only()?;
        match reply.tag.as_str() {
            "set" => {
                return Ok(SetPool::Set {
                    version: reply.int()?,
                });
            }
            "newer" => {
                return Ok(SetPool::Newer {
                    generation: reply.int()?,
                });
            }
            "again" => {} // each call drops up to 1,000 of the old generation's buckets
            _ => return reply.unknown(),
        }
    }
}
