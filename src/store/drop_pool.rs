//! `drop_pool`: delete a pool's shard. See `lua/drop_pool.lua`.

use super::Inner;
use super::shard::number;
use crate::token::{PoolName, StoreError};

pub(super) async fn drop_pool(
    inner: &Inner,
    pool: &PoolName,
    generation: u64,
) -> Result<(), StoreError> {
    let partition = inner.keys.partition_of(pool.as_str());
    loop {
        let args = vec![pool.as_str().into(), number(generation)];
        let answer = inner
            .call_partition(&inner.scripts.drop_pool, partition, args)
            .await?;
        let reply = answer.only()?;
        match reply.tag.as_str() {
            "dropped" => return Ok(()),
            "again" => {} // each call drops up to 1,000 buckets
            _ => return reply.unknown(),
        }
    }
}
