//! One-time tokens: their secrets, their cap, and who may look at them.

use reqwest::Method;
use serde_json::json;
use tokend::flows::Flows;
use tokend::store::StoreConfig;
use tokend::token::rotating::key_id;

use super::one_time::{invalid, metadata};
use super::{Server, answer, flows, flows_of};
use crate::harness::Fixture;
use crate::raw::Key;

/// `SECRET_KEY` of so many secrets, each named by a letter.
fn secrets(letters: &str) -> Flows {
    let all: Vec<_> = letters.chars().map(secret).collect();
    flows_of([("SECRET_KEY", all.join(","))])
}

fn secret(letter: char) -> String {
    letter.to_string().repeat(40)
}

/// The id of the key that signed it.
fn signer(token: &str) -> &str {
    token.split('.').nth(1).expect("a key's id")
}

async fn beside(server: &Server, letters: &str) -> Server {
    Server::with(server.fixture.replica().await, secrets(letters)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_old_secret_gets_a_successor_of_the_new_one() {
    let old = Server::with(Fixture::new().await, secrets("o")).await;
    let new = beside(&old, "no").await;
    let first = old.issue(r#"{"a":1}"#).await;
    assert_eq!(signer(&first), key_id(secret('o').as_bytes()));
    let (second, meta) = new.turn_in(&first).await.ok();
    assert_eq!(signer(&second), key_id(secret('n').as_bytes()));
    assert_eq!(meta, metadata(r#"{"a":1}"#));
    // Whoever does not know a secret knows nothing of its tokens.
    assert_eq!(old.turn_in(&second).await, invalid());
    old.drop_token(&second).await;
    new.turn_in(&second).await.ok();
    let last = beside(&old, "n").await;
    assert_eq!(last.turn_in(&old.issue("{}").await).await, invalid());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_a_secret_is_rolled_out() {
    let first = Server::with(Fixture::new().await, secrets("o")).await;
    let mut token = first.issue("{}").await;
    // The new secret is added behind the old one, then put first; each time both kinds of replica run.
    let mut servers = vec![first];
    for letters in ["on", "no"] {
        let next = beside(&servers[0], letters).await;
        servers.push(next);
        let pair = &servers[servers.len() - 2..];
        for server in [&pair[0], &pair[1], &pair[0], &pair[0], &pair[1]] {
            (token, _) = server.turn_in(&token).await.ok();
            server.turn_in(&server.issue("{}").await).await.ok();
        }
    }
    assert_eq!(signer(&token), key_id(secret('n').as_bytes()));
    let last = beside(&servers[0], "n").await;
    last.turn_in(&token).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_in_redis_is_a_token() {
    let server = Server::start().await;
    let mut hidden = vec!["SECRET_KEY".repeat(32)];
    for n in 0..5 {
        let first = server.issue(&format!(r#"{{"n":{n}}}"#)).await;
        let (second, _) = server.turn_in(&first).await.ok();
        let user = server
            .request(Method::POST, "/token")
            .header("user", "ann@example.com");
        let unified = answer(user).await.json(200);
        let unified = unified["payload"]["token"].as_str().expect("a token");
        for token in [&first, &second] {
            let (_, signature) = token.rsplit_once('.').expect("a signature");
            hidden.push(signature.to_owned());
        }
        hidden.extend([first, second, unified.to_owned()]);
    }
    let (_, keys) = server.fixture.dump().await;
    let mut texts: Vec<Vec<u8>> = keys.keys().map(|name| name.clone().into_bytes()).collect();
    texts.extend(keys.values().flat_map(Key::bytes));
    let has = |needle: &str| {
        let windows = |text: &Vec<u8>| text.windows(needle.len()).any(|it| it == needle.as_bytes());
        texts.iter().any(windows)
    };
    assert!(has("ann@example.com"), "the dump shows what is there");
    for secret in hidden {
        assert!(!has(&secret), "{secret} is in Redis");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_secret_the_flow_is_off_and_names_the_variable() {
    let token = Server::start().await.issue("{}").await;
    let flows = flows_of([("DUMP", "true".to_owned())]);
    let server = Server::with(Fixture::new().await, flows).await;
    for (method, body) in [
        (Method::POST, json!({"meta": {}})),
        (Method::POST, json!({"meta": 1})),
        (Method::POST, json!({})),
        (Method::PUT, json!({"token": token})),
        (Method::PUT, json!({})),
        (Method::DELETE, json!({"token": token})),
    ] {
        let off = server.json_text(method, "/token", body.to_string()).await;
        let told = off.problem("flow-off", 503);
        let detail = told["detail"].as_str().expect("text");
        assert!(detail.contains("SECRET_KEY"), "{detail}");
    }
    let off = answer(server.request(Method::HEAD, "/dump")).await;
    assert_eq!(off.status, 503);
    let unified = answer(server.request(Method::POST, "/token")).await;
    assert_eq!(unified.status, 200, "which needs no secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flow_is_full_until_one_is_gone() {
    let mut config: StoreConfig = Fixture::new().await.config.clone();
    config.key_prefix = crate::harness::new_namespace();
    config.flows.one_time.max = 4;
    let server = Server::with(Fixture::with(config).await, flows()).await;
    let mut tokens = Vec::new();
    for _ in 0..4 {
        tokens.push(server.issue("{}").await);
    }
    let full = server.post("/token", json!({"meta": {}})).await;
    full.problem("flow-full", 503);
    // A successor takes its predecessor's place.
    let (last, _) = server.turn_in(&tokens[0]).await.ok();
    server.drop_token(&last).await;
    server.issue("{}").await;
    let full = server.post("/token", json!({"meta": {}})).await;
    full.problem("flow-full", 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_is_there_only_where_it_is_asked_for() {
    let methods = ["HEAD", "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
    let methods = methods.map(|name| Method::from_bytes(name.as_bytes()).expect("a method"));
    let off = Server::start().await;
    for method in &methods {
        let told = answer(off.request(method.clone(), "/dump")).await;
        assert_eq!(told.status, 404, "{method}");
    }
    let flows = flows_of([("DUMP", "true".to_owned()), ("SECRET_KEY", secret('a'))]);
    let on = Server::with(Fixture::new().await, flows).await;
    on.issue(r#"{"a":1}"#).await;
    for method in &methods {
        let told = answer(on.request(method.clone(), "/dump")).await;
        match *method {
            Method::HEAD => assert_eq!((told.status, told.body.as_str()), (202, "")),
            Method::OPTIONS => assert_eq!((told.status, told.body.as_str()), (204, "")),
            _ => {
                told.problem("method-not-allowed", 405);
                assert_eq!(told.header("allow"), Some("HEAD, OPTIONS"), "{method}");
            }
        }
    }
}
