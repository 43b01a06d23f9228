//! What others fell into: one test for each row of the table in the design that is about pools.

use std::collections::BTreeSet;

use fred::prelude::*;
use futures_util::future::{join, join_all};
use tokend::store::{GenerateRequest, NewTokens};
use tokend::token::*;

use crate::harness::*;
use crate::verbs::*;

const ANY: &[&str] = &["", "", "", "0", "", "0", ""];

#[tokio::test]
async fn two_replicas_sweep_one_stale_list_and_no_granted_token_is_pooled_again() {
    let f = Fixture::new().await;
    let g = f.replica().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    f.generate(&p, 200).await;
    for _ in 0..5 {
        join_all((0..200).map(|_| f.grant(&p))).await;
        f.pass(&p, secs(61)).await;
        // Both sweepers, both sweeping by hand, and new grants in between.
        let granting = join_all((0..200).map(|n| {
            let replica = if n % 2 == 0 { &f } else { &g };
            replica.grant(&p)
        }));
        let sweeping = join_all((0..20).map(|_| f.sweep(&p, 50)));
        let (granted, _) = join(granting, sweeping).await;
        let tokens: BTreeSet<_> = granted.iter().map(|grant| &grant.token).collect();
        assert_eq!(tokens.len(), 200, "each token to one holder");
        assert_eq!(f.counts(&p).await, (0, 200, 0));
        f.assert_consistent().await;
        for grant in granted {
            let view = g.look(&p, grant.token.as_str()).await.expect("there");
            assert_eq!(view.fence, grant.fence.get());
            f.unblock(&p, grant.token.as_str(), Some(grant.fence)).await;
        }
    }
}

#[tokio::test]
async fn an_expiry_handled_twice_happens_once() {
    let f = Fixture::new().await;
    let g = f.replica().await;
    let p = f.filled("seats", policy(60, 0, 20), &["a"]).await;
    f.grant(&p).await;
    f.pass(&p, secs(61)).await;
    for _ in 0..3 {
        f.sweep(&p, 100).await;
        g.sweep(&p, 100).await;
    }
    assert_eq!(f.counts(&p).await, (0, 0, 1));
    f.pass(&p, secs(21)).await;
    for _ in 0..3 {
        g.sweep(&p, 100).await;
        f.sweep(&p, 100).await;
    }
    assert_eq!(f.counts(&p).await, (1, 0, 0));
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_call_that_fails_leaves_nothing_half_done() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    f.generate(&p, 10).await;
    f.grant(&p).await;
    let keys = f.partition_keys(&p).await;
    let shard = [
        p.to_string(),
        f.shard_field(&p, "generation").await.to_string(),
        f.shard_field(&p, "version").await.to_string(),
    ];
    // A good item, and one behind it that makes the script fail.
    let keyed: &[&str] = &["k", "f", "", "0", "", "0", ""];
    let worded: &[&str] = &["", "", "", "not a number", "", "0", ""];
    for (script, good, bad) in [
        ("assign", ANY, worded),
        ("assign", keyed, &["", "", "", "", "", "0", ""]),
        (
            "generate",
            &["k", "f", "", "", "0", "0", "1", "new"],
            &["", "", "", "", "0", "0", "2", "x"],
        ),
    ] {
        let items =
            [good, bad].map(|item| [&shard.each_ref().map(String::as_str)[..], item].concat());
        let args = items.concat().iter().map(ToString::to_string).collect();
        let failed = f.try_raw(script, keys.clone(), args).await;
        assert!(failed.is_err(), "{script}: {failed:?}");
        f.assert_structure().await;
        assert_eq!(f.counts(&p).await, (9, 1, 0), "{script}");
        let windows = f.keys(&format!("{}*:idem:*", f.config.key_prefix)).await;
        assert!(windows.is_empty(), "{script}: nothing is remembered");
    }
    join_all((0..9).map(|_| f.grant(&p))).await;
    assert_eq!(f.counts(&p).await, (0, 10, 0));
    f.assert_consistent().await;
}

