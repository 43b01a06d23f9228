//! Temporary tokens: every kind of wrong request, and what stands where a token should.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokend::token::{Flow, PoolName};

use super::mistakes::named;
use super::temporary::{kept, made, status_of};
use super::{Server, answer};

/// More than the longest body, 1 MiB.
const TOO_MANY_BYTES: usize = (1 << 20) + 1;

#[tokio::test(flavor = "multi_thread")]
async fn a_lifetime_is_a_json_integer_from_1_to_2592000() {
    let server = Server::start().await;
    let wrong = [
        "0",
        "-1",
        "-0",
        "0.5",
        "60.0",
        "1e3",
        "2592001",
        "99999999999999999999",
        "null",
        "true",
        "\"60\"",
        "[60]",
        "{}",
        "60, \"ttl_seconds\": 60",
    ];
    for value in wrong {
        let body = format!(r#"{{"ttl_seconds": {value}, "other": 1}}"#);
        for kind in ["application/json", "text/plain"] {
            let request = server.request(Method::POST, "/app/token");
            let request = request.header("content-type", kind).body(body.clone());
            let refused = answer(request).await;
            assert_eq!(named(&refused), ["ttl_seconds"], "{value}");
        }
    }
    let refused = server.post("/app/token?ttl_seconds=60", json!({})).await;
    assert_eq!(named(&refused), ["ttl_seconds"], "it belongs into the body");
    assert_eq!(kept(&server).await, 0, "nothing was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_a_mebibyte_is_refused_everywhere() {
    let server = Server::start().await;
    for path in ["/app/token", "/app/valid"] {
        let body = " ".repeat(TOO_MANY_BYTES);
        let request = server.request(Method::POST, path).body(body);
        answer(request).await.problem("payload-too-large", 413);
    }
    assert_eq!(kept(&server).await, 0);
    made(&server, " ".repeat(TOO_MANY_BYTES - 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_stands_in_the_path_is_valid_or_not_and_never_an_error() {
    let server = Server::start().await;
    let token = made(&server, "").await;
    let (digits, random) = token.split_once(':').expect("a colon");
    let last = random.char_indices().next_back().expect("not empty").0;
    let encoded: String = token.bytes().map(|b| format!("%{b:02x}")).collect();
    for good in [
        format!("{digits}%3A{random}"),
        format!("{digits}%3a{random}"),
        encoded,
        format!("{token}?x=1"),
        format!("{token}#part"),
    ] {
        let told = server.get(&format!("/app/valid/{good}")).await;
        assert!(status_of(&told), "{good}");
    }
    let long = "a".repeat(60_000);
    for bad in [
        "",
        "/",
        "a",
        "%",
        "%zz",
        "%ff",
        "%ED%A0%80",
        "%00",
        "%0A",
        "%2F",
        "a/b",
        ":",
        "%253A",
        "%C3%A9",
        "null",
        "true",
        "..",
        "token",
        "*",
        "{token}",
        random,
        digits,
        &random[..last],
        &long,
        &format!("{token}/"),
        &format!("/{token}"),
        &format!("{token}%20"),
        &format!("%20{token}"),
        &format!("{token}%00"),
        &format!("{digits}%253A{random}"),
        &format!("{digits}%ff{random}"),
        &format!("{digits}{random}"),
        &format!("000000:{random}0"),
        &token[..token.len() - 1],
        &token.to_uppercase(),
    ] {
        // By hand: a client mends some of these.
        let head = format!("GET /app/valid/{bad} HTTP/1.1\r\nhost: a\r\n\r\n");
        let told = server.exchange(head.as_bytes());
        assert!(told.starts_with("HTTP/1.1 200 "), "{bad}: {told}");
        let expected = r#"{"status_code":200,"status":false}"#;
        assert!(told.ends_with(expected), "{bad}: {told}");
    }
    let head = answer(server.request(Method::HEAD, &format!("/app/valid/{token}"))).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_a_body_is_valid_or_not_and_any_other_body_is_a_mistake() {
    let server = Server::start().await;
    let token = made(&server, "").await;
    let long = "é".repeat(100_000);
    for bad in [
        "",
        " ",
        "a",
        "\0",
        "\u{fffd}",
        "%3A",
        &long,
        &format!(" {token}"),
    ] {
        let told = server.post("/app/valid", json!({ "token": bad })).await;
        assert!(!status_of(&told));
    }
    for wrong in [
        json!(null),
        json!(7),
        json!(true),
        json!([token]),
        json!({}),
    ] {
        let refused = server.post("/app/valid", json!({ "token": wrong })).await;
        assert_eq!(named(&refused), ["token"], "{wrong}");
    }
    for (body, field) in [(json!({}), "token"), (json!({"token": token, "x": 1}), "x")] {
        assert_eq!(named(&server.post("/app/valid", body).await), [field]);
    }
    let empty = answer(server.request(Method::POST, "/app/valid")).await;
    assert_eq!(named(&empty), ["token"]);
    for body in [json!([token]), json!(token), json!(null)] {
        let refused = server.post("/app/valid", body).await;
        refused.problem("invalid-request", 400);
        assert!(!refused.body.contains(&token), "{}", refused.body);
    }
    let form = server
        .request(Method::POST, "/app/valid")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("token={token}"));
    answer(form).await.problem("unsupported-media-type", 415);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_told_which_are_allowed() {
    let server = Server::start().await;
    for (method, path, allow) in [
        (Method::GET, "/app/token", "POST, OPTIONS"),
        (Method::GET, "/app/valid", "POST, OPTIONS"),
        (Method::DELETE, "/app/valid/a", "GET, HEAD, OPTIONS"),
        (Method::GET, "/app/clear/all/tokens", "DELETE, OPTIONS"),
        (Method::POST, "/app/clear/all/tokens", "DELETE, OPTIONS"),
    ] {
        let refused = answer(server.request(method, path)).await;
        refused.problem("method-not-allowed", 405);
        assert_eq!(refused.header("allow"), Some(allow), "{path}");
    }
    assert_eq!(kept(&server).await, 0);
}

#[tokio::test]
async fn what_stands_beside_a_lifetime_is_not_looked_into_and_the_lifetime_is_not_dropped() {
    let server = Server::start().await;
    let make = async |body: &'static str| {
        let request = server.request(Method::POST, "/app/token").body(body);
        answer(request).await
    };
    for body in [
        r#"{"ttl_seconds": 5, "note": 1e400}"#,
        r#"{"ttl_seconds": 5, "note": "\ud800"}"#,
    ] {
        let made = make(body).await.json(200);
        let flow = PoolName::of_flow(Flow::Temporary);
        server.fixture.pass(&flow, Duration::from_secs(6)).await;
        let token = json!({"token": made["token"]});
        let told = server.post("/app/valid", token).await.json(200);
        assert_eq!(told["status"], false, "{body}");
    }
    let huge = make(r#"{"ttl_seconds": 1e400}"#).await;
    let told = huge.problem("invalid-request", 400);
    assert_eq!(told["errors"][0]["field"], "ttl_seconds");
}
