//! The rows of the contract's table "Temporary tokens".

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokend::store::{Durability, StoreConfig};
use tokend::token::{Flow, FlowLimits, FlowsLimits, Policy, PoolName, bearer};

use super::mistakes::named;
use super::{Answer, Server, answer};
use crate::harness::{Fixture, OwnRedis, PARTITIONS, eventually, new_namespace, redis_url, skip};

/// A token from a request with that body.
pub async fn made(server: &Server, body: impl Into<reqwest::Body>) -> String {
    let request = server.request(Method::POST, "/app/token").body(body);
    token_of(&answer(request).await)
}

fn token_of(made: &Answer) -> String {
    let body = made.json(200);
    assert_eq!(made.header("cache-control"), Some("no-store"));
    let token = body["token"].as_str().expect("a token").to_owned();
    assert_eq!(body, json!({"status_code": 200, "token": token}));
    token
}

pub fn status_of(checked: &Answer) -> bool {
    let body = checked.json(200);
    assert_eq!(checked.header("cache-control"), Some("no-store"));
    let status = body["status"].as_bool().expect("a boolean");
    assert_eq!(body, json!({"status_code": 200, "status": status}));
    status
}

/// Whether it is valid, asked in both ways.
pub async fn is_valid(server: &Server, token: &str) -> bool {
    let path = status_of(&server.get(&format!("/app/valid/{token}")).await);
    let body = status_of(&server.post("/app/valid", json!({ "token": token })).await);
    assert_eq!(path, body, "{token}");
    path
}

async fn pass(server: &Server, seconds: u64) {
    let pool = PoolName::of_flow(Flow::Temporary);
    let by = Duration::from_secs(seconds);
    server.fixture.pass(&pool, by).await;
}

/// How many the store still keeps, dead or alive.
pub async fn kept(server: &Server) -> usize {
    let (_, keys) = server.fixture.dump().await;
    let records = keys
        .iter()
        .filter(|(name, _)| name.contains(":records:_temporary"));
    // Names and values, one after the other.
    records.map(|(_, key)| key.content.len() / 2).sum()
}

