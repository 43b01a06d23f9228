//! The life of a pool: made, changed, deleted; by replicas that die half-way, and in spite of them.

use fred::prelude::*;
use futures_util::future::join_all;
use tokend::store::Store;
use tokend::token::*;

use crate::harness::*;
use crate::verbs::*;

impl Fixture {
    fn registry(&self) -> String {
        format!("{}:1:pools", self.config.key_prefix)
    }

    /// A pool's entry in the registry, as it is stored.
    async fn entry(&self, p: &PoolName) -> Option<String> {
        let entry = self.redis.hget(self.registry(), p.as_str()).await;
        entry.expect("hget")
    }

    /// As a replica that died half-way would have left it.
    async fn set_entry(&self, p: &PoolName, entry: String) {
        let entry = (p.as_str(), entry);
        let set: Result<(), _> = self.redis.hset(self.registry(), entry).await;
        set.expect("hset");
    }

    async fn names(&self) -> Vec<String> {
        let views = self.store.list_pools().await.expect("list");
        views.iter().map(|view| view.name.to_string()).collect()
    }

    async fn show(&self, p: &PoolName) -> Option<PoolView> {
        self.store.show_pool(p).await.expect("show")
    }
}

/// An entry for a pool of so many seconds' lifetime.
fn entry(generation: u64, version: u64, status: &str, lifetime: u64) -> String {
    let policy = Policy {
        lifetime_ms: lifetime * 1_000,
        ..Policy::FOR_NEW_POOL
    };
    let policy = serde_json::to_string(&policy).expect("JSON");
    format!("{generation} {version} {status} {policy}")
}

async fn put(store: &Store, p: &PoolName, patch: PolicyPatch) -> PutPoolOutcome {
    store.put_pool(p, patch).await.expect("put")
}

#[tokio::test]
async fn made_changed_shown_listed_and_deleted() {
    let f = Fixture::new().await;
    let p = pool("seats");
    assert_eq!(f.names().await, ["default"]);
    assert_eq!(f.show(&p).await, None);
    let made = put(&f.store, &p, policy(30, 0, 5)).await;
    let PutPoolOutcome::Created(view) = made else {
        panic!("{made:?}")
    };
    assert_eq!(f.show(&p).await.as_ref(), Some(&view));
    assert_eq!(
        (view.policy.lifetime_ms, view.policy.cooldown_ms),
        (30_000, 5_000)
    );
    assert_eq!(view.policy.max_tokens, 10_000);
    f.import(&p, &["a", "b"]).await;
    f.grant(&p).await;
    // Fields that are not given keep their value.
    let patch = PolicyPatch {
        max_tokens: Some(5),
        ..PolicyPatch::default()
    };
    let changed = put(&f.store, &p, patch).await;
    let PutPoolOutcome::Changed(view) = changed else {
        panic!("{changed:?}")
    };
    assert_eq!(
        (view.policy.lifetime_ms, view.policy.max_tokens),
        (30_000, 5)
    );
    assert_eq!((view.counts.free, view.counts.held), (1, 1));
    assert_eq!(f.names().await, ["default", "seats"]);
    assert!(f.store.delete_pool(&p).await.expect("delete"));
    assert!(!f.store.delete_pool(&p).await.expect("delete"));
    assert_eq!(f.show(&p).await, None);
    assert_eq!(f.names().await, ["default"]);
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_change_that_changes_nothing_is_one_all_the_same() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(30, 0, 5), &["a"]).await;
    let before = f.entry(&p).await;
    let same = put(&f.store, &p, policy(30, 0, 5)).await;
    assert!(matches!(same, PutPoolOutcome::Changed(_)));
    assert_eq!(f.entry(&p).await, before);
}

#[tokio::test]
async fn shards_are_fixed_at_creation() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(30, 0, 5)).await;
    let shards = |shards| PolicyPatch {
        shards: Some(shards),
        ..PolicyPatch::default()
    };
    let told = put(&f.store, &p, shards(2)).await;
    assert_eq!(told, PutPoolOutcome::ShardsFixed { shards: 1 });
    assert!(matches!(
        put(&f.store, &p, shards(1)).await,
        PutPoolOutcome::Changed(_)
    ));
}

