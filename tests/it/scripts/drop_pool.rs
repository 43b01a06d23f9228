use fred::prelude::*;
use tokend::token::*;

use crate::harness::*;
use crate::verbs::*;

impl Fixture {
    async fn drop_pool(&self, p: &PoolName, generation: u64) -> String {
        let keys = self.partition_keys(p).await;
        let args = vec![p.to_string(), generation.to_string()];
        let replies = self.try_raw("drop_pool", keys, args).await;
        replies.expect("the script runs").remove(0).tag
    }

    /// So many held tokens, each in a wheel bucket of its own, an hour from now and later.
    pub async fn scattered(&self, p: &PoolName, count: u64) {
        const HOUR_MS: u64 = 3_600_000;
        let first = self.now_ms().await / 60_000 + 60;
        for chunk in (0..count).collect::<Vec<_>>().chunks(500) {
            let names: Vec<_> = chunk.iter().map(|n| format!("t{n}")).collect();
            let size = names.len().to_string();
            let mut item = vec!["", "", "", "", "0", "0", size.as_str()];
            item.extend(names.iter().map(String::as_str));
            self.raw("generate", p, &[&item]).await;
            let lifetimes = chunk.iter().map(|n| (HOUR_MS + n * 60_000).to_string());
            let lifetimes: Vec<_> = lifetimes.collect();
            let items = lifetimes.iter().zip(&names);
            let items: Vec<[&str; 7]> = items
                .map(|(lifetime, name)| ["", "", "", lifetime, name, "0", ""])
                .collect();
            let items: Vec<&[&str]> = items.iter().map(<[_; 7]>::as_slice).collect();
            self.raw("assign", p, &items).await;
        }
        let ticks = format!("{}:ticks:{p}", self.prefix_of(p).await);
        let buckets: u64 = self.redis.zcard(ticks).await.expect("zcard");
        assert!(buckets >= count, "{buckets} buckets from minute {first}");
    }
}

#[tokio::test]
async fn all_of_the_pool_goes_but_a_tombstone_that_leaves_by_itself() {
    let f = Fixture::new().await;
    let before = f.lasting_keys().await;
    let p = f
        .filled("seats", policy(60, 300, 20), &["a", "b", "c"])
        .await;
    f.granted(&p, keyed("k")).await;
    f.granted(&p, lasting(86_400)).await;
    let generation = f.shard_field(&p, "generation").await;
    assert_eq!(f.drop_pool(&p, generation).await, "dropped");
    f.assert_consistent().await;
    let (_, keys) = f.dump().await;
    let leftovers: Vec<_> = keys.keys().filter(|name| name.contains("seats")).collect();
    assert_eq!(
        leftovers,
        [&format!("{}:pool:seats", f.prefix_of(&p).await)]
    );
    assert!(keys[leftovers[0]].ttl_ms > 0);
    // The fence outlives the pool.
    let lasting = f.lasting_keys().await.into_iter();
    let more: Vec<_> = lasting.filter(|name| !before.contains(name)).collect();
    assert_eq!(more, [format!("{}:fence", f.prefix_of(&p).await)]);
    // A retry.
    assert_eq!(f.drop_pool(&p, generation).await, "dropped");
    f.assert_consistent().await;
}

#[tokio::test]
async fn one_that_has_been_made_again_is_left_alone() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    let generation = f.shard_field(&p, "generation").await;
    assert_eq!(f.drop_pool(&p, generation - 1).await, "dropped");
    assert_eq!(f.counts(&p).await, (1, 0, 0));
    f.assert_consistent().await;
}

#[tokio::test]
async fn many_buckets_go_in_bounded_steps() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    let f = f.without_sweeper().await;
    f.scattered(&p, 2_500).await;
    let generation = f.shard_field(&p, "generation").await;
    let mut tags = Vec::new();
    for _ in 0..3 {
        tags.push(f.drop_pool(&p, generation).await);
    }
    assert_eq!(tags, ["again", "again", "dropped"]);
    f.assert_structure().await;
}

#[tokio::test]
async fn a_drop_that_was_broken_off_is_finished_by_the_next() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    f.scattered(&p, 1_500).await;
    let generation = f.shard_field(&p, "generation").await;
    assert_eq!(f.drop_pool(&p, generation).await, "again");
    // Meanwhile nothing answers for it.
    let told = f.raw_at("inspect", &p, generation, 1, &[&["t1", ""]]).await;
    assert_eq!(told[0].tag, "stale");
    assert_eq!(f.drop_pool(&p, generation).await, "dropped");
    f.assert_consistent().await;
}
