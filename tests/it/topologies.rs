//! The topologies that other tests stand on do what they say: they lose a primary and get another.

use std::path::Path;

use crate::harness::{Cluster, OwnRedis, Sentinel, eventually, signal, skip};

#[tokio::test]
async fn sentinels_replace_a_primary_that_is_killed_and_take_it_back_as_a_replica() {
    let Some(mut sentinel) = Sentinel::start(&[]).await else {
        return skip("sentinels_replace_a_primary", "no redis-server");
    };
    let killed = sentinel.kill_primary().await;
    let primary = sentinel.failed_over(killed).await;
    let set = ["SET", "after", "1"];
    let stored = sentinel.servers[primary].command(&set).await;
    assert!(stored.is_ok(), "{stored:?}");
    sentinel.servers[killed].start_again().await;
    sentinel.whole().await;
    let kept = sentinel.servers[killed].command(&["GET", "after"]).await;
    assert_eq!(kept.map(|it| it.text()).as_deref(), Ok("1"));
}

#[tokio::test]
async fn sentinels_replace_a_primary_that_is_frozen() {
    let Some(sentinel) = Sentinel::start(&[]).await else {
        return skip("sentinels_replace_a_frozen_primary", "no redis-server");
    };
    let frozen = sentinel.pause_primary().await;
    let primary = sentinel.failed_over(frozen).await;
    sentinel.servers[frozen].resume().await;
    // All follow one again. (A machine that stalls may have made them choose once more meanwhile.)
    sentinel.whole().await;
    assert_ne!(primary, frozen);
}

#[tokio::test]
async fn a_clusters_replica_takes_over_from_a_primary_that_is_killed_or_frozen() {
    let Some(mut cluster) = Cluster::start(&[]).await else {
        return skip("a_clusters_replica_takes_over", "no redis-server");
    };
    let slot = cluster.slot("{p0}").await;
    let killed = cluster.owner(slot).await;
    let replica = cluster.replica(killed).await;
    cluster.nodes[killed].kill().await;
    assert_eq!(cluster.taken_over(slot, killed).await, replica);
    cluster.nodes[killed].start_again().await;
    cluster.whole().await;
    assert_eq!(cluster.owner(slot).await, replica);

    cluster.nodes[replica].pause().await;
    assert_eq!(cluster.taken_over(slot, replica).await, killed);
    cluster.nodes[replica].resume().await;
    cluster.whole().await;
    assert_eq!(cluster.owner(slot).await, killed);
}

#[tokio::test]
async fn a_slot_moves_in_steps() {
    let Some(cluster) = Cluster::start(&[]).await else {
        return skip("a_slot_moves_in_steps", "no redis-server");
    };
    let slot = cluster.slot("{p0}").await;
    let from = cluster.owner(slot).await;
    for n in 0..3 {
        let set = ["SET", &format!("{{p0}}:{n}"), "1"];
        let stored = cluster.nodes[from].command(&set).await;
        assert!(stored.is_ok(), "{stored:?}");
    }
    let to = (from + 1) % 3;
    let migration = cluster.migrate(slot, to).await;
    assert_eq!(migration.move_keys(2).await, 1);
    let new = ["GET", "{p0}:new"];
    let asked = cluster.nodes[from].command(&new).await;
    assert!(asked.is_err_and(|it| it.starts_with("ASK ")));
    let both = ["MGET", "{p0}:0", "{p0}:1", "{p0}:2"];
    let torn = cluster.nodes[from].command(&both).await;
    assert!(torn.is_err_and(|it| it.starts_with("TRYAGAIN")));
    migration.finish().await;
    let moved = cluster.nodes[to].command(&both).await;
    assert_eq!(moved.map(|it| it.text()).as_deref(), Ok("1 1 1"));
    let gone = cluster.nodes[from].command(&both).await;
    assert!(gone.is_err_and(|it| it.starts_with("MOVED ")));
}

#[tokio::test]
async fn a_server_ends_with_the_one_who_started_it() {
    let Some(redis) = OwnRedis::start(&[]).await else {
        return skip("a_server_ends_with_its_owner", "no redis-server");
    };
    let (pid, dir) = (redis.pid().await, redis.dir.clone());
    redis.pause().await; // even so
    drop(redis);
    eventually("it is gone", async || {
        !Path::new(&format!("/proc/{pid}")).exists() && !dir.exists()
    })
    .await;
}

#[tokio::test]
async fn a_server_ends_with_its_owner_whatever_its_shell_was_told() {
    let Some(server) = OwnRedis::start(&[]).await else {
        return skip("a_server_ends_with_its_owner", "no redis-server");
    };
    let pid = server.pid().await;
    for name in ["TERM", "INT", "HUP", "QUIT"] {
        signal(server.shell_pid(), name);
    }
    drop(server);
    let gone = !Path::new(&format!("/proc/{pid}")).exists();
    if !gone {
        signal(pid, "KILL"); // nobody else would
    }
    assert!(gone, "it was left behind");
}
