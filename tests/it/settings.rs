//! Settings that all replicas must have alike: what they say of theirs, and who notices a difference.

use std::sync::Arc;

use fred::prelude::*;
use tokend::metrics::Metrics;
use tokend::store::{Shared, Store, StoreConfig};
use tokend::token::{KeyIds, Setting};
use tokend::traces::Traces;

use crate::harness::*;

/// A replica that says what its settings are.
struct Replica {
    store: Store,
    metrics: Arc<Metrics>,
}

impl Replica {
    async fn start(config: &StoreConfig, name: &str, url: &str, keys: &str) -> Self {
        let ids = keys.chars().map(String::from).collect();
        let settings = [
            ("PUBLIC_URL", Setting::Value(url.to_owned())),
            ("SECRET_KEY", Setting::Keys(KeyIds::signing(ids))),
        ];
        let settings = settings.map(|(name, it)| (name.to_owned(), it));
        let shared = Shared::new(name.to_owned(), settings.into());
        let metrics = Arc::new(Metrics::new());
        let (counts, spans) = (metrics.clone(), Traces::default());
        let store = Store::start_shared(config.clone(), counts, spans, shared).await;
        let store = store.expect("the store starts");
        Self { store, metrics }
    }

    /// How many others differ, of the URL and of the keys.
    fn differ(&self) -> (i64, i64) {
        let count = |name| {
            self.metrics
                .settings_differ
                .with_label_values(&[name])
                .get()
        };
        (count("PUBLIC_URL"), count("SECRET_KEY"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_disagree_notice_it_until_they_agree() {
    // One that says nothing, as older versions do, is never a difference.
    let silent = Fixture::new().await;
    let a = Replica::start(&silent.config, "a", "x", "k").await;
    let b = Replica::start(&silent.config, "b", "x", "k").await;
    let c = Replica::start(&silent.config, "c", "y", "k").await;
    eventually("all notice it", async || {
        [a.differ(), b.differ(), c.differ()] == [(1, 0), (1, 0), (2, 0)]
    })
    .await;
    c.store.stop().await;
    eventually("those that agree are left", async || {
        [a.differ(), b.differ()] == [(0, 0), (0, 0)]
    })
    .await;
    assert_eq!(silent.said_settings().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_changed_one_replica_at_a_time_is_no_difference_and_a_key_that_one_lacks_is() {
    let f = Fixture::new().await;
    // Another URL shows that they have been compared.
    for (behind, ahead) in [("a", "ab"), ("ab", "ba"), ("ba", "b")] {
        let one = Replica::start(&f.config, "one", "x", behind).await;
        let other = Replica::start(&f.config, "other", "y", ahead).await;
        eventually("they are compared", async || {
            one.differ().0 == 1 && other.differ().0 == 1
        })
        .await;
        assert_eq!(
            (one.differ().1, other.differ().1),
            (0, 0),
            "{behind} {ahead}"
        );
        one.store.stop().await;
        other.store.stop().await;
    }
    let old = Replica::start(&f.config, "old", "x", "a").await;
    let new = Replica::start(&f.config, "new", "x", "b").await;
    eventually("both notice it", async || {
        old.differ() == (0, 1) && new.differ() == (0, 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_said_again_after_redis_has_lost_them() {
    let f = Fixture::new().await;
    let a = Replica::start(&f.config, "a", "x", "k").await;
    eventually("it has said them", async || {
        f.said_settings().await.len() == 1
    })
    .await;
    let root = format!("{}:1:", f.config.key_prefix);
    let keys = [
        format!("{root}replicas"),
        format!("{root}{{{root}replicas}}:settings"),
    ];
    let _: () = f.redis.del(keys.to_vec()).await.expect("del");
    let b = Replica::start(&f.config, "b", "y", "k").await;
    eventually("each knows the other", async || {
        a.differ() == (1, 0) && b.differ() == (1, 0)
    })
    .await;
}
