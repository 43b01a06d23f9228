//! Backup and restore as docs/OPERATIONS.md tells them.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::machine::on_path;
use crate::support::{APPEND_ONLY, Directory, OwnRedis, Tokend, eventually, skip};

const TEST: &str = "restore::a_backup_brings_back_what_there_was";
const SETTINGS: &[(&str, &str)] = &[("SECRET_KEY", "0123456789abcdef0123456789abcdef")];

/// A request that must succeed.
async fn ask(service: &Tokend, method: &str, path: &str, body: Value) -> Value {
    let method = method.parse().expect("a method");
    let answer = service.ask_text(method, path, Some(body)).await;
    let (status, text) = answer.expect("an answer");
    assert!((200..300).contains(&status), "{path}: {status} {text}");
    // One-time tokens come as plain text.
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

async fn inspect(service: &Tokend, token: &str) -> Value {
    let body = json!({"token": token});
    ask(service, "POST", "/v1/pools/seats/inspect", body).await
}

/// Of a server that runs, as the runbook does it.
fn back_up(redis: &OwnRedis, file: &Path) {
    let port = redis.port.to_string();
    let mut command = Command::new("redis-cli");
    command.args(["-p", &port, "--rdb"]).arg(file);
    let done = command.output().expect("redis-cli runs");
    assert!(done.status.success(), "{done:?}");
}

/// Into a new server: without the append-only file at first, for with it Redis looks at no other file.
async fn restore(directory: &Directory) -> Option<OwnRedis> {
    let folder = directory.path().to_string_lossy().into_owned();
    let args = [
        "--appendonly",
        "no",
        "--dir",
        &folder,
        "--dbfilename",
        "backup.rdb",
    ];
    let redis = OwnRedis::start(&args).await?;
    for setting in [["appendonly", "yes"], ["appendfsync", "always"]] {
        let words = [&["CONFIG", "SET"], &setting[..]].concat();
        redis.command(&words).await.expect("CONFIG SET");
    }
    eventually("the append-only file is written", async || {
        let of = async |field| redis.info("persistence", field).await;
        of("aof_rewrite_in_progress").await.as_deref() == Some("0")
            && of("aof_rewrite_scheduled").await.as_deref() == Some("0")
            && of("aof_last_bgrewrite_status").await.as_deref() == Some("ok")
    })
    .await;
    Some(redis)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_brings_back_what_there_was() {
    let Some(redis) = OwnRedis::start(APPEND_ONLY).await else {
        return skip(TEST, "no redis-server");
    };
    if on_path("redis-cli").is_none() {
        return skip(TEST, "no redis-cli");
    }
    let directory = Directory::new();
    let service = Tokend::on(&redis, &directory, SETTINGS).await;
    let policy = json!({"lifetime": 3_600, "cooldown": 3_600});
    ask(&service, "PUT", "/v1/pools/seats", policy).await;
    let seats = json!({"tokens": ["held", "cooling", "granted-later"]});
    ask(&service, "POST", "/v1/pools/seats/generate", seats).await;
    let assign = async |service: &Tokend, token: &str| {
        let body = json!({"token": token, "holder": "me"});
        let grant = ask(service, "POST", "/v1/pools/seats/assign", body).await;
        grant["fence"].as_u64().expect("a fence")
    };
    assign(&service, "held").await;
    assign(&service, "cooling").await;
    let body = json!({"token": "cooling"});
    ask(&service, "POST", "/v1/pools/seats/unblock", body).await;
    let meta = json!({"meta": {"order": 9_007_199_254_740_993_u64}});
    let one_time = ask(&service, "POST", "/token", meta).await;
    let (held, cooling) = (
        inspect(&service, "held").await,
        inspect(&service, "cooling").await,
    );

    let file = directory.path().join("backup.rdb");
    back_up(&redis, &file);
    let later = assign(&service, "granted-later").await;
    drop(service);
    drop(redis);

    let redis = restore(&directory)
        .await
        .expect("a redis-server, as before");
    let service = Tokend::on(&redis, &directory, SETTINGS).await;
    assert_eq!(inspect(&service, "held").await, held);
    assert_eq!(inspect(&service, "cooling").await, cooling);
    // What came after the backup is not known. Whoever checks fences still tells the two holders apart.
    assert_eq!(inspect(&service, "granted-later").await["state"], "free");
    assert!(assign(&service, "granted-later").await > later);
    let exchanged = ask(&service, "PUT", "/token", json!({"token": one_time})).await;
    assert_eq!(
        exchanged["Ok"]["meta"]["order"], 9_007_199_254_740_993_u64,
        "{exchanged}"
    );
}
