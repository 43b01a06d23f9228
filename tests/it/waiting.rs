//! Assigns that wait for a token, on one replica and on several.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fred::prelude::*;
use futures_util::future::join_all;
use rand::RngExt;
use tokend::store::AssignRequest;
use tokend::token::*;
use tokio::task::{JoinHandle, JoinSet};

use crate::harness::*;
use crate::verbs::*;

/// Longer than any test takes: what ends a wait is never its time, unless the test says so.
const LONG: Duration = Duration::from_secs(60);
/// Every acknowledged write is on the disk.
const DURABLE: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

impl Fixture {
    /// Waits, and takes the grant.
    pub async fn wait_for(
        &self,
        pool: &PoolName,
        request: AssignRequest,
        wait: Duration,
    ) -> Result<AssignOutcome, StoreError> {
        let done = self.store.assign_within(pool, request, wait).await;
        done.map(|outcome| match outcome {
            AssignOutcome::Granted(offer) => AssignOutcome::Granted(offer.accept()),
            AssignOutcome::Empty { retry_after_ms } => AssignOutcome::Empty { retry_after_ms },
            AssignOutcome::LeaseLost => AssignOutcome::LeaseLost,
            AssignOutcome::IdempotencyMismatch => AssignOutcome::IdempotencyMismatch,
            AssignOutcome::PoolNotFound => AssignOutcome::PoolNotFound,
            AssignOutcome::NotFree { .. } | AssignOutcome::TokenNotFound => {
                panic!("no token was named")
            }
        })
    }

    /// A task that waits; it has its place in line when this returns.
    async fn in_line(
        &self,
        pool: &PoolName,
        request: AssignRequest,
    ) -> JoinHandle<Result<AssignOutcome, StoreError>> {
        let before = self.waiters(pool).await;
        let task = {
            let (store, pool) = (self.store.clone(), pool.clone());
            tokio::spawn(async move {
                let done = store.assign_within(&pool, request, LONG).await?;
                Ok(match done {
                    AssignOutcome::Granted(offer) => AssignOutcome::Granted(offer.accept()),
                    AssignOutcome::PoolNotFound => AssignOutcome::PoolNotFound,
                    other => panic!("waited in vain: {}", kind(&other)),
                })
            })
        };
        eventually("it is in line", async || {
            self.waiters(pool).await > before || task.is_finished()
        })
        .await;
        task
    }

    /// How many are known in the pool's line, with an offer or without.
    async fn waiters(&self, pool: &PoolName) -> usize {
        let key = format!("{}:waiters:{pool}", self.prefix_of(pool).await);
        self.redis.hlen(key).await.expect("HLEN")
    }
}

fn kind<O>(outcome: &AssignOutcome<O>) -> &'static str {
    match outcome {
        AssignOutcome::Granted(_) => "granted",
        AssignOutcome::Empty { .. } => "empty",
        AssignOutcome::LeaseLost => "lease lost",
        AssignOutcome::PoolNotFound => "pool not found",
        _ => "another",
    }
}

fn grant(outcome: Result<AssignOutcome, StoreError>) -> Grant {
    match outcome {
        Ok(AssignOutcome::Granted(grant)) => grant,
        other => panic!("not granted: {other:?}"),
    }
}

/// A pool whose only token is held.
async fn taken(f: &Fixture, patch: PolicyPatch) -> (PoolName, Grant) {
    let pool = f.filled("seats", patch, &["a"]).await;
    let grant = f.grant(&pool).await;
    (pool, grant)
}

