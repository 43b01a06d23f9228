//! `count`: how many tokens of each pool are in which state. See `lua/count.lua`.

use std::collections::BTreeMap;

use super::Inner;
use super::batch::BATCH_TOKENS_MAX;
use super::shard::Shard;
use crate::token::{PoolCounts, PoolName, StoreError};

/// Counts of the pools given: O(pools), never O(tokens). A pool whose shard is stale is left out.
pub(super) async fn count(
    inner: &Inner,
    shards: &[Shard],
) -> Result<BTreeMap<PoolName, PoolCounts>, StoreError> {
    let mut by_partition: BTreeMap<usize, Vec<&Shard>> = BTreeMap::new();
    for shard in shards {
        by_partition.entry(shard.partition).or_default().push(shard);
    }
    let mut counts = BTreeMap::new();
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
                        let counted = PoolCounts {
                            free,
                            held,
                            cooling,
                        };
                        counts.insert(shard.pool.clone(), counted);
                    }
                    "stale" => {}
                    _ => return reply.unknown(),
                }
            }
        }
    }
    Ok(counts)
}
