use tokend::token::*;

use crate::harness::*;
use crate::raw::Tagged;
use crate::verbs::*;

impl Fixture {
    /// `set_pool` with a lifetime of so many seconds, and nothing else in the policy.
    async fn set_pool(&self, p: &PoolName, generation: u64, version: u64, lifetime: u64) -> Tagged {
        let lifetime = (lifetime * 1_000).to_string();
        let (generation, version) = (generation.to_string(), version.to_string());
        let policy = [&lifetime, "0", "0", "10000", "0", "recycle", "free"];
        let mut args = vec![p.to_string(), generation, version];
        args.extend(policy.map(str::to_owned));
        let keys = self.partition_keys(p).await;
        let replies = self.try_raw("set_pool", keys, args).await;
        replies.expect("the script runs").remove(0)
    }
}

#[tokio::test]
async fn a_newer_version_sets_the_policy_and_an_older_one_does_not() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a", "b"]).await;
    f.grant(&p).await;
    let generation = f.shard_field(&p, "generation").await;
    assert_eq!(f.set_pool(&p, generation, 7, 70).await.tag, "set");
    assert_eq!(f.shard_field(&p, "lifetime").await, 70_000);
    // A retry, and a replica that is late.
    for version in [7, 5] {
        assert_eq!(f.set_pool(&p, generation, version, 50).await.tag, "set");
        assert_eq!(f.shard_field(&p, "lifetime").await, 70_000);
        assert_eq!(f.shard_field(&p, "version").await, 7);
    }
    assert_eq!(f.shard_field(&p, "held").await, 1);
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_newer_generation_starts_empty_and_an_older_one_is_told() {
    let f = Fixture::new().await;
    let p = f
        .filled("seats", policy(60, 300, 20), &["a", "b", "c"])
        .await;
    f.granted(&p, keyed("k")).await;
    f.grant(&p).await;
    let old = f.shard_field(&p, "generation").await;
    assert_eq!(f.set_pool(&p, old + 5, 1, 70).await.tag, "set");
    assert_eq!(f.raw("count", &p, &[&[]]).await[0].int(2), 0);
    assert_eq!(f.shard_field(&p, "held").await, 0);
    let told = f.set_pool(&p, old, 9, 60).await;
    assert_eq!((told.tag.as_str(), told.int(0)), ("newer", old + 5));
    f.assert_consistent().await;
}

#[tokio::test]
async fn one_that_was_deleted_is_not_made_again_by_a_replica_that_slept() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    let old = f.shard_field(&p, "generation").await;
    assert!(f.store.delete_pool(&p).await.expect("delete"));
    let told = f.set_pool(&p, old, 9, 60).await;
    assert_eq!((told.tag.as_str(), told.int(0)), ("newer", old));
    let told = f.set_pool(&p, old - 1, 9, 60).await;
    assert_eq!((told.tag.as_str(), told.int(0)), ("newer", old));
    f.assert_consistent().await;
    // A new one takes the tombstone's place, and stays.
    assert_eq!(f.set_pool(&p, old + 1, 1, 60).await.tag, "set");
    let (_, keys) = f.dump().await;
    let shard = format!("{}:pool:{p}", f.prefix_of(&p).await);
    assert!(keys[&shard].ttl_ms < 0);
    f.assert_consistent().await;
}

#[tokio::test]
async fn what_an_older_generation_left_is_dropped_in_bounded_steps() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    let f = f.without_sweeper().await;
    f.scattered(&p, 2_500).await;
    let old = f.shard_field(&p, "generation").await;
    let mut tags = Vec::new();
    for _ in 0..3 {
        tags.push(f.set_pool(&p, old + 1, 1, 60).await.tag);
    }
    assert_eq!(tags, ["again", "again", "set"]);
    f.assert_structure().await;
}

#[tokio::test]
async fn a_deadline_that_passed_before_the_change_goes_by_the_policy_it_passed_under() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    f.grant(&p).await;
    let generation = f.shard_field(&p, "generation").await;
    let f = f.without_sweeper().await;
    f.pass(&p, secs(61)).await;
    let args = ["60000", "0", "600000", "10000", "0", "recycle", "free"];
    let mut change = vec![p.to_string(), generation.to_string(), "9".to_owned()];
    change.extend(args.map(str::to_owned));
    let keys = f.partition_keys(&p).await;
    let told = f.try_raw("set_pool", keys, change).await;
    assert_eq!(told.expect("the script runs")[0].tag, "set");
    // It lapsed without a cooldown; the new one is for those that come back from now on.
    assert_eq!(f.raw("count", &p, &[&[]]).await[0].int(0), 1);
    f.assert_structure().await;
}
