//! `Idempotency-Key` over HTTP.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Answer, Server, answer};

async fn keyed(server: &Server, verb: &str, key: &str, body: Value) -> Answer {
    let request = server.request(Method::POST, &format!("/v1/pools/seats/{verb}"));
    answer(request.header("Idempotency-Key", key).json(&body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_assign_finds_the_grant_as_it_is_now() {
    let server = Server::with_seats(json!({"lifetime": 600}), &["a", "b"]).await;
    let asked = json!({"holder": "pod-1"});
    let first = keyed(&server, "assign", "k", asked.clone()).await.json(200);
    let again = keyed(&server, "assign", "k", asked.clone()).await.json(200);
    for member in ["token", "fence", "expires_at", "holder"] {
        assert_eq!(first[member], again[member], "{member}");
    }
    assert_eq!(first["expires_in"], 600);
    let left = again["expires_in"].as_f64().expect("seconds");
    assert!(left <= 600.0, "{left}");

    let extended = json!({"token": first["token"], "lifetime": 3_600});
    server.seats("keep-alive", extended).await.json(200);
    let now = keyed(&server, "assign", "k", asked).await.json(200);
    assert_eq!(now["fence"], first["fence"]);
    assert!(now["expires_in"].as_f64() > Some(600.0), "{now}");
    let shown = server.get("/v1/pools/seats").await.json(200);
    assert_eq!((&shown["free"], &shown["held"]), (&json!(1), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_assign_whose_lease_has_ended_is_told_so() {
    let server = Server::with_seats(json!({}), &["a"]).await;
    let first = keyed(&server, "assign", "k", json!({})).await.json(200);
    let named = json!({"token": "a", "fence": first["fence"]});
    server.seats("unblock", named).await.json(200);
    let ended = keyed(&server, "assign", "k", json!({})).await;
    ended.problem("lease-lost", 409);
    // Another caller's lease of the same token is not that one.
    server.grant().await;
    let ended = keyed(&server, "assign", "k", json!({})).await;
    ended.problem("lease-lost", 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_generate_finds_the_first_calls_tokens() {
    let server = Server::with_seats(json!({}), &[]).await;
    let first = keyed(&server, "generate", "k", json!({"count": 3})).await;
    let again = keyed(&server, "generate", "k", json!({"count": 3})).await;
    assert_eq!(first.json(201), again.json(201));
    let values = json!({"tokens": ["x", "y"]});
    let first = keyed(&server, "generate", "import", values.clone()).await;
    let again = keyed(&server, "generate", "import", values).await;
    let expected = json!({"tokens": ["x", "y"], "existing": 0});
    assert_eq!(first.json(201), expected);
    assert_eq!(again.json(201), expected);
    let shown = server.get("/v1/pools/seats").await.json(200);
    assert_eq!(shown["total"], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_belongs_to_one_request_of_a_verb_and_a_pool() {
    let server = Server::with_seats(json!({}), &["a", "b", "c"]).await;
    keyed(&server, "assign", "k", json!({"holder": "x"}))
        .await
        .json(200);
    for other in [
        json!({}),
        json!({"holder": "y"}),
        json!({"holder": "x", "lifetime": 5}),
        json!({"holder": "x", "token": "a"}),
    ] {
        let refused = keyed(&server, "assign", "k", other).await;
        refused.problem("idempotency-mismatch", 422);
    }
    keyed(&server, "generate", "k", json!({"count": 1}))
        .await
        .json(201);
    for other in [json!({"count": 2}), json!({"tokens": ["z"]})] {
        let refused = keyed(&server, "generate", "k", other).await;
        refused.problem("idempotency-mismatch", 422);
    }
    server.put("/v1/pools/rooms", json!({})).await.json(201);
    let request = server.request(Method::POST, "/v1/pools/rooms/generate");
    let elsewhere = answer(
        request
            .header("Idempotency-Key", "k")
            .json(&json!({"count": 5})),
    )
    .await;
    let tokens = elsewhere.json(201)["tokens"].clone();
    assert_eq!(tokens.as_array().map(Vec::len), Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_successes_are_remembered() {
    let server = Server::with_seats(json!({"max_tokens": 2}), &[]).await;
    let none = keyed(&server, "assign", "k", json!({})).await;
    none.problem("no-token-available", 404);
    let full = keyed(&server, "generate", "k", json!({"count": 3})).await;
    full.problem("pool-full", 409);
    keyed(&server, "generate", "k", json!({"count": 2}))
        .await
        .json(201);
    let granted = keyed(&server, "assign", "k", json!({})).await.json(200);
    let other = server.grant().await;
    assert_ne!(granted["token"], other["token"]);
}
