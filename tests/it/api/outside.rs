//! Wrong inputs outside the body: queries, headers, names in paths, and bytes that are no HTTP.

use reqwest::Method;
use serde_json::json;

use super::mistakes::named;
use super::{Server, answer};

#[tokio::test(flavor = "multi_thread")]
async fn queries_are_checked_like_bodies() {
    let server = Server::with_seats(json!({}), &["a"]).await;
    let listing = [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=abc", "limit"),
        ("limit=", "limit"),
        ("limit=-1", "limit"),
        ("limit=1.0", "limit"),
        ("limit=%2B5", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("state=bogus", "state"),
        ("state=", "state"),
        ("state=Free", "state"),
        ("cursor=bogus", "cursor"),
        ("cursor=", "cursor"),
        ("cursor=1.-1", "cursor"),
        ("cursor=99999999999999999999.0", "cursor"),
        ("page=2", "page"),
        ("limit=5&limit=6", "limit"),
        ("state=%zz", "query"),
        ("state=%ff", "query"),
    ];
    for (query, field) in listing {
        let refused = server.get(&format!("/v1/pools/seats/tokens?{query}")).await;
        assert_eq!(named(&refused), [field], "{query}");
    }
    // Where a query means nothing, an option in it must not be ignored without a word.
    for path in [
        "/v1/pools/seats/assign",
        "/tokens/generate",
        "/v1/pools/seats/inspect",
    ] {
        let refused = server
            .post(&format!("{path}?lifetime=5"), json!({"count": 1}))
            .await;
        assert_eq!(named(&refused), ["lifetime"], "{path}");
    }
    for path in ["/v1/pools", "/v1/pools/seats"] {
        assert_eq!(named(&server.get(&format!("{path}?x=1")).await), ["x"]);
    }
    let delete = "/v1/pools/seats/delete";
    for (query, field) in [
        ("token=", "token"),
        ("tokn=a", "tokn"),
        ("token=a&token=a", "token"),
        ("token=%00", "token"),
        ("", "token"),
    ] {
        let refused = server.delete(&format!("{delete}?{query}")).await;
        assert_eq!(named(&refused), [field], "{query}");
    }
    let both = server.request(Method::DELETE, &format!("{delete}?token=a"));
    assert_eq!(
        named(&answer(both.json(&json!({"token": "a"}))).await),
        ["token"]
    );
    let seen = server.seats("inspect", json!({"token": "a"})).await;
    assert_eq!(seen.json(200)["state"], "free");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_is_1_to_128_printable_characters_once() {
    let server = Server::with_seats(json!({}), &["a", "b"]).await;
    let longest = "k".repeat(128);
    let path = "/v1/pools/seats/assign";
    let too_long = "k".repeat(129);
    for key in ["", &too_long, "a\tb", "é"] {
        for path in [path, "/v1/pools/seats/generate"] {
            let request = server.request(Method::POST, path).json(&json!({}));
            let refused = answer(request.header("Idempotency-Key", key)).await;
            assert_eq!(named(&refused), ["Idempotency-Key"], "{key:?}");
        }
    }
    let twice = server
        .request(Method::POST, path)
        .header("Idempotency-Key", "a");
    let refused = answer(twice.header("Idempotency-Key", "b")).await;
    assert_eq!(named(&refused), ["Idempotency-Key"]);
    for key in [longest.as_str(), "a b~!"] {
        let request = server.request(Method::POST, path);
        answer(request.header("Idempotency-Key", key))
            .await
            .json(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_outside_the_pattern_is_no_pool() {
    let server = Server::start().await;
    let long = "a".repeat(64);
    for name in [
        "-a",
        "A",
        "a_b",
        "_one_time",
        "a.b",
        "%20",
        "a%2Fb",
        "%C3%A9",
        "%zz",
        "a%00",
        &long,
    ] {
        let made = server.put(&format!("/v1/pools/{name}"), json!({})).await;
        assert_eq!(named(&made), ["pool"], "{name}");
        for verb in [
            "assign",
            "generate",
            "inspect",
            "keep-alive",
            "unblock",
            "delete",
        ] {
            let body = json!({"token": "a", "count": 1});
            let refused = server.post(&format!("/v1/pools/{name}/{verb}"), body).await;
            refused.problem("pool-not-found", 404);
        }
        for path in [
            format!("/v1/pools/{name}"),
            format!("/v1/pools/{name}/tokens"),
        ] {
            server.get(&path).await.problem("pool-not-found", 404);
        }
        server
            .delete(&format!("/v1/pools/{name}"))
            .await
            .problem("pool-not-found", 404);
    }
    let longest = "0".repeat(63);
    for name in ["a", "0-", "a--b", &longest] {
        server
            .put(&format!("/v1/pools/{name}"), json!({}))
            .await
            .json(201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_http_are_refused_and_the_server_goes_on() {
    let server = Server::with_seats(json!({}), &["a"]).await;
    let long_head = format!("GET /livez HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(300_000));
    let two_lengths = "POST /v1/pools/seats/assign HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\ncontent-length: 2\r\n\r\n{}";
    let both = "POST /v1/pools/seats/assign HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ntransfer-encoding: x\r\n\r\n{}";
    for bytes in [
        "\x16\x03\x01 hello\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        &long_head,
        two_lengths,
        both,
    ] {
        let told = server.exchange(bytes.as_bytes());
        let status = told.get(9..12).unwrap_or_default();
        assert!(told.is_empty() || status.starts_with('4'), "{told}");
    }
    let seen = server.seats("inspect", json!({"token": "a"})).await;
    assert_eq!(seen.json(200)["state"], "free", "and no token was lost");
}
