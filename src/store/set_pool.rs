//! `set_pool`: make a pool's shard or give it a newer policy. See `lua/set_pool.lua`.

use super::Inner;
use super::register::Entry;
use super::shard::number;
use crate::token::{OnLapse, PoolName, StoreError};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SetPool {
    /// The shard has this policy or a newer one.
    Set,
    /// The shard knows a newer generation, or that this one was deleted.
    Newer { generation: u64 },
}

pub(super) async fn set_pool(
    inner: &Inner,
    pool: &PoolName,
    entry: &Entry,
) -> Result<SetPool, StoreError> {
    let policy = &entry.policy;
    let on_lapse = match policy.on_lapse {
        OnLapse::Recycle => "recycle",
        OnLapse::Delete => "delete",
    };
    let args = vec![
        pool.as_str().into(),
        number(entry.generation),
        number(entry.version),
        number(policy.lifetime_ms),
        number(policy.idle_limit_ms),
        number(policy.cooldown_ms),
        number(policy.max_tokens),
        number(policy.max_hold_ms),
        on_lapse.into(),
    ];
    let partition = inner.keys.partition_of(pool.as_str());
    loop {
        let answer = inner
            .call_partition(&inner.scripts.set_pool, partition, args.clone())
            .await?;
        let mut reply = answer.only()?;
        match reply.tag.as_str() {
            "set" => return Ok(SetPool::Set),
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
