//! Exchanges, deletes and creates at once over two replicas: whatever happens, what is seen can be explained.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use rand::RngExt;
use serde_json::json;
use tokend::token::*;
use tokio::task::JoinSet;

use crate::harness::*;
use crate::scripts::exchange::given;
use crate::verbs::*;

/// Rounds of each race.
const ROUNDS: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_exchanges_over_two_replicas_have_one_successor_and_one_metadata() {
    let (f, g) = two().await;
    for flow in [Flow::OneTime, Flow::Session] {
        let family = f.family(flow, json!({"kept": 1})).await;
        let calls = (0..100).map(|n| {
            let (store, family) = (if n % 2 == 0 { &f } else { &g }, &family);
            async move {
                if flow == Flow::OneTime {
                    store.exchange(family, 1, json!({"who": n})).await
                } else {
                    store.refresh(family, 1).await
                }
            }
        });
        let outcomes = join_all(calls).await;
        let first = given(&outcomes[0]);
        assert_eq!((first.0, &first.1["kept"]), (2, &json!(1)));
        assert!(outcomes.iter().all(|it| given(it) == first), "{outcomes:?}");
        let view = f.alive(flow, &family).await.expect("alive");
        assert_eq!(view.number.get(), 2);
    }
    f.assert_consistent().await;
}

