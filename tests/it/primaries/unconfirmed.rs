//! Redis is there but can't promise what it was asked to, or is away: what callers are told.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokend::metrics::Metrics;
use tokend::store::{Durability, Store, StoreConfig};
use tokend::token::*;

use super::{config, one_seat, replica};
use crate::harness::*;
use crate::support::APPEND_ONLY;

#[tokio::test(flavor = "multi_thread")]
async fn seats_whose_grants_nobody_confirmed_come_back() {
    let Some(redis) = OwnRedis::start(&[]).await else {
        return skip("failing WAIT", "there is no redis-server on PATH");
    };
    let sure = config(&redis.url, Durability::Memory);
    let memory = replica(&sure).await;
    let pool = pool("seats");
    let patch = PolicyPatch {
        lifetime_ms: Some(3_600_000),
        cooldown_ms: Some(3_600_000),
        ..PolicyPatch::default()
    };
    memory.put_pool(&pool, patch).await.expect("a pool");
    let tokens = ["a", "b", "c", "d", "e"].map(new_token).into();
    let request = tokend::store::GenerateRequest {
        tokens: tokend::store::NewTokens::Import(tokens),
        key: None,
    };
    memory.generate(&pool, request).await.expect("tokens");
    // It has no replica, so nobody ever confirms anything.
    let unsure = StoreConfig {
        durability: Durability::Replicated {
            replicas: 1,
            timeout_ms: 20,
        },
        ..sure
    };
    let started = Store::start(unsure, Arc::new(Metrics::new())).await;
    let replicated = started.expect("the store starts");
    eventually("assigns are sent", async || {
        let answer = replicated.assign(&pool, any()).await;
        matches!(answer, Err(StoreError::OutcomeUnknown(_)))
    })
    .await;
    let many = (0..20).map(|_| replicated.assign(&pool, any()));
    for answer in join_all(many).await {
        let told = answer.map(|outcome| matches!(outcome, AssignOutcome::Empty { .. }));
        assert!(
            matches!(told, Err(StoreError::OutcomeUnknown(_))),
            "{told:?}"
        );
    }
    eventually("all five are free, without having cooled", async || {
        let view = memory.show_pool(&pool).await.expect("show");
        view.expect("the pool").counts.free == 5
    })
    .await;
    // Who only looks is answered.
    let seen = replicated.show_pool(&pool).await.expect("show");
    assert_eq!(seen.expect("the pool").counts.free, 5);
    assert!(replicated.list_pools().await.is_ok());
    a_keyed_grant_waits_for_its_retry(&replicated, &memory, &pool).await;
}

/// The retry says the same until replicas confirm; then it finds the grant.
async fn a_keyed_grant_waits_for_its_retry(replicated: &Store, memory: &Store, pool: &PoolName) {
    let keyed = tokend::store::AssignRequest {
        key: key("job-1"),
        ..any()
    };
    for _ in 0..2 {
        let answer = replicated.assign(pool, keyed.clone()).await.map(drop);
        assert!(
            matches!(answer, Err(StoreError::OutcomeUnknown(_))),
            "{answer:?}"
        );
    }
    let found = memory.assign(pool, keyed).await.expect("assign");
    let AssignOutcome::Granted(offer) = found else {
        panic!("the retry does not find it");
    };
    let granted = offer.accept();
    let view = memory
        .show_pool(pool)
        .await
        .expect("show")
        .expect("the pool");
    assert_eq!((view.counts.free, view.counts.held), (4, 1));
    let inspected = memory.inspect(pool, &granted.token).await;
    assert!(matches!(inspected, Ok(InspectOutcome::Found(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_before_a_dead_redis_is_turned_away_at_once() {
    let Some(mut redis) = OwnRedis::start(&[]).await else {
        return skip("circuit", "there is no redis-server on PATH");
    };
    let config = config(&redis.url, Durability::Memory);
    let f = replica(&config).await;
    let pool = one_seat(&f, "p").await;
    redis.kill().await;
    let mut first = f.assign(&pool, any()).await.map(drop);
    while matches!(first, Err(StoreError::OutcomeUnknown(_))) {
        first = f.assign(&pool, any()).await.map(drop);
    }
    assert!(
        matches!(first, Err(StoreError::Unavailable(_))),
        "{first:?}"
    );
    // It was waited for once. From now on nobody waits: a thousand calls in a row would take ten minutes.
    let all = async {
        for _ in 0..1_000 {
            let answer = f.assign(&pool, any()).await.map(drop);
            assert!(
                matches!(answer, Err(StoreError::Unavailable(_))),
                "{answer:?}"
            );
        }
    };
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, all)
        .await
        .expect("each is turned away at once");
    redis.restart(&[]).await;
    eventually("it works again", async || {
        let answer = f.assign(&PoolName::default_pool(), any()).await;
        matches!(answer, Ok(AssignOutcome::Empty { .. }))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_nobody_was_told_of_is_given_back_once_redis_is_there_again() {
    let Some(mut redis) = OwnRedis::start(APPEND_ONLY).await else {
        return skip("given back later", "there is no redis-server on PATH");
    };
    let f = replica(&config(&redis.url, Durability::Memory)).await;
    let pool = pool("p");
    let patch = PolicyPatch {
        lifetime_ms: Some(3_600_000),
        ..PolicyPatch::default()
    };
    f.put_pool(&pool, patch).await.expect("a pool");
    let request = tokend::store::GenerateRequest {
        tokens: tokend::store::NewTokens::Import(vec![new_token("seat")]),
        key: None,
    };
    f.generate(&pool, request).await.expect("a token");
    let Ok(AssignOutcome::Granted(offer)) = f.assign(&pool, any()).await else {
        panic!("not granted");
    };
    redis.kill().await;
    drop(offer);
    // What is sent while it is away is refused after a while.
    eventually("nobody is waited for any more", async || {
        let refused = f.assign(&pool, any()).await.map(drop);
        matches!(refused, Err(StoreError::Unavailable(_)))
    })
    .await;
    redis.start_again().await;
    eventually("it is free", async || {
        let view = f.show_pool(&pool).await.ok().flatten();
        view.is_some_and(|view| view.counts.free == 1)
    })
    .await;
}
