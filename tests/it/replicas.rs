//! What one replica must know, or leave alone, of what another did.

use fred::prelude::*;
use tokend::token::*;

use crate::harness::*;
use crate::verbs::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_reconnection_does_not_set_an_older_replicas_policy_of_default_again() {
    let Some(redis) = OwnRedis::start(&[]).await else {
        return skip("an older replica's policy of default", "no redis-server");
    };
    let older = Fixture::on(&redis.url).await;
    let mut config = older.config.clone();
    config.default_policy.idle_limit_ms = 0;
    let newer = Fixture::with(config).await;
    let default = PoolName::default_pool();
    let limit = async |f: &Fixture| {
        let view = f.store.show_pool(&default).await.ok().flatten();
        view.map(|view| view.policy.idle_limit_ms)
    };
    assert_eq!(limit(&newer).await, Some(0));
    for _ in 0..3 {
        let cut = fred::cmd!("CLIENT");
        let _: Value = newer
            .redis
            .custom(cut, vec!["KILL", "TYPE", "normal", "SKIPME", "yes"])
            .await
            .expect("CLIENT KILL");
        // Prepared again, and so done with what it does on a new connection.
        eventually("the older replica is back", async || {
            let ready = older.store.readiness().await;
            ready.redis && ready.scripts && limit(&older).await.is_some()
        })
        .await;
        assert_eq!(limit(&older).await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_series_of_a_deleted_pool_go() {
    let f = Fixture::new().await;
    let other = f.replica().await;
    let p = f.filled("job-1", policy(60, 0, 0), &["a"]).await;
    let grant = f.grant(&p).await;
    other
        .store
        .inspect(&p, &grant.token)
        .await
        .expect("inspect");
    let series = |f: &Fixture| f.metrics.render().matches("pool=\"job-1\"").count();
    assert!(series(&f) > 0 && series(&other) > 0);
    assert!(f.store.delete_pool(&p).await.expect("delete"));
    assert_eq!(series(&f), 0);
    // The other one hears of it when it reads the registry.
    other.store.list_pools().await.expect("list");
    assert_eq!(series(&other), 0);
}
