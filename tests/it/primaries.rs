//! Several primaries, and primaries that change: Sentinel and Cluster.

mod unconfirmed;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::future::join_all;
use tokend::metrics::Metrics;
use tokend::store::{Durability, Store, StoreConfig};
use tokend::token::*;
use tokio::task::JoinSet;

use crate::harness::*;
use crate::support::{Cluster, Sentinel};

/// Two for each of three primaries.
const SIX: u32 = 6;
/// A cluster that goes on where it can. (By default one primary's death stops all.)
const PARTIAL: &[&str] = &["--cluster-require-full-coverage", "no"];

fn config(url: &str, durability: Durability) -> StoreConfig {
    StoreConfig {
        url: url.to_owned(),
        key_prefix: new_namespace(),
        partitions: SIX,
        default_policy: Policy::FOR_DEFAULT_POOL,
        flows: FlowsLimits::DEFAULT,
        durability,
    }
}

async fn replica(config: &StoreConfig) -> Store {
    let started = Store::start(config.clone(), Arc::new(Metrics::new())).await;
    let store = started.expect("the store starts");
    eventually("it is ready", async || {
        let ready = store.readiness().await;
        ready.redis && ready.scripts
    })
    .await;
    store
}

async fn grant(store: &Store, pool: &PoolName) -> Result<Grant, StoreError> {
    match store.assign(pool, any()).await? {
        AssignOutcome::Granted(offer) => Ok(offer.accept()),
        other => panic!(
            "not granted: {}",
            matches!(other, AssignOutcome::PoolNotFound)
        ),
    }
}

/// A pool whose token is taken and given back, for ever: made again where a failover lost it.
async fn one_seat(store: &Store, name: &str) -> PoolName {
    let pool = pool(name);
    let put = store.put_pool(&pool, PolicyPatch::default()).await;
    put.expect("a pool");
    let request = tokend::store::GenerateRequest {
        tokens: tokend::store::NewTokens::Import(vec![new_token("seat")]),
        key: None,
    };
    store.generate(&pool, request).await.expect("a token");
    pool
}

