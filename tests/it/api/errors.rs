//! The rows of the contract's table "Errors" that the pool flow can produce, and their pages.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokend::http::problem::Slug;

use super::{Server, answer};
use crate::harness::pool;

/// Most bytes of a body.
const BODY_BYTES_MAX: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_problem_has_a_page() {
    let server = Server::start().await;
    let index = server.get("/problems").await;
    for slug in Slug::ALL {
        let path = format!("/problems/{}", slug.as_str());
        let page = server.get(&path).await;
        assert_eq!(page.status, 200, "{path}");
        assert_eq!(
            page.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        assert!(page.body.contains(slug.title()), "{path}");
        let status = slug.status().as_u16().to_string();
        assert!(page.body.contains(&status), "{path}");
        assert!(index.body.contains(&format!("href=\"{path}\"")), "{path}");
    }
    server.get("/problems/nope").await.problem("not-found", 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_to_assign_says_when_to_come_back() {
    let server = Server::with_seats(json!({"lifetime": 30, "cooldown": 90}), &[]).await;
    let empty = server.seats("assign", json!({})).await;
    empty.problem("no-token-available", 404);
    assert_eq!(
        empty.header("retry-after"),
        None,
        "an empty pool gives no hint"
    );

    server
        .seats("generate", json!({"tokens": ["a", "b"]}))
        .await
        .json(201);
    let soon = json!({"lifetime": 9.2});
    let first = server.seats("assign", soon).await.json(200);
    server.grant().await;
    let held = server.seats("assign", json!({})).await;
    held.problem("no-token-available", 404);
    let hint = held.retry_after_s();
    assert!(
        (1..=10).contains(&hint),
        "{hint}: the first of the two can lapse in 9.2 s"
    );

    let back = json!({"token": first["token"]});
    server.seats("unblock", back).await.json(200);
    let cooling = server.seats("assign", json!({})).await;
    cooling.problem("no-token-available", 404);
    let hint = cooling.retry_after_s();
    assert!(
        (31..=90).contains(&hint),
        "{hint}: a cooling one counts before a held one"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_there_is_not_found_by_any_verb() {
    let server = Server::with_seats(json!({}), &["a"]).await;
    for verb in ["assign", "keep-alive", "unblock", "delete", "inspect"] {
        let refused = server.seats(verb, json!({"token": "x"})).await;
        refused.problem("token-not-found", 404);
    }
    // Before lease-lost.
    for verb in ["keep-alive", "unblock"] {
        let refused = server.seats(verb, json!({"token": "x", "fence": 7})).await;
        refused.problem("token-not-found", 404);
    }
    let refused = server.delete("/v1/pools/seats/delete?token=x").await;
    refused.problem("token-not-found", 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_not_there_is_not_found_by_any_route() {
    let server = Server::start().await;
    for verb in ["assign", "keep-alive", "unblock", "delete", "inspect"] {
        let refused = server.seats(verb, json!({"token": "a"})).await;
        refused.problem("pool-not-found", 404);
    }
    let refused = server.seats("generate", json!({"count": 1})).await;
    refused.problem("pool-not-found", 404);
    for path in ["/v1/pools/seats", "/v1/pools/seats/tokens"] {
        server.get(path).await.problem("pool-not-found", 404);
    }
    let refused = server.delete("/v1/pools/seats").await;
    refused.problem("pool-not-found", 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_held_token_is_unblocked_and_a_cooling_one_not_kept_alive() {
    let server = Server::with_seats(json!({"cooldown": 60}), &["a"]).await;
    let named = json!({"token": "a"});
    server
        .seats("unblock", named.clone())
        .await
        .problem("not-held", 409);
    server.grant().await;
    server.seats("unblock", named.clone()).await.json(200);
    for verb in ["unblock", "keep-alive"] {
        server
            .seats(verb, named.clone())
            .await
            .problem("not-held", 409);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_token_that_is_not_free_says_when_it_may_be() {
    let server = Server::with_seats(json!({"lifetime": 20, "cooldown": 7}), &["a", "b"]).await;
    let named = json!({"token": "a"});
    server.seats("assign", named.clone()).await.json(200);
    let held = server.seats("assign", named.clone()).await;
    held.problem("not-free", 409);
    let hint = held.retry_after_s();
    assert!(
        (8..=27).contains(&hint),
        "{hint}: 20 s of lease and 7 s of cooling at the most"
    );
    server.seats("unblock", named.clone()).await.json(200);
    let cooling = server.seats("assign", named).await;
    cooling.problem("not-free", 409);
    let hint = cooling.retry_after_s();
    assert!((1..=7).contains(&hint), "{hint}");
    let other = server.grant().await;
    assert_eq!(other["token"], "b", "the other one is free as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_acts_on_its_own_grant_alone() {
    let server = Server::with_seats(json!({"cooldown": 5}), &["a"]).await;
    let lost = async |fence: &Value| {
        for verb in ["keep-alive", "unblock"] {
            let named = json!({"token": "a", "fence": fence});
            server.seats(verb, named).await.problem("lease-lost", 409);
        }
    };
    lost(&json!(7)).await; // free, never granted
    let first = server.grant().await["fence"].clone();
    let later = json!(first.as_u64().expect("a number") + 1);
    lost(&later).await; // held under another
    server
        .seats("unblock", json!({"token": "a", "fence": first}))
        .await
        .json(200);
    lost(&first).await; // cooling: before not-held
    server
        .fixture
        .pass(&pool("seats"), Duration::from_secs(5))
        .await;
    let second = server.grant().await["fence"].clone();
    lost(&first).await; // held by the next one
    let kept = server
        .seats("keep-alive", json!({"token": "a", "fence": second}))
        .await;
    assert_eq!(kept.json(200)["state"], "held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_adds_nothing_and_says_how_full_it_is() {
    let server = Server::with_seats(json!({"max_tokens": 5}), &["a", "b", "c"]).await;
    server.grant().await;
    for body in [
        json!({"count": 3}),
        json!({"tokens": ["x", "y", "z"]}),
        json!({"count": 10_000}),
    ] {
        let refused = server
            .seats("generate", body)
            .await
            .problem("pool-full", 409);
        assert_eq!(
            (&refused["max_tokens"], &refused["total"]),
            (&json!(5), &json!(3))
        );
    }
    // What the pool has already takes no room.
    let fits = server
        .seats("generate", json!({"tokens": ["a", "b", "c", "x", "y"]}))
        .await;
    assert_eq!(fits.json(201)["tokens"], json!(["x", "y"]));
    let refused = server.seats("generate", json!({"count": 1})).await;
    assert_eq!(refused.problem("pool-full", 409)["total"], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn default_is_fixed() {
    let server = Server::start().await;
    let changed = server
        .put("/v1/pools/default", json!({"lifetime": 5}))
        .await;
    changed.problem("pool-fixed", 409);
    server
        .delete("/v1/pools/default")
        .await
        .problem("pool-fixed", 409);
    let shown = server.get("/v1/pools/default").await.json(200);
    assert_eq!(shown["lifetime"], 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_1_mib_is_too_large_however_it_is_sent() {
    let server = Server::with_seats(json!({}), &[]).await;
    let path = "/v1/pools/seats/generate";
    let send = |body: String| {
        let request = server.request(Method::POST, path).body(body);
        answer(request.header("content-type", "application/json"))
    };
    let padded = |bytes: usize| {
        let body = r#"{"tokens": ["a"]}"#;
        body.to_owned() + &" ".repeat(bytes - body.len())
    };
    let fits = send(padded(BODY_BYTES_MAX)).await;
    assert_eq!(fits.json(201)["tokens"], json!(["a"]));
    let declared = send(padded(BODY_BYTES_MAX + 1)).await;
    declared.problem("payload-too-large", 413);
    // In chunks, with no end in sight: it is refused with the byte that is one too many.
    let mut chunked = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let chunk = " ".repeat(1 << 16);
    for _ in 0..BODY_BYTES_MAX >> 16 {
        chunked.push_str(&format!("10000\r\n{chunk}\r\n"));
    }
    chunked.push_str("1\r\n \r\n");
    let told = server.exchange(chunked.as_bytes());
    assert!(told.starts_with("HTTP/1.1 413 "), "{told}");
    assert!(told.contains("/problems/payload-too-large"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_says_that_it_is_json_and_is_not_compressed() {
    let server = Server::with_seats(json!({}), &["a", "b", "c"]).await;
    let send = |kind: Option<&'static str>, coding: Option<&'static str>| {
        let mut request = server
            .request(Method::POST, "/v1/pools/seats/assign")
            .body("{}");
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        if let Some(coding) = coding {
            request = request.header("content-encoding", coding);
        }
        answer(request)
    };
    for kind in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data; boundary=x"),
        Some("text/json"),
        Some("nonsense"),
    ] {
        send(kind, None)
            .await
            .problem("unsupported-media-type", 415);
    }
    let compressed = send(Some("application/json"), Some("gzip")).await;
    compressed.problem("unsupported-media-type", 415);
    for kind in [
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/merge-patch+json",
    ] {
        send(Some(kind), None).await.json(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_method_is_told_the_right_ones_on_every_path() {
    let server = Server::with_seats(json!({}), &["a"]).await;
    let mut paths = vec![
        ("/tokens/delete".to_owned(), "DELETE"),
        ("/v1/pools/seats/delete".to_owned(), "POST, DELETE"),
        ("/v1/pools/seats".to_owned(), "GET, HEAD, PUT, DELETE"),
    ];
    for verb in ["assign", "unblock", "keep-alive", "inspect", "generate"] {
        paths.push((format!("/tokens/{verb}"), "POST"));
        paths.push((format!("/v1/pools/seats/{verb}"), "POST"));
    }
    for path in [
        "/v1/pools",
        "/v1/pools/seats/tokens",
        "/livez",
        "/readyz",
        "/metrics",
        "/problems",
        "/problems/internal",
    ] {
        paths.push((path.to_owned(), "GET, HEAD"));
    }
    for (path, allow) in paths {
        let with_options = format!("{allow}, OPTIONS");
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "BREW"] {
            if allow.split(", ").any(|allowed| allowed == method) {
                continue;
            }
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            let refused = answer(server.request(method.clone(), &path)).await;
            assert_eq!(refused.status, 405, "{method} {path}");
            assert_eq!(
                refused.header("allow"),
                Some(with_options.as_str()),
                "{method} {path}"
            );
            if method != Method::HEAD {
                refused.problem("method-not-allowed", 405);
            }
        }
        let options = answer(server.request(Method::OPTIONS, &path)).await;
        assert_eq!((options.status, options.body.as_str()), (204, ""), "{path}");
        assert_eq!(
            options.header("allow"),
            Some(with_options.as_str()),
            "{path}"
        );
    }
    let shown = server.get("/v1/pools/seats").await.json(200);
    assert_eq!(shown["free"], 1, "a GET or HEAD of assign is never a grant");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_route_is_a_problem_too() {
    let server = Server::start().await;
    for path in [
        "/tokens",
        "/tokens/assign/",
        "/v1",
        "/v1/",
        "/v1/pools/a/b",
        "/v1/pools/a/assign/x",
        "/Tokens/assign",
        "/%00",
    ] {
        for method in [Method::GET, Method::POST] {
            let refused = answer(server.request(method, path)).await;
            refused.problem("not-found", 404);
        }
    }
}
