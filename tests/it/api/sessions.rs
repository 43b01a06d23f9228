//! Sessions: login, refresh, logout, validate, revoke, as the contract has them.

use std::time::Duration;

use serde_json::{Value, json};

use super::ann::{PASSWORD, PAST_RETRY, Tokens};
use super::{Answer, Server, flows_with};
use crate::harness::Fixture;

/// The detail and all else of a problem but its request id.
fn without_id(mut problem: Value) -> Value {
    problem["request_id"].take();
    problem
}

fn assert_challenge(answer: &Answer, error: Option<&str>) {
    let told = answer.header("www-authenticate").expect("a challenge");
    assert!(told.starts_with("Bearer realm=\"tokend\""), "{told}");
    let code = error.map(|error| format!("error=\"{error}\""));
    match code {
        Some(code) => assert!(told.contains(&code), "{told}"),
        None => assert!(!told.contains("error"), "{told}"),
    }
}

#[tokio::test]
async fn a_login_brings_tokens_that_say_who_it_was() {
    let server = Server::with_ann().await;
    let tokens = server.login().await;
    let month_s = 30 * 24 * 3_600;
    assert!((month_s - 5..=month_s).contains(&tokens.refresh_expires_in));
    let told = server.validate(&tokens.access).await;
    assert_eq!(told["valid"], true);
    let claims = &told["claims"];
    assert_eq!(claims["iss"], "http://tokend.test");
    assert_eq!(claims["sub"], "ann");
    assert_eq!(claims["aud"], "tokend");
    let at = |name: &str| claims[name].as_u64().expect("seconds");
    assert_eq!(at("exp") - at("iat"), 900);
    assert!(claims["jti"].is_string());
    let sid = claims["sid"].as_str().expect("a session");
    let parts: Vec<_> = tokens.refresh.split('.').collect();
    assert_eq!(sid, format!("{}.{}", parts[0], parts[2]));
    let second = server.login().await;
    let other = server.validate(&second.access).await;
    assert!(other["claims"]["sid"] != sid && other["claims"]["jti"] != claims["jti"]);
}

#[tokio::test]
async fn an_unknown_user_and_a_wrong_password_get_the_same_answer() {
    let server = Server::with_ann().await;
    let mut answers = Vec::new();
    for (user, password) in [
        ("ann", "wrong"),
        ("bob", "wrong"),
        ("bob", PASSWORD),
        // Names that nobody can have.
        ("a:b", PASSWORD),
        ("", ""),
        (" ann", PASSWORD),
        ("ann", ""),
    ] {
        let answer = server.try_login(user, password).await;
        assert_challenge(&answer, None);
        answers.push(without_id(answer.problem("invalid-credentials", 401)));
    }
    for answer in &answers {
        assert_eq!(*answer, answers[0]);
    }
}

#[tokio::test]
async fn mistakes_of_form_are_named() {
    let server = Server::start().await;
    let cases = [
        ("/auth/login", json!({}), &["username", "password"][..]),
        ("/auth/login", json!({"username": "a"}), &["password"]),
        (
            "/auth/login",
            json!({"username": 1, "password": null}),
            &["username", "password"],
        ),
        (
            "/auth/login",
            json!({"username": "a", "password": "b", "user": 1}),
            &["user"],
        ),
        ("/auth/refresh", json!({}), &["refresh_token"]),
        (
            "/auth/refresh",
            json!({"refresh_token": 7}),
            &["refresh_token"],
        ),
        (
            "/auth/refresh",
            json!({"refreshToken": null}),
            &["refreshToken"],
        ),
        (
            "/auth/refresh",
            json!({"refreshToken": "a", "refresh_token": "a"}),
            &["refreshToken"],
        ),
        ("/auth/logout", json!({}), &["refresh_token"]),
        (
            "/auth/logout",
            json!({"refreshToken": "a", "refresh_token": "a"}),
            &["refreshToken"],
        ),
        ("/token/validate", json!({}), &["token"]),
        ("/token/validate", json!({"token": ["a"]}), &["token"]),
        ("/token/revoke", json!({"tokn": "a"}), &["token", "tokn"]),
    ];
    for (path, body, fields) in cases {
        let problem = server
            .post(path, body)
            .await
            .problem("invalid-request", 400);
        let errors = problem["errors"].as_array().expect("errors");
        let named: Vec<_> = errors.iter().map(|e| e["field"].as_str()).collect();
        let expected: Vec<_> = fields.iter().map(|field| Some(*field)).collect();
        assert_eq!(named, expected, "{path}");
    }
    for path in [
        "/auth/login",
        "/auth/refresh",
        "/auth/logout",
        "/token/validate",
        "/token/revoke",
    ] {
        let form = server.request(reqwest::Method::POST, path).body("a=b");
        super::answer(form)
            .await
            .problem("unsupported-media-type", 415);
        let with_query = server.post(&format!("{path}?token=a"), json!({})).await;
        with_query.problem("invalid-request", 400);
        server.get(path).await.problem("method-not-allowed", 405);
    }
}

#[tokio::test]
async fn a_refresh_rotates_and_a_retry_gets_the_same_successor() {
    let server = Server::with_ann().await;
    let first = server.login().await;
    let second = server.refresh(&first.refresh).await;
    assert_ne!(second.refresh, first.refresh);
    let retried = server.refresh(&first.refresh).await;
    assert_eq!(retried.refresh, second.refresh);
    assert!(server.is_valid(&retried.access).await && server.is_valid(&first.access).await);
    let older = json!({ "refreshToken": second.refresh });
    let third = Tokens::of(&server.post("/auth/refresh", older).await);
    assert!(third.refresh != second.refresh && server.is_valid(&third.access).await);
}

