//! What one replica must know, or leave alone, of what another did.

use fred::prelude::*;
use tokend::store::Store;
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
    // A scrape makes series too.
    f.store.refresh_gauges().await;
    other.store.refresh_gauges().await;
    let series = |f: &Fixture| f.metrics.render().matches("pool=\"job-1\"").count();
    assert!(series(&f) > 0 && series(&other) > 0);
    assert!(f.store.delete_pool(&p).await.expect("delete"));
    f.store.refresh_gauges().await;
    assert_eq!(series(&f), 0);
    // The other one hears of it when it reads the registry.
    other.store.refresh_gauges().await;
    assert_eq!(series(&other), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_set_that_has_moved_to_another_key_schema_is_left_alone() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a", "b"]).await;
    f.grant(&p).await;
    let layout = format!("{}:1:layout", f.config.key_prefix);
    let mark = ("superseded_by", 2);
    let _: () = f.redis.hset(&layout, mark).await.expect("HSET");
    let why = Store::start(f.config.clone(), f.metrics.clone())
        .await
        .err();
    let why = why.expect("a new replica does not start").to_string();
    assert!(why.contains("key schema 2"), "{why}");
    // One that runs finds out by itself, and grants nothing more.
    let refuses = async || !f.store.readiness().await.scripts;
    eventually("the running replica is not ready", refuses).await;
    let refused = f.store.assign(&p, any()).await.err();
    assert!(
        matches!(refused, Some(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    // An upgrade that is taken back.
    let _: () = f.redis.hdel(&layout, "superseded_by").await.expect("HDEL");
    let ready = async || f.store.readiness().await.scripts;
    eventually("it goes on", ready).await;
    f.grant(&p).await;
}