#[tokio::test(flavor = "multi_thread")]
async fn first_come_first_served_over_replicas_and_nobody_overtakes() {
    const WAITERS: usize = 20;
    let f = Fixture::new().await;
    let g = f.replica().await;
    let (p, first) = taken(&f, policy(3_600, 0, 0)).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();
    let served = async |store: tokend::store::Store, pool: PoolName, wait: Duration| match store
        .assign_within(&pool, any(), wait)
        .await
    {
        Ok(AssignOutcome::Granted(offer)) => Some(offer.accept()),
        Ok(_) => None,
        Err(error) => panic!("{error}"),
    };
    for n in 0..WAITERS {
        let (pool, order) = (p.clone(), order.clone());
        let store = [&f, &g][n % 2].store.clone();
        tasks.spawn(async move {
            let grant = served(store.clone(), pool.clone(), LONG).await;
            let grant = grant.expect("it waits long enough");
            order.lock().expect("whole").push(Some(n));
            let done = store.unblock(&pool, &grant.token, Some(grant.fence)).await;
            assert!(matches!(done, Ok(UnblockOutcome::Released { .. })));
        });
        eventually("it is in line", async || f.waiters(&p).await == n + 1).await;
    }
    for n in 0..4 {
        let (pool, order) = (p.clone(), order.clone());
        let store = [&f, &g][n % 2].store.clone();
        tasks.spawn(async move {
            loop {
                if let Some(grant) = served(store.clone(), pool.clone(), Duration::ZERO).await {
                    order.lock().expect("whole").push(None);
                    let done = store.unblock(&pool, &grant.token, Some(grant.fence)).await;
                    assert!(done.is_ok());
                    return;
                }
            }
        });
    }
    f.unblock(&p, "a", Some(first.fence)).await;
    tasks.join_all().await;
    let order = order.lock().expect("whole").clone();
    let wanted: Vec<_> = (0..WAITERS).map(Some).chain([None; 4]).collect();
    assert_eq!(order, wanted);
    f.assert_consistent().await;
    assert_eq!(f.waiters(&p).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_frees_a_token_ends_a_wait() {
    let f = Fixture::new().await;
    // A lease lapses, and then it cools.
    let p = f.filled("lapsing", policy(1, 0, 1), &["a"]).await;
    f.grant(&p).await;
    grant(f.wait_for(&p, any(), LONG).await);
    // Tokens are added.
    let p = f.pool("growing", policy(3_600, 0, 0)).await;
    let waiting = f.in_line(&p, any()).await;
    f.import(&p, &["a"]).await;
    grant(waiting.await.expect("a task"));
    // Whoever waited before does not take it with it.
    let waiting = f.in_line(&p, any()).await;
    let other = f.in_line(&p, any()).await;
    waiting.abort();
    f.import(&p, &["b"]).await;
    grant(other.await.expect("a task"));
    f.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_over_leaves_nothing_behind() {
    let f = Fixture::new().await;
    let (p, held) = taken(&f, policy(3_600, 0, 0)).await;
    let told = f.wait_for(&p, any(), Duration::from_millis(50)).await;
    match told {
        Ok(AssignOutcome::Empty {
            retry_after_ms: Some(ms),
        }) => assert!(ms > 0),
        other => panic!("{other:?}"),
    }
    assert_eq!(f.waiters(&p).await, 0);
    f.unblock(&p, "a", Some(held.fence)).await;
    assert_eq!(f.counts(&p).await, (1, 0, 0));
    f.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_replicas_waiters_do_not_hold_up_the_living() {
    let f = Fixture::new().await;
    let (p, held) = taken(&f, policy(3_600, 0, 0)).await;
    let config = f.config.clone();
    // A replica in a runtime of its own, which ends with it: nothing of it says goodbye.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let replica = runtime.spawn(async move { Fixture::with(config).await });
    let replica = replica.await.expect("it starts");
    for _ in 0..2 {
        let (store, pool) = (replica.store.clone(), p.clone());
        runtime.spawn(async move { store.assign_within(&pool, any(), LONG).await.map(drop) });
    }
    eventually("they are in line", async || f.waiters(&p).await == 2).await;
    let waiting = f.in_line(&p, any()).await;
    runtime.shutdown_background();
    // One may be offered it, as it is not known to be dead yet; then it goes on.
    f.unblock(&p, "a", Some(held.fence)).await;
    grant(waiting.await.expect("a task"));
    assert_eq!(f.counts(&p).await, (0, 1, 0));
    f.assert_consistent().await;
    std::mem::forget(replica); // its runtime is gone
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_hangs_up_makes_way_with_an_offer_or_without() {
    let f = Fixture::new().await;
    let (p, held) = taken(&f, policy(3_600, 0, 0)).await;
    let first = f.in_line(&p, any()).await;
    let second = f.in_line(&p, any()).await;
    first.abort();
    eventually("it has left", async || f.waiters(&p).await == 1).await;
    f.unblock(&p, "a", Some(held.fence)).await;
    let mut held = grant(second.await.expect("a task"));
    // At whatever moment: a lease lasts an hour, so what were not given back would be missed.
    for _ in 0..50 {
        let gone = f.in_line(&p, any()).await;
        let next = f.in_line(&p, any()).await;
        let pause = rand::rng().random_range(0..2_000);
        let (_, ()) = tokio::join!(f.unblock(&p, "a", Some(held.fence)), async {
            tokio::time::sleep(Duration::from_micros(pause)).await;
            gone.abort();
        });
        if let Ok(granted) = gone.await {
            let told = grant(granted); // it was too late to hang up
            f.unblock(&p, "a", Some(told.fence)).await;
        }
        held = grant(next.await.expect("a task"));
    }
    f.unblock(&p, "a", Some(held.fence)).await;
    eventually("it is free", async || f.counts(&p).await == (1, 0, 0)).await;
    f.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_with_its_key_joins_the_first_and_finds_its_grant() {
    let f = Fixture::new().await;
    let g = f.replica().await;
    let p = f.filled("seats", policy(3_600, 0, 0), &["a", "b"]).await;
    let (a, b) = (f.grant(&p).await, f.grant(&p).await);
    let first = f.in_line(&p, keyed("job")).await;
    let retry = {
        let (store, pool) = (g.store.clone(), p.clone());
        tokio::spawn(async move {
            let done = store.assign_within(&pool, keyed("job"), LONG).await;
            match done {
                Ok(AssignOutcome::Granted(offer)) => offer.accept(),
                other => panic!("{:?}", other.map(|it| kind(&it))),
            }
        })
    };
    let waits = g.metrics.transitions.clone();
    let waits = waits.with_label_values(&["seats", "wait", "waiting"]);
    eventually("the retry waits", async || waits.get() > 0).await;
    assert_eq!(f.waiters(&p).await, 1);
    for held in [a, b] {
        let value = held.token.as_str();
        f.unblock(&p, value, Some(held.fence)).await;
    }
    let granted = grant(first.await.expect("a task"));
    let retried = retry.await.expect("a task");
    assert_eq!(granted.fence, retried.fence);
    assert_eq!(f.counts(&p).await, (1, 1, 0));
    // And whoever comes later, waiting or not.
    for wait in [Duration::ZERO, LONG] {
        let again = grant(f.wait_for(&p, keyed("job"), wait).await);
        assert_eq!(again.fence, granted.fence);
    }
    f.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wakes_that_are_lost_cost_a_second_and_no_waiter() {
    const ROUNDS: usize = 6;
    let Some(redis) = OwnRedis::start(&[]).await else {
        return skip("wakes_that_are_lost", "no redis-server");
    };
    let f = Fixture::on(&redis.url).await;
    let g = f.replica().await;
    let p = f.filled("seats", policy(3_600, 0, 0), &["a", "b"]).await;
    let admin = f.redis.clone();
    let cutter = tokio::spawn(async move {
        loop {
            let kill = vec!["KILL", "TYPE", "pubsub"];
            let _: Result<Value, _> = admin.custom(fred::cmd!("CLIENT"), kill).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let client = async |f: &Fixture| {
        for _ in 0..ROUNDS {
            let held = grant(f.wait_for(&p, any(), LONG).await);
            f.unblock(&p, held.token.as_str(), Some(held.fence)).await;
        }
    };
    join_all([&f, &g, &f, &g, &f].map(client)).await;
    cutter.abort();
    assert_eq!(f.counts(&p).await, (2, 0, 0));
    f.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_outlives_a_restart_of_redis() {
    let Some(mut redis) = OwnRedis::start(DURABLE).await else {
        return skip("a_wait_outlives_a_restart_of_redis", "no redis-server");
    };
    let f = Fixture::on(&redis.url).await;
    let (p, held) = taken(&f, policy(3_600, 0, 0)).await;
    let first = f.in_line(&p, any()).await;
    let second = f.in_line(&p, any()).await;
    redis.kill().await;
    redis.restart(DURABLE).await;
    eventually("Redis is back", async || {
        let done = f.store.unblock(&p, &held.token, Some(held.fence)).await;
        matches!(
            done,
            Ok(UnblockOutcome::Released { .. } | UnblockOutcome::LeaseLost)
        )
    })
    .await;
    let next = grant(first.await.expect("a task"));
    f.unblock(&p, "a", Some(next.fence)).await;
    grant(second.await.expect("a task"));
    f.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_ends_while_redis_is_away_says_so() {
    let Some(mut redis) = OwnRedis::start(&[]).await else {
        return skip("a_wait_that_ends_while_redis_is_away", "no redis-server");
    };
    let f = Fixture::on(&redis.url).await;
    let (p, _) = taken(&f, policy(3_600, 0, 0)).await;
    let waiting = {
        let (store, pool) = (f.store.clone(), p.clone());
        let wait = Duration::from_secs(1);
        tokio::spawn(async move { store.assign_within(&pool, any(), wait).await.map(drop) })
    };
    eventually("it is in line", async || f.waiters(&p).await == 1).await;
    redis.kill().await;
    let told = waiting.await.expect("a task");
    assert!(matches!(
        told,
        Err(StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_pool_that_is_deleted_is_told_at_once() {
    let f = Fixture::new().await;
    let (p, _) = taken(&f, policy(3_600, 0, 0)).await;
    let waiting = f.in_line(&p, any()).await;
    assert!(f.store.delete_pool(&p).await.expect("delete"));
    let told = waiting.await.expect("a task");
    assert_eq!(told, Ok(AssignOutcome::PoolNotFound));
    f.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_stops_ends_its_waits_at_once() {
    let f = Fixture::new().await;
    let g = f.replica().await;
    let (p, held) = taken(&f, policy(3_600, 0, 0)).await;
    let here = f.in_line(&p, any()).await;
    let there = g.in_line(&p, any()).await;
    f.store.stop_waiting();
    let told = here.await.expect("a task");
    assert!(matches!(told, Err(StoreError::Unavailable(_))), "{told:?}");
    // Those who come now do not wait; those elsewhere do.
    let late = f.wait_for(&p, any(), LONG).await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
    f.unblock(&p, "a", Some(held.fence)).await;
    grant(there.await.expect("a task"));
    f.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_publish_waits_all_the_same() {
    let Some(redis) = OwnRedis::start(&[]).await else {
        return skip("who_may_not_publish_waits_all_the_same", "no redis-server");
    };
    let root = Fixture::on(&redis.url).await;
    let rules = ["SETUSER", "app", "on", ">secret", "~*", "resetchannels"];
    let rules = [&rules[..], &["+@all", "-publish", "-spublish", "-pubsub"]].concat();
    let acl = fred::cmd!("ACL");
    let _: Value = root.redis.custom(acl, rules).await.expect("ACL");
    let url = redis.url.replace("redis://", "redis://app:secret@");
    let f = Fixture::on(&url).await;
    let (p, held) = taken(&f, policy(3_600, 0, 0)).await;
    let waiting = f.in_line(&p, any()).await;
    f.unblock(&p, "a", Some(held.fence)).await;
    grant(waiting.await.expect("a task"));
    f.assert_consistent().await;
}