#[tokio::test]
async fn what_is_no_refresh_token_is_told_so() {
    let server = Server::with_ann().await;
    let tokens = server.login().await;
    let last = tokens.refresh.len() - 1;
    for bad in [
        "",
        "x",
        "1.2.3.4.5",
        &tokens.access,
        &tokens.refresh[..last],
        &tokens.refresh.replacen('.', "..", 1),
        &"x".repeat(100_000),
    ] {
        let answer = server.try_refresh(bad).await;
        answer.problem("invalid-grant", 401);
        assert_challenge(&answer, Some("invalid_token"));
        server.logout(bad).await;
        assert_eq!(server.revoke(bad).await["revoked"], bad == tokens.access);
    }
}

#[tokio::test]
async fn a_used_token_after_the_time_for_retries_revokes_the_family() {
    let server = Server::with_ann().await;
    let first = server.login().await;
    let second = server.refresh(&first.refresh).await;
    let other = server.login().await;
    server.fixture.pass_sessions(PAST_RETRY).await;
    let answer = server.try_refresh(&first.refresh).await;
    answer.problem("token-reused", 401);
    assert_challenge(&answer, Some("invalid_token"));
    server
        .try_refresh(&second.refresh)
        .await
        .problem("invalid-grant", 401);
    server
        .try_refresh(&first.refresh)
        .await
        .problem("invalid-grant", 401);
    assert!(!server.is_valid(&first.access).await && !server.is_valid(&second.access).await);
    assert!(
        server.is_valid(&other.access).await,
        "another session goes on"
    );
    server.refresh(&other.refresh).await;
}

#[tokio::test]
async fn a_session_ends_its_lifetime_after_the_login_however_often_it_was_refreshed() {
    let server = Server::with_ann().await;
    let day = Duration::from_secs(24 * 3_600);
    let mut tokens = server.login().await;
    for days_left in (1..=29).rev().step_by(7) {
        let passed = tokens.refresh_expires_in.div_ceil(24 * 3_600) - days_left;
        server.fixture.pass_sessions(day * passed as u32).await;
        tokens = server.refresh(&tokens.refresh).await;
        let left_s = days_left * 24 * 3_600;
        assert!(
            (left_s - 60..=left_s).contains(&tokens.refresh_expires_in),
            "{tokens:?}"
        );
    }
    server.fixture.pass_sessions(day).await;
    server
        .try_refresh(&tokens.refresh)
        .await
        .problem("invalid-grant", 401);
    assert!(!server.is_valid(&tokens.access).await);
}

#[tokio::test]
async fn a_logout_takes_any_token_of_the_session_and_says_nothing() {
    let server = Server::with_ann().await;
    for spelling in ["refresh_token", "refreshToken"] {
        let first = server.login().await;
        let second = server.refresh(&first.refresh).await;
        let third = server.refresh(&second.refresh).await;
        // A stale one of long ago: whoever has it is whoever logged in.
        let answer = server
            .post("/auth/logout", json!({ spelling: first.refresh }))
            .await;
        assert_eq!((answer.status, answer.body.as_str()), (204, ""));
        assert!(!server.is_valid(&third.access).await);
        server
            .try_refresh(&third.refresh)
            .await
            .problem("invalid-grant", 401);
        server.logout(&first.refresh).await;
    }
}

#[tokio::test]
async fn revoke_says_whether_there_was_something() {
    let server = Server::with_ann().await;
    let tokens = server.login().await;
    assert_eq!(
        server.revoke(&tokens.access).await,
        json!({"revoked": true})
    );
    assert_eq!(
        server.revoke(&tokens.access).await,
        json!({"revoked": false})
    );
    assert_eq!(
        server.revoke(&tokens.refresh).await,
        json!({"revoked": false})
    );
    server
        .try_refresh(&tokens.refresh)
        .await
        .problem("invalid-grant", 401);
    let first = server.login().await;
    let second = server.refresh(&first.refresh).await;
    assert_eq!(
        server.revoke(&first.refresh).await,
        json!({"revoked": true})
    );
    assert!(!server.is_valid(&second.access).await);
    assert_eq!(server.revoke("unknown").await, json!({"revoked": false}));
}

#[tokio::test]
async fn sessions_that_are_off_name_their_variable() {
    for (missing, told) in [
        (
            "REFRESH_TOKEN_SECRET",
            "REFRESH_TOKEN_SECRET, which is not set",
        ),
        (
            "JWT_SECRET",
            "JWT_PRIVATE_KEY_FILE (or JWT_SECRET), which is not set",
        ),
    ] {
        let fixture = Fixture::new().await;
        let server = Server::with_flows(fixture, |_| flows_with(&[(missing, "")])).await;
        let credentials = json!({"username": "a", "password": "b"});
        let calls = [
            ("/auth/login", credentials),
            ("/auth/refresh", json!({"refresh_token": "a"})),
            ("/auth/logout", json!({"refresh_token": "a"})),
            ("/token/validate", json!({"token": "a"})),
            ("/token/revoke", json!({"token": "a"})),
        ];
        for (path, body) in calls {
            let problem = server.post(path, body).await.problem("flow-off", 503);
            let detail = problem["detail"].as_str().expect("text");
            assert!(detail.contains(told), "{detail}");
        }
        let keys = server.get("/.well-known/jwks.json").await.json(200);
        assert_eq!(keys, json!({"keys": []}));
    }
}
