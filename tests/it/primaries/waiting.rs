//! Whoever waits in a Cluster, in one line or in several, gets what comes free, before and after a failover.

use std::time::Duration;

use tokend::store::{Durability, GenerateRequest, NewTokens, Store};
use tokend::token::*;

use super::{PARTIAL, SIX, config, replica};
use crate::harness::*;
use crate::support::Cluster;

/// Longest that a waiter waits; far beyond what is expected.
const WAIT: Duration = Duration::from_secs(30);

/// A pool over all partitions, with one token.
async fn spread(store: &Store) -> PoolName {
    let pool = pool("spread");
    let patch = PolicyPatch {
        shards: Some(SIX),
        lifetime_ms: Some(3_600_000),
        ..PolicyPatch::default()
    };
    store.put_pool(&pool, patch).await.expect("a pool");
    let request = GenerateRequest {
        tokens: NewTokens::Import(vec![new_token("seat")]),
        key: None,
    };
    store.generate(&pool, request).await.expect("a token");
    pool
}

async fn waits(store: &Store, pool: &PoolName) -> Grant {
    match store.assign_within(pool, any(), WAIT).await {
        Ok(AssignOutcome::Granted(offer)) => offer.accept(),
        Ok(_) => panic!("waited in vain"),
        Err(error) => panic!("{error}"),
    }
}

/// The keys of all primaries and their replicas, each once.
async fn keys(cluster: &Cluster, pattern: &str) -> Vec<String> {
    let mut found = Vec::new();
    for node in &cluster.nodes {
        let keys = node.command(&["KEYS", pattern]).await;
        found.extend(keys.map_or_else(|_| Vec::new(), |keys| keys.texts()));
    }
    found.sort();
    found.dedup();
    found
}

/// Every partition's channel of wakes is listened to, where the partition lies.
async fn all_listened_to(cluster: &Cluster) {
    eventually("all wakes are listened to", async || {
        let mut heard = 0;
        for node in &cluster.nodes {
            let asked = ["PUBSUB", "SHARDCHANNELS", "*wakes"];
            let told = node.command(&asked).await;
            heard += told.map_or(0, |told| told.texts().len());
        }
        heard == SIX as usize
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_gets_what_another_replica_lets_go_also_after_a_failover() {
    let Some(mut cluster) = Cluster::start(PARTIAL).await else {
        return skip("waiting in a cluster", "there is no redis-server on PATH");
    };
    let config = config(&cluster.url(), Durability::Memory);
    let (f, g) = (replica(&config).await, replica(&config).await);
    let pool = spread(&f).await;
    all_listened_to(&cluster).await;
    let held = waits(&f, &pool).await;
    let (granted, ()) = tokio::join!(waits(&g, &pool), async {
        let released = f.unblock(&pool, &held.token, Some(held.fence)).await;
        assert!(matches!(released, Ok(UnblockOutcome::Released { .. })));
    });
    assert!(granted.fence > held.fence);
    // The primary that has the token dies while somebody waits for it.
    let records = keys(&cluster, &format!("{}:*:records:{pool}", config.key_prefix)).await;
    let slot = cluster.slot(&records[0]).await;
    let dead = cluster.owner(slot).await;
    let (again, ()) = tokio::join!(waits(&f, &pool), async {
        // In line: what is under way when its primary dies is told so at once.
        let lines = format!("{}:*:queue:{pool}", config.key_prefix);
        eventually("it is in line", async || {
            keys(&cluster, &lines).await.len() == SIX as usize
        })
        .await;
        cluster.nodes[dead].kill().await;
        cluster.taken_over(slot, dead).await;
        eventually("it is let go", async || {
            let released = g.unblock(&pool, &granted.token, Some(granted.fence)).await;
            // What became of a call that found no answer, the next one tells.
            matches!(
                released,
                Ok(UnblockOutcome::Released { .. } | UnblockOutcome::LeaseLost)
            )
        })
        .await;
    });
    assert!(again.fence > granted.fence);
    all_listened_to(&cluster).await;
}
