//! Group commit: what goes out with one call, what is refused, and what becomes of calls that nobody waits for.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokend::store::{AssignRequest, GenerateRequest, NewTokens};
use tokend::token::*;

use crate::harness::*;

/// Far beyond what any call may take: a call that takes this long hangs.
const HANGS: Duration = Duration::from_secs(15);
/// `QUEUE_TOKENS_MAX` and `BATCH_TOKENS_MAX` of the store.
const QUEUE_TOKENS_MAX: usize = 20_000;
const BATCH_TOKENS_MAX: usize = 1_000;

async fn returns<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANGS, call)
        .await
        .expect("the call hangs")
}

/// How many calls were made of a verb, and for how many items.
fn batches(f: &Fixture, verb: &str) -> (u64, u64) {
    let sizes = f.metrics.batch_size.with_label_values(&[verb]);
    (sizes.get_sample_count(), sizes.get_sample_sum() as u64)
}

fn outcomes(f: &Fixture, pool: &PoolName, verb: &str, outcome: &str) -> u64 {
    let counter = &f.metrics.transitions;
    counter
        .with_label_values(&[pool.as_str(), verb, outcome])
        .get()
}

/// A Redis of its own that can be stopped; `None`, said aloud, where there is no redis-server.
async fn own(test: &str) -> Option<(OwnRedis, Fixture)> {
    let Some(redis) = OwnRedis::start(&[]).await else {
        skip(test, "there is no redis-server on PATH");
        return None;
    };
    let fixture = Fixture::on(&redis.url).await;
    Some((redis, fixture))
}