async fn two() -> (Fixture, Fixture) {
    let f = Fixture::new().await;
    let g = f.replica().await;
    (f, g)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_exchange_that_begins_after_a_delete_was_answered_succeeds() {
    let (f, g) = two().await;
    for round in 0..ROUNDS {
        let family = f.family(Flow::OneTime, json!({"a": 1})).await;
        let deleted = AtomicBool::new(false);
        let exchanges = async {
            let mut number = 1;
            loop {
                let after = deleted.load(Ordering::SeqCst);
                let replica = if number % 2 == 0 { &f } else { &g };
                match replica
                    .exchange(&family, number, json!({"n": number}))
                    .await
                {
                    ExchangeOutcome::Exchanged(it) => {
                        assert!(!after, "round {round}: exchanged after the delete");
                        number = it.number.get();
                    }
                    outcome => {
                        assert_eq!(outcome, ExchangeOutcome::Absent);
                        return;
                    }
                }
            }
        };
        let delete = async {
            let pause = rand::rng().random_range(0..3_000);
            tokio::time::sleep(Duration::from_micros(pause)).await;
            let store = if round % 2 == 0 { &f.store } else { &g.store };
            let done = store
                .delete_family(Flow::OneTime, family.partition, &family.family)
                .await;
            deleted.store(true, Ordering::SeqCst);
            assert_eq!(done, Ok(true));
        };
        tokio::join!(exchanges, delete);
        assert_eq!(f.alive(Flow::OneTime, &family).await, None);
    }
    f.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_creates_never_pass_the_cap_and_reach_it() {
    let f = Fixture::with_cap(3, 20).await;
    let g = f.replica().await;
    let calls = (0..60).map(|n| {
        let store = if n % 2 == 0 { &f.store } else { &g.store };
        store.create_family(Flow::OneTime, None, Metadata::default())
    });
    let made = join_all(calls).await.into_iter();
    let made: Vec<_> = made.filter_map(|made| made.expect("create")).collect();
    assert_eq!(made.len(), 20);
    // Each one that goes makes room for one. It may be behind a create, which sees each partition full once and says so;
    // once all are still, what is left is found.
    let mut tasks = JoinSet::new();
    for (family, _) in made {
        let (f, g) = (f.store.clone(), g.store.clone());
        tasks.spawn(async move {
            let gone = f
                .delete_family(Flow::OneTime, family.partition, &family.family)
                .await;
            assert_eq!(gone, Ok(true));
            g.create_family(Flow::OneTime, None, Metadata::default())
                .await
        });
    }
    let again = tasks.join_all().await.into_iter();
    let again = again.filter(|made| made.as_ref().expect("create").is_some());
    for place in again.count()..=20 {
        let one_more = f
            .store
            .create_family(Flow::OneTime, None, Metadata::default());
        assert_eq!(one_more.await.expect("create").is_some(), place < 20);
    }
    f.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_whose_answer_died_with_its_replica_is_retried_with_the_same_result() {
    let f = Fixture::new().await;
    for round in 0..5_u64 {
        let family = f.family(Flow::OneTime, json!({"a": 1})).await;
        // A replica that is asked, and is gone at once with all its tasks.
        let dying = tokio::runtime::Runtime::new().expect("a runtime");
        let (config, asked) = (f.config.clone(), family.clone());
        let lost = dying.spawn(async move {
            let g = Fixture::with(config).await;
            g.exchange(&asked, 1, json!({"by": "the dead"})).await
        });
        eventually("the exchange has reached Redis", async || {
            let view = f.alive(Flow::OneTime, &family).await;
            view.is_some_and(|view| view.number.get() == 2)
        })
        .await;
        lost.abort();
        dying.shutdown_background();
        let retry = given(&f.exchange(&family, 1, json!({"by": round})).await);
        assert_eq!(retry, (2, json!({"a": 1, "by": "the dead"})));
        assert_eq!(given(&f.exchange(&family, 1, json!({})).await), retry);
        assert_eq!(given(&f.exchange(&family, 2, json!({})).await).0, 3);
    }
    f.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lapse_and_an_exchange_at_once_leave_the_family_dead_or_renewed_and_nothing_between() {
    let mut config = Fixture::with_cap(2, 100).await.config;
    config.key_prefix = new_namespace();
    config.flows.one_time.lifetime_ms = 1_000;
    let f = Fixture::with(config).await;
    let g = f.replica().await;
    let mut tasks = JoinSet::new();
    for n in 0..ROUNDS {
        let config = f.config.clone();
        let (f, g) = (f.store.clone(), g.store.clone());
        tasks.spawn(async move {
            let meta = crate::scripts::exchange::metadata(&json!({"a": 1}));
            let made = f.create_family(Flow::OneTime, None, meta.clone()).await;
            let (family, created) = made.expect("create").expect("room");
            // Around the deadline, some before and some after.
            let lead = rand::rng().random_range(0..40);
            tokio::time::sleep(Duration::from_millis(980 + lead)).await;
            let request = tokend::store::ExchangeRequest {
                token: family.clone(),
                metadata: meta,
                retry: rotating::ROTATION_RETRY_DEFAULT,
                renew: true,
                revoke_on_reuse: false,
            };
            let store = if n % 2 == 0 { &f } else { &g };
            match store
                .exchange(Flow::OneTime, &request)
                .await
                .expect("exchange")
            {
                ExchangeOutcome::Exchanged(it) => {
                    assert!(it.now_ms <= created.expires_at_ms, "it had lapsed");
                    assert_eq!(
                        it.expires_at_ms,
                        it.now_ms + config.flows.one_time.lifetime_ms
                    );
                }
                outcome => {
                    assert_eq!(outcome, ExchangeOutcome::Absent);
                    let view = f.inspect_family(Flow::OneTime, family.partition, &family.family);
                    assert_eq!(view.await, Ok(None));
                }
            }
        });
    }
    tasks.join_all().await;
    let pool = PoolName::of_flow(Flow::OneTime);
    eventually("all have lapsed", async || {
        f.counts(&pool).await == (0, 0, 0)
    })
    .await;
    f.assert_consistent().await;
    let left = f.keys(&format!("{}:1:*:meta:*", f.config.key_prefix)).await;
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_that_sweep_at_once_leave_no_metadata_and_no_token() {
    let (f, g) = two().await;
    let made = (0..500).map(|n| f.family(Flow::OneTime, json!({"n": n})));
    join_all(made).await;
    let pool = PoolName::of_flow(Flow::OneTime);
    f.pass(&pool, secs(2 * 3_600 + 1)).await;
    let exchanges = (0..50).map(|_| g.family(Flow::OneTime, json!({"b": 1})));
    let young = join_all(exchanges).await;
    eventually("the old ones are gone", async || {
        f.keys(&format!("{}:1:*:meta:*", f.config.key_prefix))
            .await
            .len()
            == young.len()
    })
    .await;
    for family in &young {
        given(&f.exchange(family, 1, json!({})).await);
    }
    f.assert_consistent().await;
}
