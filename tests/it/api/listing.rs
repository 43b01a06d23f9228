//! `GET /v1/pools/{pool}/tokens`: who holds what, page by page.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::Server;

/// Walks all pages; answers each token with how often it was shown, and how many pages there were.
async fn walk(server: &Server, query: &str) -> (HashMap<String, u32>, usize) {
    let mut seen = HashMap::new();
    let mut path = format!("/v1/pools/seats/tokens?{query}");
    for pages in 1..1_000 {
        let page = server.get(&path).await.json(200);
        for token in page["tokens"].as_array().expect("a list") {
            let value = token["token"].as_str().expect("text").to_owned();
            *seen.entry(value).or_default() += 1;
        }
        let Some(cursor) = page["cursor"].as_str() else {
            return (seen, pages);
        };
        path = format!("/v1/pools/seats/tokens?{query}&cursor={cursor}");
    }
    panic!("the walk never ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_shows_each_of_2500_tokens_exactly_once() {
    let server = Server::with_seats(json!({}), &[]).await;
    let tokens: Vec<String> = (0..2_500).map(|n| format!("seat-{n}")).collect();
    server
        .seats("generate", json!({ "tokens": tokens }))
        .await
        .json(201);
    // The largest page, the usual one, and ones that end in the middle of what Redis gives at once.
    for query in ["limit=1000", "", "limit=333", "limit=7"] {
        let (seen, pages) = walk(&server, query).await;
        assert_eq!(seen.len(), 2_500, "{query}");
        let twice: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "{query}: shown more than once: {twice:?}");
        assert!(pages >= 3, "{query}: {pages} pages");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_by_state_shows_that_state_alone() {
    let server = Server::with_seats(json!({"cooldown": 60, "lifetime": 600}), &[]).await;
    server
        .seats("generate", json!({"count": 50}))
        .await
        .json(201);
    let mut held = Vec::new();
    for _ in 0..5 {
        let token = server.grant().await["token"]
            .as_str()
            .expect("text")
            .to_owned();
        held.push(token);
    }
    let cooling = held.split_off(3);
    for token in &cooling {
        server
            .seats("unblock", json!({ "token": token }))
            .await
            .json(200);
    }
    for (state, expected) in [("held", &held), ("cooling", &cooling)] {
        let (seen, _) = walk(&server, &format!("state={state}&limit=2")).await;
        let mut seen: Vec<_> = seen.into_keys().collect();
        let mut expected = expected.clone();
        seen.sort();
        expected.sort();
        assert_eq!(seen, expected, "{state}");
    }
    assert_eq!(walk(&server, "state=free").await.0.len(), 45);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_token_looks_as_inspected() {
    let server = Server::with_seats(json!({}), &["a"]).await;
    server
        .seats("assign", json!({"holder": "pod-1"}))
        .await
        .json(200);
    let page = server.get("/v1/pools/seats/tokens").await.json(200);
    let inspected = server
        .seats("inspect", json!({"token": "a"}))
        .await
        .json(200);
    assert_eq!(
        page,
        json!({ "tokens": [inspected] }),
        "and no cursor at the end"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_pool_is_one_empty_page() {
    let server = Server::with_seats(json!({}), &[]).await;
    let page = server.get("/v1/pools/seats/tokens").await.json(200);
    assert_eq!(page, json!({"tokens": Vec::<Value>::new()}));
}