#[tokio::test]
async fn nothing_answers_for_a_pool_that_is_not_there() {
    let f = Fixture::new().await;
    let p = pool("nowhere");
    let t = token("a");
    assert_eq!(f.assign(&p, any()).await, AssignOutcome::PoolNotFound);
    assert_eq!(f.import(&p, &["a"]).await, GenerateOutcome::PoolNotFound);
    assert_eq!(
        f.keep(&p, "a", None, None).await,
        KeepAliveOutcome::PoolNotFound
    );
    assert_eq!(f.unblock(&p, "a", None).await, UnblockOutcome::PoolNotFound);
    assert_eq!(f.delete(&p, "a").await, DeleteOutcome::PoolNotFound);
    assert_eq!(
        f.store.inspect(&p, &t).await,
        Ok(InspectOutcome::PoolNotFound)
    );
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_half_done_creation_is_finished_by_whoever_meets_it() {
    let f = Fixture::new().await;
    let p = pool("seats");
    let generation = f.now_ms().await * 1_000;
    f.set_entry(&p, entry(generation, 1, "active", 33)).await;
    // Listed with nothing in it, and then used.
    assert_eq!(f.names().await, ["default", "seats"]);
    f.import(&p, &["a"]).await;
    assert_eq!(f.grant(&p).await.expires_in_ms, 33_000);
    assert_eq!(f.counts(&p).await, (0, 1, 0));
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_half_done_change_is_finished_by_whoever_meets_it() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    let g = f.replica().await;
    let generation = f.shard_field(&p, "generation").await;
    f.set_entry(&p, entry(generation, 2, "active", 44)).await;
    let view = g.show(&p).await.expect("there");
    assert_eq!((view.policy.lifetime_ms, view.counts.free), (44_000, 1));
    assert_eq!(f.shard_field(&p, "lifetime").await, 44_000);
    // The replica with the old copy goes by the shard.
    assert_eq!(f.grant(&p).await.expires_in_ms, 44_000);
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_half_done_deletion_is_finished_by_whoever_meets_it() {
    let f = Fixture::new().await;
    for meet in ["list", "show", "verb", "put", "delete"] {
        let p = f.filled(meet, policy(60, 0, 0), &["a"]).await;
        f.grant(&p).await;
        let g = f.replica().await;
        let generation = f.shard_field(&p, "generation").await;
        f.set_entry(&p, entry(generation, 2, "deleting", 60)).await;
        match meet {
            "list" => assert_eq!(g.names().await, ["default"]),
            "show" => assert_eq!(g.show(&p).await, None),
            "verb" => assert_eq!(g.assign(&p, any()).await, AssignOutcome::PoolNotFound),
            "put" => {
                let made = put(&g.store, &p, policy(60, 0, 0)).await;
                assert!(matches!(made, PutPoolOutcome::Created(_)), "{made:?}");
                assert_eq!(g.counts(&p).await, (0, 0, 0));
                assert!(f.store.delete_pool(&p).await.expect("delete"));
            }
            _ => assert!(g.store.delete_pool(&p).await.expect("delete")),
        }
        assert_eq!(f.entry(&p).await, None, "{meet}");
        assert_eq!(
            f.assign(&p, any()).await,
            AssignOutcome::PoolNotFound,
            "{meet}"
        );
        g.store.stop().await;
        f.assert_consistent().await;
    }
}

#[tokio::test]
async fn replicas_that_make_change_and_delete_one_pool_at_once_agree() {
    let f = Fixture::new().await;
    let g = f.replica().await;
    let p = pool("seats");
    let made = join_all((0..10).map(|n| {
        let store = if n % 2 == 0 { &f.store } else { &g.store };
        put(store, &p, policy(10 + n, 0, 0))
    }))
    .await;
    let created = made
        .iter()
        .filter(|m| matches!(m, PutPoolOutcome::Created(_)));
    assert_eq!(created.count(), 1);
    let (mine, theirs) = (f.show(&p).await, g.show(&p).await);
    assert_eq!(mine, theirs);
    let lifetime = mine.expect("there").policy.lifetime_ms;
    assert_eq!(f.shard_field(&p, "lifetime").await, lifetime);
    f.assert_consistent().await;
    for round in 0..10 {
        let p = pool(&format!("p{round}"));
        let work = (0..6).map(|n| {
            let (store, p) = (if n % 2 == 0 { &f.store } else { &g.store }, p.clone());
            async move {
                if n < 3 {
                    put(store, &p, policy(10 + n, 0, 0)).await;
                } else {
                    store.delete_pool(&p).await.expect("delete");
                }
            }
        });
        join_all(work).await;
        // Whatever came last: it is there for both, or for neither.
        assert_eq!(f.show(&p).await, g.show(&p).await);
        f.store.delete_pool(&p).await.expect("delete");
        assert_eq!(g.assign(&p, any()).await, AssignOutcome::PoolNotFound);
    }
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_replica_with_an_old_copy_is_put_right_by_the_shard() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a", "b", "c"]).await;
    let g = f.replica().await;
    g.grant(&p).await;
    // Changed, deleted, made again: g still has the first entry.
    f.change(&p, policy(70, 0, 0)).await;
    assert_eq!(g.grant(&p).await.expires_in_ms, 70_000);
    f.store.delete_pool(&p).await.expect("delete");
    assert_eq!(g.assign(&p, any()).await, AssignOutcome::PoolNotFound);
    f.pool("seats", policy(80, 0, 0)).await;
    g.import(&p, &["d"]).await;
    assert_eq!(g.grant(&p).await.expires_in_ms, 80_000);
    assert_eq!(f.counts(&p).await, (0, 1, 0));
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_call_of_a_replica_that_slept_through_delete_and_recreate_is_refused() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    let generation = f.shard_field(&p, "generation").await;
    f.store.delete_pool(&p).await.expect("delete");
    f.filled("seats", policy(60, 0, 0), &["a"]).await;
    for (script, item) in [
        ("assign", &["", "", "", "0", "", "0", ""] as &[&str]),
        ("generate", &["", "", "", "", "0", "0", "1", "z"]),
        ("keep_alive", &["a", "0", "0"]),
        ("unblock", &["a", "0", ""]),
        ("delete", &["a"]),
        ("inspect", &["a", ""]),
        ("count", &[]),
    ] {
        let told = f.raw_at(script, &p, generation, 1, &[item]).await;
        assert_eq!(told[0].tag, "stale", "{script}");
    }
    assert_eq!(f.counts(&p).await, (1, 0, 0));
    f.assert_consistent().await;
}

#[tokio::test]
async fn after_a_loss_of_all_data_default_is_made_again() {
    let Some(own) = OwnRedis::start(&[]).await else {
        return skip(
            "after_a_loss_of_all_data_default_is_made_again",
            "no redis-server",
        );
    };
    let f = Fixture::on(&own.url).await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    let default = PoolName::default_pool();
    f.generate(&default, 3).await;
    let fence = f.grant(&default).await.fence;
    f.redis.flushall::<()>(false).await.expect("flushall");
    assert_eq!(f.assign(&p, any()).await, AssignOutcome::PoolNotFound);
    let empty = f.assign(&default, any()).await;
    assert!(matches!(empty, AssignOutcome::Empty { .. }), "{empty:?}");
    f.generate(&default, 3).await;
    assert!(f.grant(&default).await.fence > fence, "no fence twice");
    assert_eq!(f.names().await, ["default"]);
    f.assert_consistent().await;
    let layout = format!("{}:1:layout", f.config.key_prefix);
    assert_eq!(f.keys(&layout).await.len(), 1);
}

#[tokio::test]
async fn after_a_loss_of_all_data_the_list_has_default_before_anybody_used_it() {
    let Some(own) = OwnRedis::start(&[]).await else {
        return skip(
            "after_a_loss_of_all_data_the_list_has_default",
            "no redis-server",
        );
    };
    let f = Fixture::on(&own.url).await;
    f.filled("seats", policy(60, 0, 0), &["a"]).await;
    f.redis.flushall::<()>(false).await.expect("flushall");
    assert_eq!(f.names().await, ["default"]);
    f.assert_consistent().await;
}

#[tokio::test]
async fn another_number_of_partitions_refuses_to_start_with_the_line_that_mends_it() {
    let f = Fixture::new().await;
    let mut config = f.config.clone();
    config.partitions = PARTITIONS + 1;
    let refused = Store::start(config, f.metrics.clone()).await;
    let told = refused.err().expect("refused").to_string();
    assert!(
        told.contains(&format!("set PARTITIONS={PARTITIONS}")),
        "{told}"
    );
    assert!(told.contains("KEY_PREFIX"), "{told}");
}

#[tokio::test]
async fn the_environment_decides_defaults_policy_and_its_tokens_stay() {
    let f = Fixture::new().await;
    let default = PoolName::default_pool();
    f.generate(&default, 3).await;
    assert_eq!(f.grant(&default).await.expires_in_ms, 60_000);
    let mut config = f.config.clone();
    config.default_policy.lifetime_ms = 90_000;
    let g = Fixture::with(config).await;
    assert_eq!(g.grant(&default).await.expires_in_ms, 90_000);
    assert_eq!(f.counts(&default).await, (1, 2, 0));
    assert_eq!(
        f.show(&default).await.expect("there").policy.lifetime_ms,
        90_000
    );
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_big_pool_goes_whole_and_its_name_can_be_used_at_once() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    f.generate(&p, 5_000).await;
    f.scattered(&p, 2_000).await;
    let (neighbour, before) = (pool("default"), f.lasting_keys().await.len());
    f.generate(&neighbour, 1).await;
    assert!(before > 2_000);
    assert!(f.store.delete_pool(&p).await.expect("delete"));
    f.assert_consistent().await;
    f.filled("seats", policy(60, 0, 0), &["a"]).await;
    assert_eq!(f.counts(&p).await, (1, 0, 0));
    f.assert_consistent().await;
}
