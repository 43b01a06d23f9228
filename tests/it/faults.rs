//! Redis dies, freezes, fills up, comes back empty: every call answers, nothing acknowledged is lost, and the
//! store mends itself. Each test has a Redis of its own to hurt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fred::interfaces::ConfigInterface;
use fred::types::{ClusterHash, CustomCommand, Value};
use futures_util::future::join_all;
use tokend::metrics::Metrics;
use tokend::store::{NewTokens, Store};
use tokend::token::*;
use tokio::task::JoinSet;

use crate::harness::*;
use crate::history::Recorder;
use crate::model::audit::audit;

/// Far beyond what any call may take: a call that takes this long hangs.
const HANGS: Duration = Duration::from_secs(15);
/// Every acknowledged write is on the disk.
const DURABLE: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

async fn returns<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANGS, call)
        .await
        .expect("the call hangs")
}

/// A Redis to hurt; `None`, said aloud, where there is no redis-server.
async fn own_redis(test: &str, args: &[&str]) -> Option<OwnRedis> {
    let redis = OwnRedis::start(args).await;
    if redis.is_none() {
        skip(test, "there is no redis-server on PATH");
    }
    redis
}

fn is_away<T: std::fmt::Debug>(answer: &Result<T, StoreError>) -> bool {
    matches!(
        answer,
        Err(StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_))
    )
}

/// A command that the client has no name for.
async fn command(fixture: &Fixture, name: &'static str, args: &[&str]) -> Result<Value, String> {
    use fred::interfaces::ClientLike;
    let command = CustomCommand::new_static(name, ClusterHash::FirstKey, false);
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let done = fixture.redis.custom(command, args).await;
    done.map_err(|error| error.to_string())
}

async fn works_again(fixture: &Fixture, pool: &PoolName) {
    let token = token("no-such-token");
    eventually("the store works again", async || {
        let found = returns(fixture.store.inspect(pool, &token)).await;
        found == Ok(InspectOutcome::TokenNotFound)
    })
    .await;
}

