//! `tokend doctor` and what `tokend serve` says of the same at its start, on Redis servers set up in many ways.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tokend::metrics::Metrics;
use tokend::store::Store;

use super::{Directory, Ran, Tokend, tokend};
use crate::harness::{OwnRedis, config_on, eventually, skip};

/// A Redis as the README wants it.
const GOOD: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];
const EVICTS: &[&str] = &["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"];

async fn own_redis(test: &str, args: &[&str]) -> Option<OwnRedis> {
    let redis = OwnRedis::start(args).await;
    if redis.is_none() {
        skip(test, "there is no redis-server on PATH");
    }
    redis
}

fn doctor(url: &str, settings: &[(&str, &str)], args: &[&str]) -> Ran {
    let directory = Directory::new();
    let output = tokend(&directory)
        .arg("doctor")
        .args(args)
        .env("REDIS_URL", url)
        .envs(settings.iter().copied())
        .output();
    Ran::from(output.expect("tokend runs"))
}

/// Exit code, and grade, finding and mending line of each check of the one server.
fn findings(url: &str, settings: &[(&str, &str)]) -> (Option<i32>, BTreeMap<String, [String; 3]>) {
    let ran = doctor(url, settings, &["--json"]);
    let told: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(told["ok"], ran.code == Some(0), "{told}");
    let servers = told["servers"].as_array().expect("servers");
    assert_eq!(servers.len(), 1, "{told}");
    let each = servers[0]["findings"].as_array().expect("findings").iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let each = each.map(|it| {
        let told = [&it["grade"], &it["found"], &it["mend"]].map(text);
        (text(&it["check"]), told)
    });
    (ran.code, each.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_as_it_should_be_is_good_and_stays_as_it_is() {
    let Some(redis) = own_redis("good", GOOD).await else {
        return;
    };
    let (code, found) = findings(&redis.url, &[]);
    assert_eq!(code, Some(0), "{found:?}");
    for check in [
        "version",
        "role",
        "eviction",
        "append-only",
        "append-fsync",
        "writes",
        "clock",
    ] {
        assert_eq!(found[check][0], "ok", "{check}: {found:?}");
    }
    // `tokend serve` turns them on, this one only looks.
    assert_eq!(found["events"][0], "info");
    assert_eq!(found["layout"][0], "info");
    assert_eq!(findings(&redis.url, &[]).1, found);
    let store = Store::start(config_on(&redis.url), Arc::new(Metrics::new())).await;
    let store = store.expect("it starts");
    eventually("events are on", async || {
        findings(&redis.url, &[]).1["events"][0] == "ok"
    })
    .await;
    store.stop().await;
    let table = doctor(&redis.url, &[], &[]);
    let port = redis.port;
    let told = format!("Redis: redis://127.0.0.1:{port}, keys: tokend\n127.0.0.1:{port}\n");
    assert!(table.ok().starts_with(&told), "{}", table.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_refuses_writes_or_is_full_fails() {
    let hurt = ["--min-replicas-to-write", "1", "--maxmemory", "1000"];
    let Some(redis) = own_redis("refuses writes", &hurt).await else {
        return;
    };
    let (code, found) = findings(&redis.url, &[]);
    assert_eq!(code, Some(1), "{found:?}");
    let [grade, why, _] = &found["writes"];
    assert!(grade == "fail" && why.contains("NOREPLICAS"), "{found:?}");
    let [grade, why, mend] = &found["memory"];
    assert!(
        grade == "fail" && why.contains("maxmemory 1000") && mend.contains("maxmemory"),
        "{found:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_as_it_should_be_is_told_with_the_line_that_mends_it() {
    let Some(redis) = own_redis(
        "not good",
        &["--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru"],
    )
    .await
    else {
        return;
    };
    let replicated = [("DURABILITY", "replicated"), ("WAIT_REPLICAS", "2")];
    let (code, found) = findings(&redis.url, &replicated);
    assert_eq!(code, Some(0), "warnings only: {found:?}");
    for (check, mend) in [
        ("eviction", "CONFIG SET maxmemory-policy noeviction"),
        ("append-only", "CONFIG SET appendonly yes"),
        ("replicas", "WAIT_REPLICAS"),
        ("min-replicas", "CONFIG SET min-replicas-to-write 2"),
    ] {
        assert_eq!(found[check][0], "warn", "{check}: {found:?}");
        assert!(found[check][2].contains(mend), "{check}: {found:?}");
    }
    assert!(!findings(&redis.url, &[]).1.contains_key("replicas"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_throws_tokens_away_fails_and_nothing_starts_on_it() {
    let Some(redis) = own_redis("evicts", EVICTS).await else {
        return;
    };
    let (code, found) = findings(&redis.url, &[]);
    assert_eq!((code, found["eviction"][0].as_str()), (Some(1), "fail"));
    let table = doctor(&redis.url, &[], &[]);
    assert!(
        table
            .stdout
            .contains("-> CONFIG SET maxmemory-policy noeviction")
    );
    let directory = Directory::new();
    let output = tokend(&directory)
        .args(["serve", "--port", "0"])
        .env("REDIS_URL", &redis.url)
        .output();
    let ran = Ran::from(output.expect("tokend runs"));
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(
        ran.stderr
            .contains("CONFIG SET maxmemory-policy noeviction"),
        "{}",
        ran.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_config_is_refused_it_says_what_it_could_not_look_at() {
    let args = [GOOD, &["--rename-command", "CONFIG", ""]].concat();
    let Some(redis) = own_redis("no CONFIG", &args).await else {
        return;
    };
    let (code, found) = findings(&redis.url, &[("DURABILITY", "replicated")]);
    assert_eq!(code, Some(0));
    for check in ["append-fsync", "events", "min-replicas"] {
        assert_eq!(found[check][0], "info", "{check}: {found:?}");
        assert!(found[check][1].contains("CONFIG is refused"), "{found:?}");
    }
    assert_eq!(found["append-only"][0], "ok", "INFO tells it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_no_primary_and_a_primarys_replicas_are_asked_for_their_time() {
    let Some(primary) = own_redis("primary", GOOD).await else {
        return;
    };
    let port = primary.port.to_string();
    let of = ["--replicaof", "127.0.0.1", &port];
    let replica = own_redis("replica", &of).await.expect("as above");
    let replicated = [("DURABILITY", "replicated")];
    eventually("it is connected", async || {
        findings(&primary.url, &replicated).1["replicas"][0] == "ok"
    })
    .await;
    eventually("its clock agrees", async || {
        let (_, found) = findings(&primary.url, &replicated);
        found.get("replica-clock").is_some_and(|it| it[0] == "ok")
    })
    .await;
    let (code, found) = findings(&replica.url, &[]);
    assert_eq!((code, found["role"][0].as_str()), (Some(1), "fail"));
    assert!(found["role"][2].contains("REDIS_URL"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_partitions_fails() {
    let Some(redis) = own_redis("partitions", GOOD).await else {
        return;
    };
    let mut config = config_on(&redis.url);
    config.key_prefix = "tokend".to_owned();
    let store = Store::start(config, Arc::new(Metrics::new())).await;
    store.expect("it starts").stop().await;
    let layout = |partitions| findings(&redis.url, &[("PARTITIONS", partitions)]);
    assert_eq!(layout("2").1["layout"][0], "ok");
    let (code, found) = layout("3");
    assert_eq!((code, found["layout"][0].as_str()), (Some(1), "fail"));
    assert!(found["layout"][2].contains("PARTITIONS=2"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_away_is_69_and_a_wrong_setting_2() {
    let away = doctor("redis://:hunter2@127.0.0.1:1", &[], &[]);
    assert_eq!(away.code, Some(69), "{}", away.stderr);
    assert!(!away.stderr.contains("hunter2"), "{}", away.stderr);
    let wrong = doctor("redis://127.0.0.1:1", &[("WAIT_REPLICAS", "none")], &[]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_warns_of_it_once_and_serves() {
    let Some(redis) = own_redis("warns", &[]).await else {
        return;
    };
    let directory = Directory::new();
    let settings = [("REDIS_URL", redis.url.as_str()), ("DURABILITY", "memory")];
    let service = Tokend::start(&directory, &settings).await;
    let warned = || {
        let log = service.process.log();
        let lines = log
            .iter()
            .filter(|line| line.contains("CONFIG SET appendonly yes"));
        lines.count()
    };
    eventually("it warns", async || warned() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_a_cluster_and_slots_without_a_primary_are_found() {
    let args = [GOOD, &["--cluster-enabled", "yes"]].concat();
    let Some(node) = own_redis("clusters", &args).await else {
        return;
    };
    let slots = ["CLUSTER", "ADDSLOTSRANGE", "0", "16000"];
    node.command(&slots).await.expect("slots");
    let (code, found) = findings(&node.url, &[]);
    assert_eq!((code, found["cluster"][0].as_str()), (Some(1), "fail"));
    assert!(
        found["cluster"][2].contains("redis-cluster://"),
        "{found:?}"
    );
    let as_one = node.url.replace("redis://", "redis-cluster://");
    let (code, found) = findings(&as_one, &[]);
    assert_eq!((code, found["cluster"][0].as_str()), (Some(1), "fail"));
    assert!(found["cluster"][1].contains("383 slots"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_it_from_redis_is_told() {
    let locked = ["--requirepass", "opensesame", "--user", "bare", "on", ">pw"];
    let Some(redis) = own_redis("why away", &locked).await else {
        return;
    };
    // It is there, and says no.
    let wrong = redis.url.replace("redis://", "redis://:guess@");
    let rights = redis.url.replace("redis://", "redis://bare:pw@");
    for (url, code) in [
        (&wrong, "WRONGPASS"),
        (&redis.url, "NOAUTH"),
        (&rights, "NOPERM"),
    ] {
        let told = doctor(url, &[], &[]);
        assert_eq!(told.code, Some(69), "{}", told.stderr);
        let no = format!("Redis refuses: {code} ");
        assert!(told.stderr.contains(&no), "{}", told.stderr);
    }
    // No Sentinel, and no Cluster.
    let Some(redis) = own_redis("why away", &[]).await else {
        return;
    };
    let port = redis.port;
    let sentinel = format!("redis-sentinel://127.0.0.1:{port}?sentinelServiceName=main");
    let told = doctor(&sentinel, &[], &[]).stderr;
    assert!(told.contains("unknown command"), "{told}");
    let cluster = format!("redis-cluster://127.0.0.1:{port}");
    let told = doctor(&cluster, &[], &[]).stderr;
    assert!(told.contains("cluster support disabled"), "{told}");
    let nobody = doctor("redis-cluster://127.0.0.1:1", &[], &[]).stderr;
    assert!(nobody.contains("refused"), "{nobody}");
}
