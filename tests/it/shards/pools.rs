//! A sharded pool as a whole: made, changed, listed, deleted and made again.

use std::collections::BTreeSet;

use fred::prelude::*;
use futures_util::future::join_all;
use tokend::token::*;

use super::{PARTITIONS, sharded, total, two};
use crate::harness::*;
use crate::verbs::*;

#[tokio::test]
async fn what_a_policy_may_say_of_shards() {
    let (f, _) = two().await;
    let put = async |name: &str, shards, max_tokens| {
        let patch = PolicyPatch {
            shards,
            max_tokens,
            ..PolicyPatch::default()
        };
        f.store.put_pool(&pool(name), patch).await.expect("put")
    };
    let partitions = PARTITIONS;
    assert_eq!(
        put("a", Some(PARTITIONS + 1), None).await,
        PutPoolOutcome::TooManyShards { partitions }
    );
    assert_eq!(
        put("a", Some(4), Some(3)).await,
        PutPoolOutcome::TooFewTokens { shards: 4 }
    );
    assert_eq!(f.store.show_pool(&pool("a")).await, Ok(None));
    for shards in 1..=PARTITIONS {
        let name = format!("p{shards}");
        let made = put(&name, Some(shards), Some(u64::from(shards))).await;
        assert!(matches!(made, PutPoolOutcome::Created(view) if view.policy.shards == shards));
        assert_eq!(
            f.generate(&pool(&name), shards as usize).await.len(),
            shards as usize
        );
        let fewer = put(&name, None, Some(u64::from(shards) - 1)).await;
        if shards > 1 {
            assert_eq!(fewer, PutPoolOutcome::TooFewTokens { shards });
        }
        let other = put(&name, Some(shards % PARTITIONS + 1), None).await;
        assert_eq!(other, PutPoolOutcome::ShardsFixed { shards });
        let same = put(&name, Some(shards), Some(50)).await;
        assert!(
            matches!(same, PutPoolOutcome::Changed(view) if view.counts.free == u64::from(shards))
        );
    }
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_walk_over_all_shards_shows_what_is_there_throughout() {
    let (f, g) = two().await;
    let p = f.pool("seats", sharded(2_000)).await;
    let stay: BTreeSet<_> = f.generate(&p, 700).await.into_iter().collect();
    for limit in [1_000, 50, 7] {
        let leave = f.generate(&p, 200).await;
        let mut leave = leave.iter();
        let (mut seen, mut cursor) = (BTreeSet::new(), None::<String>);
        loop {
            let page = f.store.list_tokens(&p, None, cursor.as_deref(), limit);
            let page = page
                .await
                .expect("list")
                .expect("the pool")
                .expect("its cursor");
            assert!(page.tokens.len() <= limit);
            seen.extend(page.tokens.into_iter().map(|view| view.token));
            if let Some(token) = leave.next() {
                g.delete(&p, token.as_str()).await;
            }
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert!(stay.is_subset(&seen), "{limit}");
        join_all(leave.map(|token| g.delete(&p, token.as_str()))).await;
    }
    // A page is filled from the next shard where one has no more.
    let few = f.pool("few", sharded(100)).await;
    f.generate(&few, 40).await;
    let page = f.store.list_tokens(&few, None, None, 100).await;
    let page = page.expect("list").expect("the pool").expect("a cursor");
    assert_eq!((page.tokens.len(), page.cursor), (40, None));
    let unknown = f.store.list_tokens(&few, None, Some("0..4"), 100).await;
    assert!(matches!(unknown, Ok(Some(Err(_)))), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_made_again_with_other_shards_is_another_pool() {
    let (f, g) = two().await;
    let mut fences = BTreeSet::new();
    for round in 0..8_u32 {
        let shards = 1 + (round * 5) % PARTITIONS;
        let patch = PolicyPatch {
            shards: Some(shards),
            ..sharded(100)
        };
        let p = f.pool("seats", patch).await;
        // The other replica still knows the one before.
        assert_eq!(g.generate(&p, 20).await.len(), 20);
        for n in 0..20 {
            let fixture = if n % 2 == 0 { &f } else { &g };
            assert!(fences.insert(fixture.grant(&p).await.fence));
        }
        let empty = g.assign(&p, keyed("k")).await;
        assert!(matches!(empty, AssignOutcome::Empty { .. }), "{empty:?}");
        assert_eq!(g.counts(&p).await, (0, 20, 0));
        f.assert_consistent().await;
        assert!(f.store.delete_pool(&p).await.expect("delete"));
        f.assert_consistent().await;
        assert_eq!(g.assign(&p, any()).await, AssignOutcome::PoolNotFound);
        assert_eq!(g.assign(&p, keyed("k")).await, AssignOutcome::PoolNotFound);
        assert_eq!(g.try_generate(&p, 9).await, GenerateOutcome::PoolNotFound);
    }
}

#[tokio::test]
async fn what_a_dead_replica_left_half_done_is_finished_in_each_shard() {
    let (f, g) = two().await;
    let p = f.pool("seats", sharded(100)).await;
    f.generate(&p, 40).await;
    let registry = format!("{}:1:pools", f.config.key_prefix);
    let prefixes = f.shard_prefixes(&p).await;
    // A shard that was never made: its data was lost, or who made the pool died.
    let lost = &prefixes[2];
    let keys = f.keys(&format!("{lost}:*:seats*")).await;
    let _: u64 = f.redis.del(keys).await.expect("del");
    let here = total(g.counts(&p).await);
    assert!(here < 40);
    f.generate(&p, 60).await;
    assert_eq!(f.counts(&p).await, (here + 60, 0, 0));
    f.assert_consistent().await;
    // A deletion that was only marked.
    let entry: String = f.redis.hget(&registry, "seats").await.expect("hget");
    let marked = entry.replacen(" active ", " deleting ", 1);
    let _: () = f
        .redis
        .hset(&registry, ("seats", marked))
        .await
        .expect("hset");
    assert_eq!(g.store.list_pools().await.expect("list").len(), 1);
    f.assert_consistent().await;
    assert_eq!(f.assign(&p, any()).await, AssignOutcome::PoolNotFound);
}