const COOLING: PolicyPatch = PolicyPatch {
    lifetime_ms: None,
    idle_limit_ms: None,
    cooldown_ms: Some(600_000),
    max_tokens: None,
    max_hold_ms: None,
    on_lapse: None,
    shards: None,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_store_sends_each_item_at_once() {
    let f = Fixture::new().await;
    let pool = f.filled("p", PolicyPatch::default(), &["a"]).await;
    for _ in 0..20 {
        f.store.inspect(&pool, &token("a")).await.expect("inspect");
    }
    assert_eq!(batches(&f, "inspect"), (20, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_items_share_calls_and_get_their_own_answers() {
    let f = Fixture::new().await;
    let names: Vec<_> = (0..600).map(|n| format!("t{n}")).collect();
    let odd = names.iter().skip(1).step_by(2).map(String::as_str);
    let pool = f
        .filled("p", PolicyPatch::default(), &odd.collect::<Vec<_>>())
        .await;
    let calls = names.iter().enumerate().map(|(n, name)| {
        let (f, pool) = (&f, &pool);
        async move {
            let found = f.store.inspect(pool, &token(name)).await.expect("inspect");
            match found {
                InspectOutcome::Found(view) => assert!(n % 2 == 1 && view.token.as_str() == name),
                other => assert!(n % 2 == 0 && other == InspectOutcome::TokenNotFound),
            }
            let request = AssignRequest {
                token: Some(token(name)),
                holder: holder(name),
                ..any()
            };
            match f.assign(pool, request).await {
                AssignOutcome::Granted(grant) => {
                    assert!(n % 2 == 1 && grant.token.as_str() == name);
                    assert_eq!(grant.holder, holder(name));
                }
                other => assert!(n % 2 == 0 && other == AssignOutcome::TokenNotFound),
            }
        }
    });
    join_all(calls).await;
    for verb in ["inspect", "assign"] {
        let (calls, items) = batches(&f, verb);
        assert_eq!(items, 600);
        assert!(calls < 300, "{calls} calls of {verb}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_item_goes_alone_and_others_are_not_lost_behind_it() {
    let f = Fixture::new().await;
    let patch = PolicyPatch {
        max_tokens: Some(100_000),
        ..PolicyPatch::default()
    };
    let pool = f.pool("p", patch).await;
    let sizes = [1, 10_000, 999, 1, 1_000, 1, 5_000, 2];
    let calls = sizes.iter().map(|count| f.generate(&pool, *count));
    for (tokens, count) in join_all(calls).await.iter().zip(sizes) {
        assert_eq!(tokens.len(), count);
    }
    assert_eq!(f.counts(&pool).await.0, sizes.iter().sum::<usize>() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_works_again_when_redis_does() {
    let Some((redis, f)) = own("a full queue").await else {
        return;
    };
    let pool = f.filled("p", PolicyPatch::default(), &["a"]).await;
    f.store.inspect(&pool, &token("a")).await.expect("inspect");
    let pid = redis.pid().await;
    signal(pid, "STOP");
    let absent = token("x");
    let calls = (0..30_000).map(|_| f.store.delete(&pool, &absent));
    let answers = returns(join_all(calls)).await;
    let mut full = 0;
    for answer in answers {
        match answer {
            Err(StoreError::Unavailable(told)) if told.contains("queue is full") => full += 1,
            Err(StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    // One call is under way; the queue holds no more than its bound.
    assert!(
        full >= 30_000 - QUEUE_TOKENS_MAX - BATCH_TOKENS_MAX,
        "only {full} refused"
    );
    signal(pid, "CONT");
    eventually("it works again", async || {
        f.store.delete(&pool, &token("a")).await == Ok(DeleteOutcome::Deleted)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_behind_a_call_under_way_is_never_sent() {
    let Some((redis, f)) = own("given up in the queue").await else {
        return;
    };
    let pool = f.filled("p", PolicyPatch::default(), &["a", "b"]).await;
    let pid = redis.pid().await;
    signal(pid, "STOP");
    let waiting = AssignRequest {
        token: Some(token("a")),
        ..any()
    };
    let mut first = Box::pin(f.store.assign(&pool, waiting));
    assert!((&mut first).now_or_never().is_none());
    eventually("the first is under way", async || {
        batches(&f, "assign") == (1, 1)
    })
    .await;
    for _ in 0..10 {
        assert!(f.store.assign(&pool, any()).now_or_never().is_none());
    }
    signal(pid, "CONT");
    drop(first.await);
    f.store
        .unblock(&pool, &token("a"), None)
        .await
        .expect("unblock");
    eventually("the store works", async || {
        matches!(
            f.store.assign(&pool, any()).await,
            Ok(AssignOutcome::Granted(_))
        )
    })
    .await;
    let (_, items) = batches(&f, "assign");
    assert!(items <= 4, "{items} items were sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_while_redis_is_away_is_never_sent() {
    // The pool must be there when Redis comes back, or the call would only be told that it is stale.
    const DURABLE: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];
    let Some(mut redis) = OwnRedis::start(DURABLE).await else {
        return skip("given up while away", "there is no redis-server on PATH");
    };
    let f = Fixture::on(&redis.url).await;
    let default = PoolName::default_pool();
    f.store
        .inspect(&default, &token("a"))
        .await
        .expect("inspect");
    let asked = || GenerateRequest {
        tokens: NewTokens::Generate(1),
        key: None,
    };
    redis.kill().await;
    eventually("it is noticed", async || {
        f.store.inspect(&default, &token("a")).await.is_err()
    })
    .await;
    // Polled long enough that a batcher waits with it for the connection, then given up. (It would not wait for one
    // that has been away for long.)
    let mut calls: Vec<_> = (0..5)
        .map(|_| Box::pin(f.store.generate(&default, asked())))
        .collect();
    for call in &mut calls {
        let within = tokio::time::timeout(Duration::from_millis(10), call).await;
        assert!(within.is_err());
    }
    drop(calls);
    redis.restart(DURABLE).await;
    eventually("it works again", async || {
        f.store.inspect(&default, &token("a")).await.is_ok()
    })
    .await;
    // Anything that was still to be sent would go before this.
    eventually("generate works", async || {
        f.store.generate(&default, asked()).await.is_ok()
    })
    .await;
    let free = f.counts(&default).await.0;
    let told = outcomes(&f, &default, "generate", "added");
    assert_eq!((free, told), (1, 1));
}

/// An assign that is under way at a stopped Redis when its caller gives up; then Redis goes on.
async fn give_up_under_way(redis: &OwnRedis, f: &Fixture, pool: &PoolName, request: AssignRequest) {
    let (sent, _) = batches(f, "assign");
    let pid = redis.pid().await;
    signal(pid, "STOP");
    let mut call = Box::pin(f.store.assign(pool, request));
    assert!((&mut call).now_or_never().is_none());
    eventually("it is under way", async || {
        batches(f, "assign").0 == sent + 1
    })
    .await;
    drop(call);
    signal(pid, "CONT");
    eventually("it was granted", async || {
        outcomes(f, pool, "assign", "granted") == 1
            || f.metrics.store_errors.with_label_values(&["unknown"]).get() > 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_grant_goes_straight_back_to_free() {
    let Some((redis, f)) = own("abandoned").await else {
        return;
    };
    let pool = f.filled("p", COOLING, &["a"]).await;
    give_up_under_way(&redis, &f, &pool, any()).await;
    eventually("it is free, not cooling", async || {
        f.counts(&pool).await == (1, 0, 0)
    })
    .await;
    assert_eq!(outcomes(&f, &pool, "unblock", "cooling"), 0);
    assert_eq!(outcomes(&f, &pool, "unblock", "free"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_grant_with_a_key_waits_for_its_retry() {
    let Some((redis, f)) = own("abandoned, keyed").await else {
        return;
    };
    let pool = f.filled("p", COOLING, &["a", "b"]).await;
    let request = AssignRequest {
        key: key("k"),
        ..any()
    };
    give_up_under_way(&redis, &f, &pool, request.clone()).await;
    assert_eq!(f.counts(&pool).await, (1, 1, 0));
    let AssignOutcome::Granted(first) = f.assign(&pool, request.clone()).await else {
        panic!("not granted");
    };
    let AssignOutcome::Granted(second) = f.assign(&pool, request).await else {
        panic!("not granted");
    };
    assert_eq!((&first.token, first.fence), (&second.token, second.fence));
    assert_eq!(f.counts(&pool).await, (1, 1, 0));
    assert_eq!(outcomes(&f, &pool, "unblock", "free"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_nobody_accepts_is_given_back() {
    let f = Fixture::new().await;
    let pool = f.filled("p", COOLING, &["a"]).await;
    for _ in 0..20 {
        let Ok(AssignOutcome::Granted(offer)) = f.store.assign(&pool, any()).await else {
            panic!("not granted");
        };
        drop(offer);
        eventually("it is free", async || f.counts(&pool).await == (1, 0, 0)).await;
    }
    // Once accepted it stays, whoever drops what.
    drop(f.grant(&pool).await);
    let keyed = AssignRequest {
        key: key("k"),
        ..any()
    };
    f.import(&pool, &["b"]).await;
    drop(f.store.assign(&pool, keyed).await.expect("assign"));
    assert_eq!(f.counts(&pool).await, (0, 2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_runtime_has_ended_refuses_and_hangs_nobody() {
    let config = Fixture::new().await.config;
    let ending = tokio::runtime::Runtime::new().expect("a runtime");
    let started = ending.spawn(async move { Fixture::with(config).await });
    let f = started.await.expect("started");
    let pool = PoolName::default_pool();
    f.store.inspect(&pool, &token("a")).await.expect("inspect");
    ending.shutdown_background();
    for _ in 0..3 {
        let answer = returns(f.store.inspect(&pool, &token("a"))).await;
        assert!(answer.is_err(), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_stops_answers_what_is_queued() {
    let Some((redis, f)) = own("stopped").await else {
        return;
    };
    let pool = f.filled("p", PolicyPatch::default(), &["a"]).await;
    let pid = redis.pid().await;
    signal(pid, "STOP");
    let a = token("a");
    let calls = (0..500).map(|_| f.store.unblock(&pool, &a, None));
    let stop = async {
        eventually("one is under way", async || batches(&f, "unblock").0 > 0).await;
        f.store.stop().await;
    };
    let (answers, ()) = returns(async { tokio::join!(join_all(calls), stop) }).await;
    assert!(answers.iter().all(Result::is_err));
    let after = returns(f.store.inspect(&pool, &token("a"))).await;
    assert!(after.is_err(), "{after:?}");
    signal(pid, "CONT");
}

#[tokio::test]
async fn a_call_about_long_tokens_has_fewer_items() {
    let f = Fixture::new().await;
    let long = "x".repeat(TOKEN_BYTES_MAX);
    let pool = f.filled("p", PolicyPatch::default(), &["a", &long]).await;
    // All are queued before the first call goes out: this test has one thread.
    let mut calls = Vec::new();
    for name in ["a", &long] {
        let before = batches(&f, "inspect").0;
        let name = token(name);
        let looks = (0..600).map(|_| f.store.inspect(&pool, &name));
        for found in join_all(looks).await {
            assert!(matches!(found, Ok(InspectOutcome::Found(_))), "{found:?}");
        }
        calls.push(batches(&f, "inspect").0 - before);
    }
    // 4,096 bytes weigh as much as 9 short tokens: 111 of them go with one call.
    assert_eq!(calls, [1, 6]);
}
