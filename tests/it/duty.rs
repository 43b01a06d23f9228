//! Who sweeps what: replicas share the partitions, and no partition is ever left to one that is gone.

use fred::prelude::*;
use tokend::store::StoreConfig;

use crate::harness::*;
use crate::verbs::*;

/// Enough that two replicas both have some, but for one time in 30,000.
const MANY: u32 = 16;

async fn fixture(url: &str, partitions: u32) -> Fixture {
    let config = StoreConfig {
        partitions,
        ..config_on(url)
    };
    Fixture::with(config).await
}

/// Each partition is swept by exactly one of them.
async fn share(fixtures: &[&Fixture]) {
    eventually("each partition has one replica", async || {
        let duties: Vec<_> = fixtures.iter().map(|f| f.store.duty()).collect();
        let sweepers = |partition: usize| duties.iter().filter(|duty| duty[partition]).count();
        (0..duties[0].len()).all(|partition| sweepers(partition) == 1)
    })
    .await;
}

fn sweeps(f: &Fixture) -> u64 {
    let count = |trigger| f.metrics.sweeps.with_label_values(&[trigger]).get();
    count("event") + count("timer")
}

/// Waits until it has swept so many times more.
async fn sweeps_more(f: &Fixture, times: u64) {
    let before = sweeps(f);
    eventually("it sweeps", async || sweeps(f) >= before + times).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_share_the_partitions() {
    let f = fixture(redis_url().await, MANY).await;
    let g = f.replica().await;
    share(&[&f, &g]).await;
    let duty = f.store.duty();
    assert!(duty.contains(&true) && duty.contains(&false), "{duty:?}");
    let h = f.replica().await;
    share(&[&f, &g, &h]).await;
    h.store.stop().await;
    share(&[&f, &g]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_of_two_sweeps_a_partition() {
    let f = fixture(redis_url().await, 1).await;
    let g = f.replica().await;
    share(&[&f, &g]).await;
    eventually("one sweeps and the other does not", async || {
        let before = (sweeps(&f), sweeps(&g));
        let more = || (sweeps(&f) - before.0, sweeps(&g) - before.1);
        eventually("somebody sweeps", async || more().0 + more().1 >= 5).await;
        more().0 == 0 || more().1 == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_replica_swept_is_swept_by_another() {
    let f = fixture(redis_url().await, MANY).await;
    let dying = tokio::runtime::Runtime::new().expect("a runtime");
    let same = f.config.clone();
    let started = dying.spawn(async move { Fixture::with(same).await });
    let g = started.await.expect("started");
    share(&[&f, &g]).await;
    let both = f.replicas().await;
    // Pools in partitions of both.
    let mut pools = Vec::new();
    for n in 0..12 {
        let p = f
            .filled(&format!("p{n}"), policy(1, 0, 0), &["a", "b"])
            .await;
        f.grant(&p).await;
        f.grant(&p).await;
        pools.push(p);
    }
    dying.shutdown_background();
    for p in &pools {
        eventually("its leases come back", async || f.stored_free(p).await == 2).await;
    }
    eventually("the dead one is forgotten", async || {
        f.replicas().await.len() < both.len()
    })
    .await;
    f.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stops_is_forgotten_at_once() {
    let f = fixture(redis_url().await, MANY).await;
    eventually("it is known", async || f.replicas().await.len() == 1).await;
    let first = f.replicas().await;
    let g = f.replica().await;
    share(&[&f, &g]).await;
    g.store.stop().await;
    assert!(f.replicas().await.is_subset(&first));
    // It may not come back by a beat that was on its way.
    sweeps_more(&f, 2 * u64::from(MANY)).await;
    assert!(f.replicas().await.is_subset(&first));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_is_known_every_replica_sweeps_everything() {
    let f = fixture(redis_url().await, MANY).await;
    let g = f.replica().await;
    share(&[&f, &g]).await;
    // The scripts can't use it.
    let key = format!("{}:1:replicas", f.config.key_prefix);
    eventually("both sweep everything", async || {
        let _: () = f
            .redis
            .set(key.as_str(), "taken", None, None, false)
            .await
            .expect("set");
        let all = |f: &Fixture| f.store.duty().iter().all(|mine| *mine);
        all(&f) && all(&g)
    })
    .await;
    sweeps_more(&f, 2 * u64::from(MANY)).await;
    sweeps_more(&g, 2 * u64::from(MANY)).await;
    let _: () = f.redis.del(key).await.expect("del");
    share(&[&f, &g]).await;
}

/// Cut off from the partitions, but not from the key of the beats.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_cannot_sweep_leaves_it_to_the_others() {
    let Some(redis) = OwnRedis::start(&[]).await else {
        return skip("a replica that cannot sweep", "no redis-server");
    };
    let f = fixture(&redis.url, MANY).await;
    let may = async |keys: &str| {
        let words = [
            "SETUSER",
            "other",
            "on",
            ">secret",
            "+@all",
            "allchannels",
            "resetkeys",
        ];
        let words = words.into_iter().chain(keys.split(' '));
        let words: Vec<String> = words.map(str::to_owned).collect();
        let _: Value = f
            .redis
            .custom(fred::cmd!("ACL"), words)
            .await
            .expect("ACL SETUSER");
    };
    may("allkeys").await;
    let mut config = f.config.clone();
    config.url = config.url.replace("redis://", "redis://other:secret@");
    let g = Fixture::with(config).await;
    share(&[&f, &g]).await;
    may("~*:replicas ~*:settings ~*:pools ~*:layout").await;
    eventually("the other has everything", async || {
        f.replicas().await.len() == 1 && f.store.duty().iter().all(|mine| *mine)
    })
    .await;
    may("allkeys").await;
    share(&[&f, &g]).await;
}