async fn limited(max: u64) -> Server {
    let limits = FlowLimits {
        max,
        ..FlowsLimits::DEFAULT.temporary
    };
    let fixture = Fixture::with(StoreConfig {
        url: redis_url().await.to_owned(),
        key_prefix: new_namespace(),
        partitions: PARTITIONS,
        default_policy: Policy::FOR_DEFAULT_POOL,
        flows: FlowsLimits {
            temporary: limits,
            ..FlowsLimits::DEFAULT
        },
        durability: Durability::Memory,
    });
    Server::on(fixture.await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_made_and_valid_for_an_hour() {
    let server = Server::start().await;
    let token = made(&server, "").await;
    let (digits, random) = token.split_once(':').expect("a colon");
    assert!(digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_digit()));
    let url_safe = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    assert!(random.len() >= 22 && random.bytes().all(url_safe));
    for _ in 0..3 {
        assert!(is_valid(&server, &token).await, "asking uses nothing up");
    }
    pass(&server, 3_590).await;
    assert!(is_valid(&server, &token).await);
    pass(&server, 11).await;
    assert!(!is_valid(&server, &token).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_does_not_make_a_token_live_longer() {
    let server = Server::start().await;
    let token = made(&server, r#"{"ttl_seconds": 100}"#).await;
    for _ in 0..3 {
        assert!(is_valid(&server, &token).await);
        pass(&server, 30).await;
    }
    assert!(is_valid(&server, &token).await);
    pass(&server, 11).await;
    assert!(!is_valid(&server, &token).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_object_is_ignored() {
    let server = Server::start().await;
    let deep = "[".repeat(100_000);
    let bodies: [&[u8]; 12] = [
        b"",
        b"{",
        b"[]",
        b"7",
        b"null",
        b"\"ttl_seconds\"",
        b"ttl_seconds=0",
        b"[{\"ttl_seconds\": 0}]",
        b"{\"ttl_seconds\": 0} x",
        b"\xff\xfe",
        b"{}",
        deep.as_bytes(),
    ];
    let mut tokens = BTreeSet::new();
    for body in bodies {
        for kind in ["application/json", "text/plain", "multipart/form-data"] {
            let request = server.request(Method::POST, "/app/token");
            let request = request.header("content-type", kind).body(body.to_vec());
            tokens.insert(token_of(&answer(request).await));
        }
    }
    assert_eq!(tokens.len(), 36, "each is another");
    pass(&server, 3_590).await;
    for token in &tokens {
        assert!(is_valid(&server, token).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lifetime_can_be_asked_for_whatever_the_content_type() {
    let server = Server::start().await;
    for kind in [
        None,
        Some("application/json"),
        Some("application/x-www-form-urlencoded"),
    ] {
        for (seconds, others) in [
            (1, ""),
            (7_200, r#", "x": null"#),
            (2_592_000, r#", "x": 1, "x": 2"#),
        ] {
            let body = format!(r#"{{"ttl_seconds": {seconds}{others}}}"#);
            let mut request = server.request(Method::POST, "/app/token").body(body);
            if let Some(kind) = kind {
                request = request.header("content-type", kind);
            }
            let token = token_of(&answer(request).await);
            if seconds > 1 {
                pass(&server, seconds - 60).await;
                assert!(is_valid(&server, &token).await, "{seconds}");
                pass(&server, 60).await;
            } else {
                pass(&server, seconds).await;
            }
            assert!(!is_valid(&server, &token).await, "{seconds}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clear_removes_what_has_expired_and_nothing_else() {
    let server = Server::start().await;
    for _ in 0..10 {
        made(&server, r#"{"ttl_seconds": 60}"#).await;
    }
    let stays = made(&server, "").await;
    for _ in 0..2 {
        let cleared = server.delete("/app/clear/all/tokens").await;
        assert!(status_of(&cleared));
        assert!(is_valid(&server, &stays).await);
    }
    assert_eq!(kept(&server).await, 11);
    pass(&server, 61).await;
    assert!(status_of(&server.delete("/app/clear/all/tokens").await));
    assert_eq!(kept(&server).await, 1);
    assert!(is_valid(&server, &stays).await);
    let refused = server.delete("/app/clear/all/tokens?token=a").await;
    assert_eq!(named(&refused), ["token"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_is_full_says_so_until_one_has_expired() {
    let server = limited(3).await;
    let first = made(&server, r#"{"ttl_seconds": 60}"#).await;
    for _ in 0..2 {
        made(&server, "").await;
    }
    for _ in 0..2 {
        let full = server.post("/app/token", json!({})).await;
        full.problem("flow-full", 503);
    }
    assert!(is_valid(&server, &first).await, "full or not");
    let scraped = server.get("/metrics").await.body;
    let refused = "tokend_refusals_total{pool=\"_temporary\",verb=\"generate\"} 2\n";
    assert!(scraped.contains(refused), "{scraped}");
    pass(&server, 61).await;
    assert!(!is_valid(&server, &first).await);
    made(&server, "").await;
    let full = server.post("/app/token", json!({})).await;
    full.problem("flow-full", 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_never_pass_the_cap() {
    let server = limited(20).await;
    let calls = (0..60).map(|_| server.post("/app/token", json!({})));
    let answers = futures_util::future::join_all(calls).await;
    let (made, full): (Vec<_>, Vec<_>) = answers.iter().partition(|it| it.status == 200);
    let tokens: BTreeSet<_> = made.into_iter().map(token_of).collect();
    assert_eq!((tokens.len(), full.len()), (20, 40));
    for refused in full {
        refused.problem("flow-full", 503);
    }
    assert_eq!(kept(&server).await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_flow_is_not_valid_here_nor_one_of_ours_there() {
    let server = Server::start().await;
    let store = &server.fixture.store;
    let ours = made(&server, "").await;
    for flow in [Flow::OneTime, Flow::Unified, Flow::Session] {
        let theirs = store.create_opaque(flow, bearer::temporary, None, None);
        let (theirs, _) = theirs.await.expect("Redis").expect("room");
        assert!(!is_valid(&server, &theirs).await, "{flow:?}");
        let found = store.inspect_opaque(flow, &ours).await.expect("Redis");
        assert!(found.is_none(), "{flow:?}");
    }
    assert!(is_valid(&server, &ours).await);
    let pool = server
        .post("/tokens/inspect", json!({ "token": ours }))
        .await;
    pool.problem("token-not-found", 404);
    let pool = server.get("/v1/pools/_temporary").await;
    pool.problem("pool-not-found", 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_keeps_is_no_token() {
    let server = Server::start().await;
    let token = made(&server, "").await;
    let (_, random) = token.split_once(':').expect("a colon");
    let has = |bytes: &[u8], what: &str| bytes.windows(what.len()).any(|it| it == what.as_bytes());
    let (_, keys) = server.fixture.dump().await;
    let mut seen = 0;
    for (name, key) in &keys {
        assert!(!has(name.as_bytes(), random), "{name}");
        for value in &key.content {
            let value = value.clone().into_bytes().unwrap_or_default();
            assert!(!has(&value, random), "{name}");
            seen += value.len();
            // What it keeps instead opens nothing.
            if let Ok(text) = std::str::from_utf8(&value)
                && text.len() == 43
            {
                assert!(!is_valid(&server, text).await);
            }
        }
    }
    assert!(seen > 0, "something is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_a_token_is_neither_valid_nor_not() {
    let Some(mut redis) = OwnRedis::start(&[]).await else {
        skip("without_redis_a_token_is_neither", "no redis-server");
        return;
    };
    let server = Server::on(Fixture::on(&redis.url).await).await;
    let token = made(&server, "").await;
    redis.kill().await;
    let path = format!("/app/valid/{token}");
    // By a call that writes: one that was sent before has an unknown outcome.
    eventually("the connection is known to be gone", async || {
        let refused = server.post("/app/token", json!({})).await;
        refused.problem_kind() == "store-unavailable"
    })
    .await;
    let calls: [(Method, &str, Value); 4] = [
        (Method::POST, "/app/token", json!({})),
        (Method::POST, "/app/valid", json!({ "token": token })),
        (Method::GET, &path, Value::Null),
        (Method::DELETE, "/app/clear/all/tokens", Value::Null),
    ];
    for (method, path, body) in calls {
        let refused = answer(server.request(method, path).json(&body)).await;
        refused.problem("store-unavailable", 503);
        assert_eq!(refused.retry_after_s(), 1, "{path}");
        assert!(!refused.body.contains(&token));
    }
    // A mistake is told all the same.
    let refused = server.post("/app/token", json!({"ttl_seconds": 0})).await;
    assert_eq!(named(&refused), ["ttl_seconds"]);
}
