//! A Redis that answers and refuses what is written: it is told as down, what can be read is read, and the store mends
//! itself.

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::config::Config;
use fred::types::{Builder, ClusterHash, CustomCommand, Value};
use tokend::token::*;

use crate::harness::*;

/// Its user may do everything, whatever becomes of the store's.
async fn admin_of(redis: &OwnRedis) -> Client {
    let config = Config::from_url(&redis.url).expect("a URL");
    let admin = Builder::from_config(config).build().expect("a client");
    admin.init().await.expect("Redis answers");
    admin
}

async fn command(admin: &Client, words: &str) {
    let mut words = words.split(' ').map(str::to_owned);
    let name = words.next().expect("a command");
    let command = CustomCommand::new(name, ClusterHash::FirstKey, false);
    let done: Result<Value, _> = admin.custom(command, words.collect::<Vec<_>>()).await;
    done.expect("it is done");
}

/// On a Redis of its own, as a user of its own; `None`, said aloud, where there is no redis-server.
async fn own(test: &str) -> Option<(OwnRedis, Client, Fixture)> {
    let Some(redis) = OwnRedis::start(&[]).await else {
        skip(test, "there is no redis-server on PATH");
        return None;
    };
    let admin = admin_of(&redis).await;
    command(&admin, "ACL SETUSER tokend on nopass ~* &* +@all").await;
    let url = redis.url.replace("redis://", "redis://tokend:any@");
    let fixture = Fixture::on(&url).await;
    Some((redis, admin, fixture))
}

/// What a scrape tells: primaries up and down, and whether `/readyz` would say ready.
async fn told(fixture: &Fixture) -> (bool, bool, bool) {
    let readiness = fixture.store.refresh_gauges().await;
    let metrics = fixture.metrics.render();
    let has = |state| metrics.contains(&format!("tokend_redis_primaries{{state=\"{state}\"}} 1\n"));
    (has("up"), has("down"), readiness.redis && readiness.scripts)
}

const WELL: (bool, bool, bool) = (true, false, true);

async fn is_told(fixture: &Fixture, what: &str, expected: (bool, bool, bool)) {
    eventually(what, async || told(fixture).await == expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_lacks_its_replicas_is_told_as_down_and_still_read() {
    let Some((_redis, admin, f)) = own("lacks its replicas").await else {
        return;
    };
    let pool = f.filled("seats", PolicyPatch::default(), &["a"]).await;
    is_told(&f, "it is well", WELL).await;
    command(&admin, "CONFIG SET min-replicas-to-write 1").await;
    is_told(&f, "down, and ready", (false, true, true)).await;
    let refused = f.store.assign(&pool, any()).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
    let found = f.store.inspect(&pool, &token("a")).await;
    assert!(matches!(found, Ok(InspectOutcome::Found(_))), "{found:?}");
    command(&admin, "CONFIG SET min-replicas-to-write 0").await;
    is_told(&f, "it is well again", WELL).await;
    grants(&f, &pool).await;
}

async fn grants(f: &Fixture, pool: &PoolName) {
    let granted = f.store.assign(pool, any()).await;
    assert!(matches!(granted, Ok(AssignOutcome::Granted(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_becomes_a_replica_or_forbids_scripts_is_of_no_use() {
    let Some((_redis, admin, f)) = own("becomes a replica").await else {
        return;
    };
    let pool = f.filled("seats", PolicyPatch::default(), &["a", "b"]).await;
    for (hurt, mend) in [
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
        (
            "ACL SETUSER tokend -@scripting",
            "ACL SETUSER tokend +@scripting",
        ),
    ] {
        command(&admin, hurt).await;
        is_told(&f, hurt, (false, true, false)).await;
        command(&admin, mend).await;
        is_told(&f, mend, WELL).await;
        grants(&f, &pool).await;
    }
}