#[tokio::test]
async fn the_cap_is_over_all_states_whatever_is_done_at_once() {
    let f = Fixture::new().await;
    let g = f.replica().await;
    let capped = PolicyPatch {
        max_tokens: Some(50),
        ..policy(60, 0, 20)
    };
    let p = f.pool("seats", capped).await;
    let work = join_all((0..60).map(|n| {
        let (replica, p) = (if n % 2 == 0 { &f } else { &g }, &p);
        async move {
            let request = GenerateRequest {
                tokens: NewTokens::Generate(1 + n % 5),
                key: None,
            };
            replica.store.generate(p, request).await.expect("generate");
            if let AssignOutcome::Granted(grant) = replica.assign(p, any()).await {
                let value = grant.token.as_str();
                match n % 3 {
                    0 => _ = replica.unblock(p, value, Some(grant.fence)).await,
                    1 => _ = replica.delete(p, value).await,
                    _ => {}
                }
            }
            let (free, held, cooling) = replica.counts(p).await;
            assert!(free + held + cooling <= 50);
        }
    }));
    work.await;
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_deleted_token_stays_deleted_whatever_races_it() {
    let f = Fixture::new().await;
    let g = f.replica().await;
    let p = f.pool("seats", policy(60, 300, 20)).await;
    for round in 0..10u64 {
        let tokens = f.generate(&p, 30).await;
        let grants = join_all((0..30).map(|_| f.grant(&p))).await;
        // Due, nearly due, not due.
        f.pass(&p, secs(59 + round % 3)).await;
        let deletes = join_all(tokens.iter().map(|t| f.delete(&p, t.as_str())));
        let others = join_all(grants.iter().map(|grant| {
            let (p, g) = (&p, &g);
            async move {
                let value = grant.token.as_str();
                g.keep(p, value, Some(grant.fence), None).await;
                g.unblock(p, value, Some(grant.fence)).await;
                g.keep(p, value, None, Some(5)).await;
                g.sweep(p, 10).await;
            }
        }));
        join(deletes, others).await;
        for value in values(&tokens) {
            assert_eq!(f.state(&p, value).await, None);
        }
        f.pass(&p, secs(400)).await;
        f.sweep(&p, 1_000).await;
        assert_eq!(f.counts(&p).await, (0, 0, 0), "round {round}");
        f.assert_consistent().await;
    }
}

#[tokio::test]
async fn a_dangling_member_of_the_free_set_hides_nobody() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["real"]).await;
    let free = format!("{}:free:{p}", f.prefix_of(&p).await);
    let dangling: Vec<_> = (0..50).map(|n| format!("dangling {n}")).collect();
    let _: () = f.redis.sadd(free, dangling).await.expect("sadd");
    assert_eq!(f.grant(&p).await.token, token("real"));
    let empty = f.assign(&p, any()).await;
    assert!(matches!(empty, AssignOutcome::Empty { .. }), "{empty:?}");
    // They are gone, and count for nothing.
    assert_eq!(f.counts(&p).await, (0, 1, 0));
    f.assert_consistent().await;
}

#[tokio::test]
async fn more_dangling_members_than_a_call_looks_at_are_gone_after_some() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["real"]).await;
    let free = format!("{}:free:{p}", f.prefix_of(&p).await);
    for hundred in 0..30 {
        let dangling: Vec<_> = (0..100)
            .map(|n| format!("dangling {hundred} {n}"))
            .collect();
        let _: () = f.redis.sadd(free.as_str(), dangling).await.expect("sadd");
    }
    assert_eq!(f.grant(&p).await.token, token("real"));
    f.assert_structure_but_free(&p).await;
}

#[tokio::test]
async fn a_fence_of_a_pool_that_was_made_again_frees_nobodys_lease() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    let old = f.grant(&p).await;
    for _ in 0..3 {
        assert!(f.store.delete_pool(&p).await.expect("delete"));
        f.filled("seats", policy(60, 0, 0), &["a"]).await;
        let new = f.grant(&p).await;
        assert!(new.fence > old.fence);
        assert_eq!(
            f.unblock(&p, "a", Some(old.fence)).await,
            UnblockOutcome::LeaseLost
        );
        assert_eq!(
            f.keep(&p, "a", Some(old.fence), None).await,
            KeepAliveOutcome::LeaseLost
        );
        assert_eq!(
            f.look(&p, "a").await.map(|v| v.fence),
            Some(new.fence.get())
        );
    }
    f.assert_consistent().await;
}

#[tokio::test]
async fn after_three_idle_days_a_lease_of_a_second_is_found_at_once() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a", "b"]).await;
    // One that is due in five days lies in the wheel all the while.
    f.granted(&p, lasting(5 * 86_400)).await;
    f.pass(&p, secs(3 * 86_400)).await;
    f.assert_consistent().await;
    let grant = f.granted(&p, lasting(1)).await;
    // Real time: the sweeper acts by itself.
    eventually("it is taken back", async || f.stored_free(&p).await == 1).await;
    let late = f.now_ms().await.saturating_sub(grant.expires_at_ms);
    assert!(late < 10_000, "{late} ms late");
    assert_eq!(f.counts(&p).await, (1, 1, 0));
    f.assert_consistent().await;
}

/// The flags, in no particular order.
async fn flags(f: &Fixture) -> BTreeSet<char> {
    let name = "notify-keyspace-events";
    let told: std::collections::HashMap<String, String> =
        f.redis.config_get(name).await.expect("config get");
    told[name].chars().collect()
}

async fn lapses_by_itself(f: &Fixture, p: &PoolName) {
    f.granted(p, lasting(1)).await;
    eventually("it is taken back", async || f.stored_free(p).await == 1).await;
}

