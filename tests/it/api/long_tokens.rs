//! Tokens as long as JWTs and cookies: 4,096 bytes.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokend::token::TOKEN_BYTES_MAX;

use super::Server;

/// A token as long as may be.
fn long(n: usize) -> String {
    let head = format!("eyJhbGciOiJFZERTQSJ9.{n}.");
    let rest = "x".repeat(TOKEN_BYTES_MAX - head.len());
    head + &rest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_4096_bytes_goes_through_its_life() {
    let server = Server::with_seats(json!({"cooldown": 600}), &[&long(0)]).await;
    let grant = server.grant().await;
    let named = json!({"token": long(0), "fence": grant["fence"]});
    assert_eq!(grant["token"], long(0));
    server.seats("keep-alive", named.clone()).await.json(200);
    let seen = server
        .seats("inspect", json!({"token": long(0)}))
        .await
        .json(200);
    assert_eq!(
        (&seen["token"], &seen["state"]),
        (&json!(long(0)), &json!("held"))
    );
    server.seats("unblock", named).await.json(200);
    let refused = server.seats("assign", json!({"token": long(0)})).await;
    refused.problem("not-free", 409);
    let again = server
        .seats("generate", json!({"tokens": [long(0), long(1)]}))
        .await
        .json(201);
    assert_eq!(again, json!({"tokens": [long(1)], "existing": 1}));
    // In a query, each byte escaped as clients may do it.
    let escaped: String = long(0).bytes().map(|b| format!("%{b:02X}")).collect();
    let path = format!("/v1/pools/seats/delete?token={escaped}");
    server.delete(&path).await.json(200);
    let longer = long(2) + "x";
    for verb in ["inspect", "unblock", "delete"] {
        let refused = server.seats(verb, json!({ "token": longer })).await;
        refused.problem("invalid-request", 400);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_over_the_limit_of_a_body_is_told_to_come_in_parts() {
    let server = Server::with_seats(json!({}), &[]).await;
    let tokens: Vec<_> = (0..300).map(long).collect();
    let refused = server.seats("generate", json!({ "tokens": tokens })).await;
    let body = refused.problem("payload-too-large", 413);
    let detail = body["detail"].as_str().expect("text");
    assert!(detail.contains("several requests"), "{detail}");
    for part in tokens.chunks(250) {
        server
            .seats("generate", json!({ "tokens": part }))
            .await
            .json(201);
    }
    let shown = server.get("/v1/pools/seats").await.json(200);
    assert_eq!(shown["total"], 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_over_long_tokens_shows_each_and_its_cursors_show_none() {
    let policy = json!({"max_tokens": 10_000});
    let server = Server::with_seats(policy, &[]).await;
    let tokens: Vec<_> = (0..1_200).map(long).collect();
    for part in tokens.chunks(200) {
        server
            .seats("generate", json!({ "tokens": part }))
            .await
            .json(201);
    }
    for limit in [1_000, 1] {
        let (mut seen, mut pages, mut cursor) = (BTreeSet::new(), 0, String::new());
        loop {
            let path = format!("/v1/pools/seats/tokens?limit={limit}{cursor}");
            let page = server.get(&path).await.json(200);
            let shown = page["tokens"].as_array().expect("a list");
            seen.extend(shown.iter().map(|it| it["token"].to_string()));
            pages += 1;
            let Some(next) = page["cursor"].as_str() else {
                break;
            };
            assert!(next.len() < 100 && !next.contains("65794a"), "{next}");
            cursor = format!("&cursor={next}");
            if limit == 1 && pages == 50 {
                break;
            }
        }
        assert!(limit == 1 || seen.len() == 1_200, "{} shown", seen.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_at_once_get_long_tokens_each_its_own() {
    let server = Server::with_seats(json!({}), &[]).await;
    let tokens: Vec<_> = (0..240).map(long).collect();
    server
        .seats("generate", json!({ "tokens": tokens }))
        .await
        .json(201);
    let grants = (0..240).map(|_| server.grant());
    let grants: Vec<Value> = futures_util::future::join_all(grants).await;
    let granted: BTreeSet<_> = grants.iter().map(|it| it["token"].to_string()).collect();
    assert_eq!(granted.len(), 240);
    let releases = grants.iter().map(async |grant| {
        let named = json!({"token": grant["token"], "fence": grant["fence"]});
        server.seats("unblock", named).await.json(200)
    });
    futures_util::future::join_all(releases).await;
    let shown = server.get("/v1/pools/seats").await.json(200);
    assert_eq!(shown["free"], 240);
}