/// A pool in each partition.
fn names_in_each_partition() -> Vec<String> {
    let mut found = vec![None; SIX as usize];
    for n in 0.. {
        let name = format!("p{n}");
        let partition = usize::from(fred::util::redis_keyslot(name.as_bytes())) % found.len();
        found[partition].get_or_insert(name);
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    found.into_iter().flatten().collect()
}

/// Where a pool lies.
async fn slot_of(cluster: &Cluster, config: &StoreConfig, pool: &PoolName) -> usize {
    let pattern = format!("{}:1:{{*}}:pool:{pool}", config.key_prefix);
    for node in &cluster.nodes {
        let keys = node.command(&["KEYS", &pattern]).await.expect("keys");
        if let Some(key) = keys.texts().first() {
            return cluster.slot(key).await;
        }
    }
    panic!("there is no such pool");
}

async fn use_it(store: &Store, pool: &PoolName) -> Result<(), StoreError> {
    let grant = grant(store, pool).await?;
    let released = store.unblock(pool, &grant.token, Some(grant.fence)).await?;
    assert!(
        matches!(released, UnblockOutcome::Released { .. }),
        "{released:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_replica_is_followed_and_what_was_confirmed_is_there() {
    let Some(mut redis) = Sentinel::start(&[]).await else {
        return skip("Sentinel failover", "there is no redis-server on PATH");
    };
    let durability = Durability::Replicated {
        replicas: 1,
        timeout_ms: 500,
    };
    let config = config(&redis.url(), durability);
    let (f, g) = (replica(&config).await, replica(&config).await);
    let pool = one_seat(&f, "p").await;
    let before = grant(&f, &pool).await.expect("a grant");
    let old = redis.kill_primary().await;
    redis.failed_over(old).await;
    for store in [&f, &g] {
        eventually("it can be used again", async || {
            store.inspect(&pool, &before.token).await.is_ok()
        })
        .await;
        let found = store.inspect(&pool, &before.token).await;
        let Ok(InspectOutcome::Found(view)) = found else {
            panic!("lost: {found:?}");
        };
        assert_eq!((view.state, view.fence), (State::Held, before.fence.get()));
    }
    let released = g.unblock(&pool, &before.token, Some(before.fence)).await;
    assert!(
        matches!(released, Ok(UnblockOutcome::Released { .. })),
        "{released:?}"
    );
    let after = grant(&g, &pool).await.expect("a grant");
    assert!(after.fence > before.fence);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_primary_is_left_and_harms_nobody_when_it_wakes() {
    let Some(redis) = Sentinel::start(&[]).await else {
        return skip("frozen primary", "there is no redis-server on PATH");
    };
    let config = config(&redis.url(), Durability::Memory);
    let f = replica(&config).await;
    let pool = one_seat(&f, "p").await;
    use_it(&f, &pool).await.expect("it works");
    let old = redis.pause_primary().await;
    redis.failed_over(old).await;
    eventually("it works on the new one", async || {
        use_it(&f, &pool).await.is_ok()
    })
    .await;
    let held = grant(&f, &pool).await.expect("a grant");
    redis.servers[old].resume().await;
    redis.whole().await;
    let found = f.inspect(&pool, &held.token).await;
    let Ok(InspectOutcome::Found(view)) = found else {
        panic!("lost: {found:?}");
    };
    assert_eq!((view.state, view.fence), (State::Held, held.fence.get()));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_one_primary_of_a_cluster_is_dead_the_others_answer() {
    let Some(mut cluster) = Cluster::start(PARTIAL).await else {
        return skip("cluster failover", "there is no redis-server on PATH");
    };
    let config = config(&cluster.url(), Durability::Memory);
    let f = replica(&config).await;
    let mut pools = Vec::new();
    for name in names_in_each_partition() {
        pools.push(one_seat(&f, &name).await);
    }
    join_all(
        pools
            .iter()
            .map(async |pool| use_it(&f, pool).await.expect("it works")),
    )
    .await;
    // Partitions 2 and 3 lie on the second primary.
    let slot = slot_of(&cluster, &config, &pools[2]).await;
    let dead = cluster.owner(slot).await;
    let on_it = [&pools[2], &pools[3]];
    let on_others: Vec<_> = [0, 1, 4, 5].map(|n| pools[n].clone()).into();
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for pool in on_others {
        let (f, stop, answered) = (f.clone(), stop.clone(), answered.clone());
        tasks.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                use_it(&f, &pool).await.expect("a healthy primary answers");
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    cluster.nodes[dead].kill().await;
    cluster.taken_over(slot, dead).await;
    for pool in on_it {
        eventually("it works on the new primary", async || {
            use_it(&f, pool).await.is_ok()
        })
        .await;
    }
    let before = answered.load(Ordering::Relaxed);
    assert!(before > 0);
    eventually("the others still work", async || {
        answered.load(Ordering::Relaxed) > before
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    while let Some(done) = tasks.join_next().await {
        done.expect("no error");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_lapses_on_a_new_primary_and_its_alarm_is_heard() {
    let Some(mut cluster) = Cluster::start(PARTIAL).await else {
        return skip("cluster events", "there is no redis-server on PATH");
    };
    let config = config(&cluster.url(), Durability::Memory);
    let f = replica(&config).await;
    let name = &names_in_each_partition()[2];
    let pool = one_seat(&f, name).await;
    let slot = slot_of(&cluster, &config, &pool).await;
    let dead = cluster.owner(slot).await;
    cluster.nodes[dead].kill().await;
    let heir = cluster.taken_over(slot, dead).await;
    eventually("somebody listens there", async || {
        let asked = ["PUBSUB", "CHANNELS", "*alarm"];
        let told = cluster.nodes[heir].command(&asked).await;
        told.is_ok_and(|told| !told.texts().is_empty())
    })
    .await;
    let request = tokend::store::AssignRequest {
        lifetime_ms: Some(1_000),
        ..any()
    };
    eventually("it is granted", async || {
        match f.assign(&pool, request.clone()).await {
            Ok(AssignOutcome::Granted(offer)) => offer.accept().fence.get() > 0,
            _ => false,
        }
    })
    .await;
    eventually("it comes back", async || use_it_or_empty(&f, &pool).await).await;
}

async fn use_it_or_empty(store: &Store, pool: &PoolName) -> bool {
    match store.assign(pool, any()).await {
        Ok(AssignOutcome::Granted(offer)) => {
            drop(offer);
            true
        }
        Ok(AssignOutcome::Empty { .. }) | Err(_) => false,
        Ok(_) => panic!("another outcome"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_slot_moves_its_partition_is_away_and_nothing_is_half_done() {
    let Some(cluster) = Cluster::start(PARTIAL).await else {
        return skip("a slot that moves", "there is no redis-server on PATH");
    };
    let config = config(&cluster.url(), Durability::Memory);
    let f = replica(&config).await;
    let names = names_in_each_partition();
    let (pool, other) = (one_seat(&f, &names[2]).await, one_seat(&f, &names[0]).await);
    let slot = slot_of(&cluster, &config, &pool).await;
    let from = cluster.owner(slot).await;
    let to = (from + 1) % 3;
    let migration = cluster.migrate(slot, to).await;
    assert!(migration.move_keys(1).await > 0);
    let answer = use_it(&f, &pool).await;
    assert!(
        matches!(answer, Err(StoreError::Unavailable(_))),
        "{answer:?}"
    );
    use_it(&f, &other).await.expect("others are not touched");
    while migration.move_keys(100).await > 0 {}
    let answer = use_it(&f, &pool).await;
    assert!(
        matches!(answer, Err(StoreError::Unavailable(_))),
        "{answer:?}"
    );
    migration.finish().await;
    eventually("it works where it is now", async || {
        use_it(&f, &pool).await.is_ok()
    })
    .await;
    let counts = f
        .show_pool(&pool)
        .await
        .expect("show")
        .expect("a pool")
        .counts;
    assert_eq!((counts.free, counts.held), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_a_cluster_is_not_taken_for_a_single_redis() {
    let Some(redis) = OwnRedis::start(&["--cluster-enabled", "yes"]).await else {
        return skip("cluster by another URL", "there is no redis-server on PATH");
    };
    let config = config(&redis.url, Durability::Memory);
    let refused = Store::start(config, Arc::new(Metrics::new())).await;
    let why = refused.err().expect("refused").to_string();
    assert!(why.contains("redis-cluster://"), "{why}");
}
