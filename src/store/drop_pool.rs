//! `drop_pool`: delete a pool's shards. See `lua/drop_pool.lua`.

use futures_util::future::try_join_all;

use super::Inner;
use super::register::Entry;
use super::shard::{Shard, number};
use crate::token::{PoolName, StoreError};

/// Every shard of the pool. Dropping one twice is fine: who was cut short begins again.
pub(super) async fn drop_pool(
    inner: &Inner,
    pool: &PoolName,
    entry: &Entry,
) -> Result<(), StoreError> {
    let shards = inner.shards(pool, entry).into_iter();
    try_join_all(shards.map(|shard| drop_shard(inner, shard))).await?;
    Ok(())
}

async fn drop_shard(inner: &Inner, shard: Shard) -> Result<(), StoreError> {
    loop {
        let args = vec![shard.pool.as_str().into(), number(shard.generation)];
        let answer = inner
            .call_partition(&inner.scripts.drop_pool, shard.partition, args)
            .await?;
        let reply = answer.only()?;
        match reply.tag.as_str() {
            "dropped" => return Ok(()),
            "again" => {} // each call drops up to 1,000 buckets
            _ => return reply.unknown(),
        }
    }
}
