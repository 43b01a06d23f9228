//! The first row of the contract's table "Unified tokens".

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokend::store::StoreConfig;
use tokend::token::{Flow, Holder, PoolName};

use super::{Answer, Server, answer, flows};
use crate::harness::{Fixture, new_namespace};

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A new token for that user, after a look at the whole answer.
async fn issue(server: &Server, user: Option<&str>) -> Value {
    let mut request = server.request(Method::POST, "/token");
    if let Some(user) = user {
        request = request.header("user", user);
    }
    let told = answer(request).await;
    let body = told.json(200);
    let token = body["payload"]["token"].as_str().expect("a token");
    let url_safe = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    assert!(token.len() >= 32 && token.bytes().all(url_safe), "{token}");
    assert_eq!(told.header("cache-control"), Some("no-store"));
    let mut payload = json!({"token": token, "created": "<time>", "expires": "<time>"});
    if let Some(user) = user {
        payload["user"] = json!(user);
    }
    let expected = json!({"status": "200", "message": "Token created", "payload": payload});
    assert_eq!(told.shape(200), expected);
    body["payload"].clone()
}

fn time(value: &Value) -> Duration {
    let moment = humantime::parse_rfc3339(value.as_str().expect("a text")).expect("a time");
    moment
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lives_for_a_day_and_knows_whose_it_is() {
    let server = Server::start().await;
    let store = &server.fixture.store;
    for user in [
        None,
        Some("ann.o'neil+x@mail.example.com"),
        Some("svc@[::1]"),
    ] {
        let issued = issue(&server, user).await;
        assert_eq!(time(&issued["expires"]) - time(&issued["created"]), DAY);
        let token = issued["token"].as_str().expect("a token");
        let alive = store.inspect_opaque(Flow::Unified, token).await;
        let alive = alive.expect("inspect").expect("alive");
        assert_eq!(alive.subject.as_ref().map(Holder::as_str), user);
        let expires_ms = time(&issued["expires"]).as_millis();
        assert_eq!(u128::from(alive.expires_at_ms), expires_ms);
    }
    let issued = issue(&server, None).await;
    let token = issued["token"].as_str().expect("a token");
    let pool = PoolName::of_flow(Flow::Unified);
    server
        .fixture
        .pass(&pool, DAY - Duration::from_secs(60))
        .await;
    let seen = async || {
        store
            .inspect_opaque(Flow::Unified, token)
            .await
            .expect("inspect")
    };
    assert!(seen().await.is_some());
    server.fixture.pass(&pool, Duration::from_secs(61)).await;
    assert_eq!(seen().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_no_json_object_means_a_unified_token() {
    let server = Server::start().await;
    let rows = [
        ("", None),
        ("", Some("application/json")),
        ("", Some("text/plain")),
        ("user=ann", Some("application/x-www-form-urlencoded")),
        ("[]", Some("application/x-www-form-urlencoded")),
        (" ", None),
        ("hello", None),
        ("{", Some("text/plain")),
        ("\"{}\"", None),
    ];
    for (body, kind) in rows {
        let mut request = server.request(Method::POST, "/token").body(body);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let told = answer(request).await.json(200);
        assert_eq!(told["message"], "Token created", "{body} as {kind:?}");
    }
    // A body that says it is JSON is a mistake where it is none, whoever's it is.
    for body in ["[]", "null", "7", "{", " ", "a=b"] {
        let refused = server.json_text(Method::POST, "/token", body).await;
        refused.problem("invalid-request", 400);
        let request = server.request(Method::POST, "/token").body(body);
        let request = request.header("content-type", "application/json");
        let refused = answer(request.header("user", "ann@example.com")).await;
        refused.problem("invalid-request", 400);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_without_metadata_is_unified_where_a_user_is_named() {
    let server = Server::start().await;
    let send = |body: &'static str| {
        let request = server.request(Method::POST, "/token").body(body);
        answer(request.header("user", "ann@example.com"))
    };
    for body in ["{}", r#"{"metadata":{}}"#] {
        let told = send(body).await.json(200);
        assert_eq!(told["payload"]["user"], "ann@example.com", "{body}");
    }
    let told = send(r#"{"meta":{"a":1}}"#).await;
    assert_eq!(
        told.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    send(r#"{"meta":1}"#).await.problem("invalid-metadata", 422);
}

/// Answers that are no problems of the common form.
async fn own_shape(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.text().await.expect("a body"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_is_none_is_refused_in_a_shape_of_its_own() {
    let server = Server::start().await;
    let long = format!("a@{}", "h".repeat(253));
    for user in [
        "", "ann", "@", "ann@", "@b", "a@b@c", "a b@c", "a@b c", "a@b\tc", "é@b", &long,
    ] {
        for body in ["", "{}"] {
            let request = server.request(Method::POST, "/token").body(body);
            let told = own_shape(request.header("user", user)).await;
            let body = told.json(400);
            assert_eq!(body["status"], "400", "{user}");
            let message = body["message"].as_str().expect("text");
            assert!(message.starts_with("User not valid"), "{message}");
            assert!(body.as_object().is_some_and(|it| it.len() == 2), "{body}");
            assert!(told.header("x-request-id").is_some());
        }
    }
    let request = server.request(Method::POST, "/token");
    let twice = request.header("user", "a@b").header("user", "a@b");
    assert_eq!(own_shape(twice).await.json(400)["status"], "400");
    let pool = PoolName::of_flow(Flow::Unified);
    let shown = server.fixture.store.show_pool(&pool).await.expect("show");
    assert_eq!(shown.map_or(0, |it| it.counts.held), 0, "none was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flow_is_full_until_one_is_gone() {
    let mut config: StoreConfig = Fixture::new().await.config.clone();
    config.key_prefix = new_namespace();
    config.flows.unified.max = 2;
    let server = Server::with(Fixture::with(config).await, flows()).await;
    for _ in 0..2 {
        issue(&server, None).await;
    }
    let full = answer(server.request(Method::POST, "/token")).await;
    full.problem("flow-full", 503);
    let pool = PoolName::of_flow(Flow::Unified);
    server
        .fixture
        .pass(&pool, DAY + Duration::from_secs(1))
        .await;
    issue(&server, None).await;
}