/// Takes, keeps and lets go until told to stop. Counts its rounds.
async fn be_busy(
    recorder: Recorder,
    replica: usize,
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
) {
    while !stop.load(Ordering::Relaxed) {
        let generated = recorder.generate(replica, NewTokens::Generate(1));
        let _ = returns(generated).await;
        if let Ok(Some(grant)) = returns(recorder.assign(replica, any())).await {
            let _ = returns(recorder.keep_alive(1 - replica, &grant, None)).await;
            let fence = Some(grant.fence);
            if grant.fence.get().is_multiple_of(3) {
                let _ = returns(recorder.delete(replica, &grant.token)).await;
            } else {
                let _ = returns(recorder.unblock(replica, &grant.token, fence)).await;
            }
            rounds.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_killed_under_load_loses_nothing_that_was_acknowledged() {
    const CAP: u64 = 200;
    let Some(mut redis) = own_redis("killed under load", DURABLE).await else {
        return;
    };
    let f = Fixture::on(&redis.url).await;
    let g = f.replica().await;
    let patch = PolicyPatch {
        lifetime_ms: Some(2_000),
        max_tokens: Some(CAP),
        ..PolicyPatch::default()
    };
    let pool = f.pool("p", patch).await;
    let recorder = Recorder::new(pool.clone(), vec![f.store.clone(), g.store.clone()]);
    let (stop, rounds) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut tasks = JoinSet::new();
    for n in 0..16 {
        tasks.spawn(be_busy(
            recorder.clone(),
            n % 2,
            stop.clone(),
            rounds.clone(),
        ));
    }
    for _ in 0..3 {
        let before = rounds.load(Ordering::Relaxed);
        eventually("there is load", async || {
            rounds.load(Ordering::Relaxed) > before + 30
        })
        .await;
        redis.kill().await;
        redis.restart(DURABLE).await;
        works_again(&f, &pool).await;
    }
    let before = rounds.load(Ordering::Relaxed);
    eventually("there is load", async || {
        rounds.load(Ordering::Relaxed) > before + 30
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    tasks.join_all().await;
    returns(recorder.count(0)).await.expect("count");
    recorder.history().check(CAP);
    eventually("what nobody was told of lapses", async || {
        returns(recorder.count(1)).await.is_ok_and(|c| c.held == 0)
    })
    .await;
    recorder.history().check(CAP);
    audit(&f, &pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_hangs_nobody() {
    let Some(redis) = own_redis("frozen", &[]).await else {
        return;
    };
    let f = Fixture::on(&redis.url).await;
    let g = f.replica().await;
    let pool = f
        .filled("p", PolicyPatch::default(), &["a", "b", "c"])
        .await;
    let grant = f.grant(&pool).await;
    let pid = redis.pid().await;
    for _ in 0..2 {
        works_again(&g, &pool).await;
        signal(pid, "STOP");
        let frozen = async |store: &Store| {
            // Some are sent and never answered, some wait behind them.
            let calls = (0..20).map(|_| async {
                assert!(is_away(
                    &returns(store.assign(&pool, any())).await.map(drop)
                ));
                let kept = store.keep_alive(&pool, &grant.token, None, None);
                assert!(is_away(&returns(kept).await));
                assert!(is_away(&returns(store.show_pool(&pool)).await));
                assert!(is_away(&returns(store.list_pools()).await));
                let put = store.put_pool(&pool, PolicyPatch::default());
                assert!(is_away(&returns(put).await));
                assert!(is_away(&returns(store.delete_pool(&pool)).await));
                assert!(!returns(store.readiness()).await.redis);
                returns(store.refresh_gauges()).await;
            });
            join_all(calls).await;
        };
        tokio::join!(frozen(&f.store), frozen(&g.store));
        signal(pid, "CONT");
        // What had been sent runs now, and may have granted, even deleted the pool.
        eventually("the pool can be used", async || {
            let put = f.store.put_pool(&pool, PolicyPatch::default());
            returns(put).await.is_ok()
        })
        .await;
        works_again(&f, &pool).await;
    }
    eventually("both are ready", async || {
        f.store.readiness().await.redis && g.store.readiness().await.redis
    })
    .await;
    audit(&f, &pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_empty_is_a_first_start() {
    let Some(mut redis) = own_redis("comes back empty", &[]).await else {
        return;
    };
    let f = Fixture::on(&redis.url).await;
    let g = f.replica().await;
    let pool = f.filled("p", PolicyPatch::default(), &["a"]).await;
    let default = PoolName::default_pool();
    f.generate(&default, 1).await;
    let (grant, of_default) = (f.grant(&pool).await, f.grant(&default).await);
    redis.kill().await;
    redis.restart(&[]).await;
    for fixture in [&f, &g] {
        works_again(fixture, &default).await;
        let found = returns(fixture.store.assign(&pool, any())).await;
        assert!(matches!(found, Ok(AssignOutcome::PoolNotFound)));
        let pools = returns(fixture.store.list_pools()).await.expect("list");
        assert_eq!(pools.len(), 1, "{pools:?}");
    }
    assert_eq!(
        f.assign(&default, any()).await,
        AssignOutcome::Empty {
            retry_after_ms: None
        }
    );
    let lost = g
        .store
        .unblock(&default, &of_default.token, Some(of_default.fence));
    assert_eq!(lost.await, Ok(UnblockOutcome::TokenNotFound));
    // Made again under the same name; fences go on from the clock.
    let pool = g.filled("p", PolicyPatch::default(), &["a"]).await;
    let again = f.grant(&pool).await;
    assert!(again.fence > grant.fence && again.fence > of_default.fence);
    let old = f
        .store
        .unblock(&pool, &grant.token, Some(grant.fence))
        .await;
    assert_eq!(old, Ok(UnblockOutcome::LeaseLost));
    audit(&f, &pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_come_back_while_the_listeners_are_cut_again_and_again() {
    let Some(redis) = own_redis("listeners cut", &[]).await else {
        return;
    };
    let f = Fixture::on(&redis.url).await;
    let g = f.replica().await;
    let patch = PolicyPatch {
        lifetime_ms: Some(1_000),
        ..PolicyPatch::default()
    };
    let names: Vec<_> = (0..50).map(|n| format!("t{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let pool = f.filled("p", patch, &names).await;
    for fixture in [&f, &g] {
        join_all((0..25).map(|_| fixture.grant(&pool))).await;
    }
    eventually("all came back", async || {
        let _ = command(&f, "CLIENT", &["KILL", "TYPE", "pubsub"]).await;
        stored_free(&f, &pool).await == 50
    })
    .await;
    eventually("somebody listens again", async || {
        let channels = command(&f, "PUBSUB", &["CHANNELS", "*alarm"]).await;
        matches!(channels, Ok(Value::Array(names)) if names.len() == PARTITIONS as usize)
    })
    .await;
    audit(&f, &pool).await;
}

/// Size of the free set as it is stored: no call that would settle on its way.
async fn stored_free(fixture: &Fixture, pool: &PoolName) -> i64 {
    let mut free = 0;
    for prefix in fixture.prefixes().await {
        let key = format!("{prefix}:free:{pool}");
        match command(fixture, "SCARD", &[&key]).await {
            Ok(Value::Integer(members)) => free += members,
            other => panic!("SCARD: {other:?}"),
        }
    }
    free
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_replicas_lease_comes_back_without_any_event() {
    // CONFIG is not to be had, and the flags are off: there are no events at all.
    let args = ["--rename-command", "CONFIG", ""];
    let Some(redis) = own_redis("no events", &args).await else {
        return;
    };
    let f = Fixture::on(&redis.url).await;
    let patch = PolicyPatch {
        lifetime_ms: Some(1_000),
        ..PolicyPatch::default()
    };
    let pool = f.filled("p", patch, &["a"]).await;
    // A replica that grants, and is gone at once with all its tasks.
    let dying = tokio::runtime::Runtime::new().expect("a runtime");
    let (same, asked) = (f.config.clone(), pool.clone());
    let granted = dying.spawn(async move {
        let g = Fixture::with(same).await;
        g.grant(&asked).await
    });
    let grant = granted.await.expect("granted");
    dying.shutdown_background();
    eventually("it comes back", async || stored_free(&f, &pool).await == 1).await;
    assert!(f.grant(&pool).await.fence > grant.fence);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_can_still_keep_and_let_go() {
    let Some(redis) = own_redis("full", &["--maxmemory-policy", "noeviction"]).await else {
        return;
    };
    let f = Fixture::on(&redis.url).await;
    let pool = f
        .filled("p", PolicyPatch::default(), &["a", "b", "c", "d"])
        .await;
    let other = f.filled("q", PolicyPatch::default(), &["a"]).await;
    let (a, b) = (f.grant(&pool).await, f.grant(&pool).await);
    let full: () = f
        .redis
        .config_set("maxmemory", "1")
        .await
        .expect("CONFIG SET");
    let () = full;
    let refused =
        |answer: Result<(), StoreError>| matches!(answer, Err(StoreError::Unavailable(_)));
    // A replica that starts now knows nothing yet, and must be able to do as much.
    let g = Fixture::with(f.config.clone()).await;
    eventually("the new replica is ready", async || {
        g.store.readiness().await.scripts
    })
    .await;
    for (store, grant) in [(&f.store, &a), (&g.store, &b)] {
        assert!(refused(store.assign(&pool, any()).await.map(drop)));
        let request = tokend::store::GenerateRequest {
            tokens: NewTokens::Generate(1),
            key: None,
        };
        assert!(refused(store.generate(&pool, request).await.map(drop)));
        let (token, fence) = (&grant.token, Some(grant.fence));
        let kept = store.keep_alive(&pool, token, fence, None).await;
        assert!(
            matches!(kept, Ok(KeepAliveOutcome::Kept { .. })),
            "{kept:?}"
        );
        let view = store.inspect(&pool, token).await;
        assert!(matches!(view, Ok(InspectOutcome::Found(_))), "{view:?}");
        let released = store.unblock(&pool, token, fence).await;
        assert!(
            matches!(released, Ok(UnblockOutcome::Released { .. })),
            "{released:?}"
        );
        assert_eq!(store.delete(&pool, token).await, Ok(DeleteOutcome::Deleted));
    }
    assert_eq!(f.counts(&pool).await, (2, 0, 0));
    // What makes room is not refused.
    assert_eq!(g.store.delete_pool(&other).await, Ok(true));
    let () = f
        .redis
        .config_set("maxmemory", "0")
        .await
        .expect("CONFIG SET");
    f.grant(&pool).await;
    audit(&f, &pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_lapses_in_a_full_redis_too() {
    let Some(redis) = own_redis("full, lapse", &["--maxmemory-policy", "noeviction"]).await else {
        return;
    };
    let f = Fixture::on(&redis.url).await;
    let patch = PolicyPatch {
        lifetime_ms: Some(1_000),
        ..PolicyPatch::default()
    };
    let pool = f.filled("p", patch, &["a"]).await;
    f.grant(&pool).await;
    let () = f
        .redis
        .config_set("maxmemory", "1")
        .await
        .expect("CONFIG SET");
    eventually("it is free", async || stored_free(&f, &pool).await == 1).await;
    audit(&f, &pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_starts_without_redis_and_is_ready_when_it_comes() {
    let Some(mut redis) = own_redis("away at start", &[]).await else {
        return;
    };
    redis.kill().await;
    let started = returns(Store::start(
        config_on(&redis.url),
        Arc::new(Metrics::new()),
    ))
    .await;
    let store = started.expect("it starts");
    let ready = returns(store.readiness()).await;
    assert!(!ready.redis && !ready.scripts, "{ready:?}");
    let default = PoolName::default_pool();
    let answer = returns(store.assign(&default, any())).await.map(drop);
    assert!(
        matches!(answer, Err(StoreError::Unavailable(_))),
        "{answer:?}"
    );
    redis.restart(&[]).await;
    eventually("it is ready", async || {
        let ready = store.readiness().await;
        ready.redis && ready.scripts
    })
    .await;
    let answer = store.assign(&default, any()).await;
    assert!(matches!(answer, Ok(AssignOutcome::Empty { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_in_the_url_opens_and_a_wrong_one_is_told() {
    let Some(redis) = own_redis("password", &["--requirepass", "opensesame"]).await else {
        return;
    };
    let port = redis.port;
    let f = Fixture::on(&format!("redis://:opensesame@127.0.0.1:{port}")).await;
    let pool = f.filled("p", PolicyPatch::default(), &["a"]).await;
    f.grant(&pool).await;
    for url in [
        format!("redis://:wrongsesame@127.0.0.1:{port}"),
        format!("redis://127.0.0.1:{port}"),
    ] {
        let started = returns(Store::start(config_on(&url), Arc::new(Metrics::new()))).await;
        let store = started.expect("it starts, for Redis may be mended");
        let ready = returns(store.readiness()).await;
        assert!(!ready.scripts, "{ready:?}");
        let answer = returns(store.assign(&PoolName::default_pool(), any()))
            .await
            .map(drop);
        let Err(StoreError::Unavailable(told)) = answer else {
            panic!("{answer:?}");
        };
        assert!(!told.contains("sesame"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_cut_again_and_again_end_no_task() {
    let Some(mut redis) = own_redis("connections cut", &[]).await else {
        return;
    };
    let f = Fixture::on(&redis.url).await;
    let g = f.replica().await;
    // More often than the client remembers (its channel keeps 32), while nothing can be prepared.
    for _ in 0..60 {
        let _ = command(&f, "CLIENT", &["KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        let _ = command(&f, "CLIENT", &["KILL", "TYPE", "pubsub"]).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let pool = PoolName::default_pool();
    works_again(&g, &pool).await;
    // Each task still does its work: an empty Redis is made ready, and leases come back.
    redis.kill().await;
    redis.restart(&[]).await;
    works_again(&g, &pool).await;
    eventually("the layout is agreed again", async || {
        let layout = format!("{}:1:layout", g.config.key_prefix);
        command(&f, "EXISTS", &[&layout]).await == Ok(Value::Integer(1))
    })
    .await;
    let patch = PolicyPatch {
        lifetime_ms: Some(1_000),
        ..PolicyPatch::default()
    };
    eventually("pools can be made", async || {
        g.store
            .put_pool(&crate::harness::pool("p"), patch.clone())
            .await
            .is_ok()
    })
    .await;
    let pool = crate::harness::pool("p");
    g.import(&pool, &["a"]).await;
    g.grant(&pool).await;
    eventually("it comes back", async || stored_free(&g, &pool).await == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_may_not_subscribe_tries_until_it_may() {
    let Some(redis) = own_redis("may not subscribe", &[]).await else {
        return;
    };
    let f = Fixture::on(&redis.url).await;
    let listening = async || match command(&f, "PUBSUB", &["CHANNELS", "*alarm"]).await {
        Ok(Value::Array(names)) => names.len(),
        other => panic!("PUBSUB: {other:?}"),
    };
    eventually("it listens", async || {
        listening().await == PARTITIONS as usize
    })
    .await;
    // Redis cuts whoever listens to what is now forbidden.
    let forbid = command(&f, "ACL", &["SETUSER", "default", "resetchannels"]).await;
    forbid.expect("ACL");
    eventually("it is refused", async || {
        let log = command(&f, "ACL", &["LOG"]).await;
        matches!(log, Ok(Value::Array(entries)) if !entries.is_empty())
    })
    .await;
    let allow = command(&f, "ACL", &["SETUSER", "default", "allchannels"]).await;
    allow.expect("ACL");
    eventually("it listens again", async || {
        listening().await == PARTITIONS as usize
    })
    .await;
}
