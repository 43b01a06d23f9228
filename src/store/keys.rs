//! Every key name. Nothing else forms one (the scripts append to the prefix that they are given).
//!
//! A name is `<prefix>:<schema>:{<tag>}:<what>`; the braces make the tag alone decide the slot, so all
//! that lies in one partition lies in one slot. See `docs/KEYS.md`.

use fred::util::redis_keyslot;

/// Version of the key schema. Another number is another data set.
pub(super) const SCHEMA: u32 = 1;
/// Slots of a Redis Cluster.
pub(super) const SLOTS: u16 = 16_384;

/// The names of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Partition {
    /// From 0.
    pub number: usize,
    /// Before each key of the partition. Never exists itself.
    pub prefix: String,
    /// Never exists; declared with `prefix` by each call, so that a Redis that is moving the slot
    /// answers ASK or TRYAGAIN before the script starts, never in its middle.
    pub guard: String,
    /// The doorbell: expires when something falls due.
    pub alarm: String,
    /// The slot that all its keys lie in.
    pub slot: u16,
    /// Not a key but a channel: names the waiters that have an offer.
    pub wakes: String,
}

impl Partition {
    /// The hash tag, braces and all.
    pub fn tag(&self) -> &str {
        let start = self.prefix.rfind('{').unwrap_or(0);
        &self.prefix[start..]
    }
}

/// The slot of any key.
pub(super) fn slot_of(key: &str) -> u16 {
    redis_keyslot(key.as_bytes())
}

/// The names of one data set.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    pub partitions: Vec<Partition>,
    /// HASH: pool → entry. Outside every partition.
    pub registry: String,
    /// HASH: what all replicas must agree on.
    pub layout: String,
    /// ZSET: the replicas that are alive. Outside every partition.
    pub replicas: String,
    /// HASH: replica → what it says of its settings. In the slot of `replicas`: one script keeps both.
    pub settings: String,
    /// HASH: user → password hash and epoch. Outside every partition.
    pub users: String,
}

impl Keys {
    pub fn new(prefix: &str, partitions: u32) -> Self {
        let root = format!("{prefix}:{SCHEMA}");
        let partitions = (0..partitions)
            .map(|index| {
                let prefix = format!("{root}:{{{}}}", tag(index, partitions));
                Partition {
                    number: index as usize,
                    guard: format!("{prefix}:guard"),
                    alarm: format!("{prefix}:alarm"),
                    slot: slot_of(&prefix),
                    wakes: format!("{prefix}:wakes"),
                    prefix,
                }
            })
            .collect();
        let replicas = format!("{root}:replicas");
        let prefix = format!("{root}:{{{replicas}}}");
        Self {
            partitions,
            registry: format!("{root}:pools"),
            layout: format!("{root}:layout"),
            settings: format!("{prefix}:settings"),
            replicas,
            users: format!("{root}:users"),
        }
    }

    /// The partition of a pool of one shard: stable for all time, for it says where the data lies.
    pub fn partition_of(&self, pool: &str) -> usize {
        usize::from(redis_keyslot(pool.as_bytes())) % self.partitions.len()
    }

    /// The partition of one of a pool's shards, `index` of `shards`. They lie evenly spaced from the pool's own
    /// partition on, so evenly over the slots and over a cluster's primaries; a pool of one lies where it always lay.
    pub fn partition_of_shard(&self, pool: &str, index: usize, shards: usize) -> usize {
        let partitions = self.partitions.len();
        (self.partition_of(pool) + index * partitions / shards) % partitions
    }
}

/// The first of `p3.0`, `p3.1`, … whose slot lies within an eighth of the partition's even share of the
/// slots, around its middle. Plain `p0` … `p15` would fall 4, 5 and 7 on three primaries.
fn tag(index: u32, partitions: u32) -> String {
    let slots = u32::from(SLOTS);
    let middle = (2 * index + 1) * slots / (2 * partitions);
    let slack = (slots / partitions / 8).max(8);
    (0u32..)
        .map(|salt| format!("p{index}.{salt}"))
        .find(|tag| u32::from(redis_keyslot(tag.as_bytes())).abs_diff(middle) <= slack)
        .expect("CRC16 reaches every slot")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_never_change() {
        let keys = Keys::new("tokend", 16);
        assert_eq!(keys.registry, "tokend:1:pools");
        assert_eq!(keys.layout, "tokend:1:layout");
        assert_eq!(keys.replicas, "tokend:1:replicas");
        assert_eq!(keys.settings, "tokend:1:{tokend:1:replicas}:settings");
        assert_eq!(slot_of(&keys.settings), slot_of(&keys.replicas));
        assert_eq!(keys.users, "tokend:1:users");
        let third = &keys.partitions[3];
        assert_eq!(third.prefix, "tokend:1:{p3.4}");
        assert_eq!(third.guard, "tokend:1:{p3.4}:guard");
        assert_eq!(third.alarm, "tokend:1:{p3.4}:alarm");
        assert_eq!(third.wakes, "tokend:1:{p3.4}:wakes");
        assert_eq!(keys.partition_of("default"), 6);
        assert_eq!(keys.partition_of("licence-seats"), 8);
    }

    #[test]
    fn shards_never_move() {
        let keys = Keys::new("tokend", 16);
        let lie = |pool, shards| -> Vec<usize> {
            (0..shards)
                .map(|index| keys.partition_of_shard(pool, index, shards))
                .collect()
        };
        assert_eq!(lie("licence-seats", 1), [8]);
        assert_eq!(lie("licence-seats", 3), [8, 13, 2]);
        assert_eq!(lie("licence-seats", 4), [8, 12, 0, 4]);
        assert_eq!(lie("default", 5), [6, 9, 12, 15, 2]);
    }

    proptest! {
        #[test]
        fn shards_lie_in_partitions_of_their_own_evenly_spaced(
            pool in "[a-z0-9][a-z0-9-]{0,62}", partitions in 1..=64_u32, wish in 1..=64_usize,
        ) {
            let keys = Keys::new("t", partitions);
            let partitions = partitions as usize;
            let shards = wish.min(partitions);
            let lie = (0..shards).map(|index| keys.partition_of_shard(&pool, index, shards));
            let lie: std::collections::BTreeSet<_> = lie.collect();
            prop_assert_eq!(lie.len(), shards);
            prop_assert!(lie.contains(&keys.partition_of(&pool)));
            // However the partitions are cut into equal runs (primaries), none has two shards more than another.
            for start in 0..partitions {
                let half = partitions / 2;
                let run = (start..start + half).map(|p| p % partitions);
                let here = run.filter(|p| lie.contains(p)).count();
                let even = shards * half / partitions;
                prop_assert!(here >= even.saturating_sub(1) && here <= even + 2, "{here} of {shards}");
            }
        }
    }

    #[test]
    fn partitions_are_spread_evenly_over_the_slots() {
        for partitions in [1, 3, 16, 100, 1024] {
            let keys = Keys::new("t", partitions);
            let slots = u32::from(SLOTS);
            let share = slots / partitions;
            for (index, partition) in keys.partitions.iter().enumerate() {
                let slot = u32::from(redis_keyslot(partition.prefix.as_bytes()));
                let start = u32::try_from(index).unwrap() * slots / partitions;
                assert!(
                    slot + share >= start && slot <= start + share + 8,
                    "partition {index} of {partitions} lies in slot {slot}"
                );
            }
        }
    }
}