/// Rings for another reason than a sweep, which has no need to hear its own.
async fn hears_the_doorbell(f: &Fixture, p: &PoolName) {
    let alarm = format!("{}:alarm", f.prefix_of(p).await);
    let by_event = f.metrics.sweeps.with_label_values(&["event"]);
    eventually("the doorbell rings", async || {
        let at = Some(Expiration::PX(1));
        let set = f
            .redis
            .set::<(), _, _>(alarm.as_str(), "1", at, None, false);
        set.await.expect("set");
        by_event.get() > 0
    })
    .await;
}

#[tokio::test]
async fn notification_flags_are_added_to_what_is_set_and_set_again_after_a_restart() {
    let Some(mut own) = OwnRedis::start(&["--notify-keyspace-events", "Elg"]).await else {
        return skip("notification_flags_are_added", "no redis-server");
    };
    let f = Fixture::on(&own.url).await;
    let added = BTreeSet::from(['E', 'K', 'g', 'l', 'x']);
    eventually("flags are added", async || flags(&f).await == added).await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    lapses_by_itself(&f, &p).await;
    hears_the_doorbell(&f, &p).await;

    // Its settings, and its data, are gone with it.
    own.kill().await;
    own.restart(&["--notify-keyspace-events", ""]).await;
    eventually("flags are set again", async || {
        let up = f.redis.ping::<()>(None).await.is_ok();
        up && flags(&f).await == BTreeSet::from(['K', 'x'])
    })
    .await;
    eventually("the store is ready", async || {
        f.store.readiness().await.scripts
    })
    .await;
    f.filled("seats", policy(60, 0, 0), &["a"]).await;
    lapses_by_itself(&f, &p).await;
    f.assert_consistent().await;
}

#[tokio::test]
async fn where_config_is_refused_leases_lapse_on_the_timer() {
    let Some(own) = OwnRedis::start(&["--rename-command", "CONFIG", ""]).await else {
        return skip("where_config_is_refused", "no redis-server");
    };
    let f = Fixture::on(&own.url).await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    lapses_by_itself(&f, &p).await;
    assert_eq!(f.metrics.sweeps.with_label_values(&["event"]).get(), 0);
    f.assert_consistent().await;
}

#[tokio::test]
async fn where_config_is_refused_and_flags_are_on_the_doorbell_rings() {
    let args = [
        "--rename-command",
        "CONFIG",
        "",
        "--notify-keyspace-events",
        "Ex",
    ];
    let Some(own) = OwnRedis::start(&args).await else {
        return skip(
            "where_config_is_refused_and_flags_are_on",
            "no redis-server",
        );
    };
    let f = Fixture::on(&own.url).await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    lapses_by_itself(&f, &p).await;
    hears_the_doorbell(&f, &p).await;
    f.assert_consistent().await;
}

#[tokio::test]
async fn no_key_stays_behind() {
    let f = Fixture::new().await;
    let default = PoolName::default_pool();
    // Each partition's fence stays for ever: one key each, made by the first grant.
    for name in ["one", "two", "three", "four", "five", "six"] {
        let p = f.filled(name, policy(60, 0, 0), &["a"]).await;
        f.grant(&p).await;
        f.store.delete_pool(&p).await.expect("delete");
    }
    let baseline = f.lasting_keys().await;
    for round in 0..20 {
        let p = f
            .pool(&format!("round-{}", round % 4), policy(60, 300, 20))
            .await;
        for p in [&p, &default] {
            let tokens = f.generate(p, 30).await;
            for n in 0..20 {
                let grant = f.granted(p, keyed(&format!("{round} {n}"))).await;
                if n % 3 == 0 {
                    f.unblock(p, grant.token.as_str(), None).await;
                }
                if n % 3 == 1 {
                    f.kept(p, grant.token.as_str(), Some(5_000)).await;
                }
            }
            join_all(tokens.iter().map(|t| f.delete(p, t.as_str()))).await;
        }
        f.store.delete_pool(&p).await.expect("delete");
    }
    f.assert_consistent().await;
    // The index of default's wheel names ticks that deletions emptied until they have passed.
    f.pass(&default, secs(6_000)).await;
    eventually("only what was there stays", async || {
        f.lasting_keys().await == baseline
    })
    .await;
    f.assert_consistent().await;
}

#[tokio::test]
async fn after_a_long_outage_everything_is_due_at_once_and_all_come_back() {
    let f = Fixture::new().await;
    let mut pools = Vec::new();
    for n in 0..10 {
        let p = f.pool(&format!("p{n}"), policy(60, 0, 0)).await;
        let size = if n == 0 { 5_000 } else { 50 };
        f.generate(&p, size).await;
        for _ in 0..size / 50 {
            f.raw("assign", &p, &[ANY; 50]).await;
        }
        pools.push((p, size));
    }
    let f = f.without_sweeper().await;
    for (p, _) in &pools {
        f.pass(p, secs(86_400)).await;
    }
    // Nobody has looked for a day. A replica comes back; who asks meanwhile is answered.
    let g = f.replica().await;
    for (p, _) in &pools {
        g.grant(p).await;
    }
    for (p, size) in &pools {
        eventually("all come back", async || g.stored_free(p).await == size - 1).await;
    }
    g.assert_consistent().await;
}
