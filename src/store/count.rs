//! `count`: how many tokens of each pool are in which state. See `lua/count.lua`.

use std::collections::{BTreeMap, BTreeSet};

use super::Inner;
use super::batch::BATCH_TOKENS_MAX;
use super::shard::Shard;
use crate::token::{PoolCounts, PoolName, StoreError};

/// Counts of the pools given, the sum of their shards: O(shards), never O(tokens). A pool with a stale shard is
/// left out: the sum of the others would be told as if it were all.
pub(super) async fn count(
    inner: &Inner,
    shards: &[Shard],
) -> Result<BTreeMap<PoolName, PoolCounts>, StoreError> {
    let mut by_partition: BTreeMap<usize, Vec<&Shard>> = BTreeMap::new();
    for shard in shards {
        by_partition.entry(shard.partition).or_default().push(shard);
    }
    let (mut counts, mut behind) = (BTreeMap::new(), BTreeSet::new());
    for (partition, shards) in by_partition {
        for chunk in shards.chunks(BATCH_TOKENS_MAX) {
            let mut args = Vec::new();
            for shard in chunk {
                shard.encode(&mut args);
            }
            let answer = inner
                .call_partition(&inner.scripts.count, partition, args)
                .await?;
            for (shard, mut reply) in chunk.iter().zip(answer.replies) {
                match reply.tag.as_str() {
                    "counted" => {
                        let (free, held, total) = (reply.int()?, reply.int()?, reply.int()?);
                        let cooling = total.saturating_sub(free + held);
                        let sum: &mut PoolCounts = counts.entry(shard.pool.clone()).or_default();
                        sum.free += free;
                        sum.held += held;
                        sum.cooling += cooling;
                    }
                    "stale" => drop(behind.insert(shard.pool.clone())),
                    _ => return reply.unknown(),
                }
            }
        }
    }
    counts.retain(|pool, _| !behind.contains(pool));
    Ok(counts)
}
