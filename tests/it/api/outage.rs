//! Redis away: dead, and frozen. Every route answers in the contract's form, and all goes on by itself.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Answer, Server, answer};
use crate::harness::{Fixture, OwnRedis, eventually, signal, skip};

/// Every route that needs Redis.
fn calls() -> Vec<(Method, String, Value)> {
    let token = json!({"token": "a"});
    let mut calls = vec![
        (Method::GET, "/v1/pools".to_owned(), Value::Null),
        (Method::GET, "/v1/pools/seats".to_owned(), Value::Null),
        (
            Method::GET,
            "/v1/pools/seats/tokens".to_owned(),
            Value::Null,
        ),
        (
            Method::PUT,
            "/v1/pools/seats".to_owned(),
            json!({"lifetime": 5}),
        ),
        (Method::PUT, "/v1/pools/new".to_owned(), json!({})),
        (Method::DELETE, "/v1/pools/seats".to_owned(), Value::Null),
        (Method::DELETE, "/tokens/delete".to_owned(), token.clone()),
        (
            Method::POST,
            "/v1/pools/seats/delete".to_owned(),
            token.clone(),
        ),
        (
            Method::POST,
            "/v1/pools/unknown/assign".to_owned(),
            json!({}),
        ),
    ];
    calls.extend([
        (Method::POST, "/app/token".to_owned(), Value::Null),
        (Method::POST, "/app/valid".to_owned(), token.clone()),
        (Method::GET, "/app/valid/a".to_owned(), Value::Null),
        (
            Method::DELETE,
            "/app/clear/all/tokens".to_owned(),
            Value::Null,
        ),
    ]);
    for prefix in ["/tokens", "/v1/pools/seats"] {
        for verb in ["assign", "keep-alive", "unblock", "inspect"] {
            calls.push((Method::POST, format!("{prefix}/{verb}"), token.clone()));
        }
        calls.push((
            Method::POST,
            format!("{prefix}/generate"),
            json!({"count": 1}),
        ));
    }
    calls
}

async fn send(server: &Server, (method, path, body): (Method, String, Value)) -> (String, Answer) {
    let mut request = server.request(method.clone(), &path);
    if !body.is_null() {
        request = request.json(&body);
    }
    (format!("{method} {path}"), answer(request).await)
}

/// All routes at once: what one of them waits for, they wait for together.
async fn send_all(server: &Server) -> Vec<(String, Answer)> {
    let calls = calls().into_iter().map(|call| send(server, call));
    futures_util::future::join_all(calls).await
}

async fn server(test: &str) -> Option<(OwnRedis, Server)> {
    let Some(redis) = OwnRedis::start(&[]).await else {
        skip(test, "no redis-server");
        return None;
    };
    let server = Server::on(Fixture::on(&redis.url).await).await;
    server.put("/v1/pools/seats", json!({})).await.json(201);
    server
        .seats("generate", json!({"tokens": ["a"]}))
        .await
        .json(201);
    Some((redis, server))
}

async fn until_unready(server: &Server) {
    eventually("it is not ready", async || {
        let ready = server.get("/readyz").await;
        ready.status == 503 && {
            let told = ready.problem("not-ready", 503);
            told["checks"]["redis"] == json!(false)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_every_route_says_so_and_recovers_by_itself() {
    let Some((mut redis, server)) = server("without_redis_every_route_says_so").await else {
        return;
    };
    redis.kill().await;
    until_unready(&server).await;
    // What was sent before the connection was known to be gone has an unknown outcome; nothing after it.
    eventually("the connection is known to be gone", async || {
        let refused = server.seats("assign", json!({})).await;
        refused.problem_kind() == "store-unavailable"
    })
    .await;
    for (what, refused) in send_all(&server).await {
        refused.problem("store-unavailable", 503);
        assert_eq!(refused.retry_after_s(), 1, "{what}");
        assert!(
            !refused.body.contains("127.0.0.1"),
            "{what} tells of our inside"
        );
    }
    assert_eq!(server.get("/livez").await.status, 200);
    let scraped = server.get("/metrics").await;
    assert_eq!(scraped.status, 200);
    assert!(
        !scraped.body.contains("tokend_pool_tokens{"),
        "a gap, not an old value"
    );
    // Mistakes of the caller are told all the same.
    server
        .post("/tokens/generate", json!({"count": 0}))
        .await
        .problem("invalid-request", 400);
    server.get("/nope").await.problem("not-found", 404);

    redis.restart(&[]).await;
    eventually("it is ready again", async || {
        server.get("/readyz").await.status == 200
    })
    .await;
    // This Redis came back empty.
    server
        .post("/tokens/generate", json!({"count": 1}))
        .await
        .json(201);
    server.post("/tokens/assign", json!({})).await.json(200);
    server
        .seats("assign", json!({}))
        .await
        .problem("pool-not-found", 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_is_answered_for_and_recovers_by_itself() {
    let Some((redis, server)) = server("a_frozen_redis_is_answered_for").await else {
        return;
    };
    let file = redis.dir.join("redis.pid");
    eventually("the pid file is written", async || {
        std::fs::read_to_string(&file).is_ok_and(|it| it.ends_with('\n'))
    })
    .await;
    let pid = redis.pid().await;
    signal(pid, "STOP");
    let answers = send_all(&server).await;
    until_unready(&server).await;
    let alive = server.get("/livez").await;
    signal(pid, "CONT");
    for (what, refused) in answers {
        let kind = refused.problem_kind();
        assert!(
            ["store-unavailable", "outcome-unknown"].contains(&kind.as_str()),
            "{what}: {kind}"
        );
        refused.problem(&kind, 503);
        if kind == "store-unavailable" {
            refused.retry_after_s();
        }
    }
    assert_eq!(alive.status, 200);
    eventually("it is ready again", async || {
        server.get("/readyz").await.status == 200
    })
    .await;
    let scraped = server.get("/metrics").await.body;
    assert!(
        scraped.contains(r#"tokend_store_errors_total{kind="unknown"} "#),
        "{scraped}"
    );
    server
        .post("/tokens/generate", json!({"count": 1}))
        .await
        .json(201);
}
