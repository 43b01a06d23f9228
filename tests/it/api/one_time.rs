//! The rows of the contract's table "One-time tokens with metadata".

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use tokend::token::rotating::ROTATION_RETRY_DEFAULT;
use tokend::token::{Flow, METADATA_BYTES_MAX, Metadata, PoolName};

use super::mistakes::named;
use super::{Answer, Server, answer};

const HOUR: Duration = Duration::from_secs(3_600);

/// What `PUT /token` answers, each value of the metadata as its text.
#[derive(Debug, PartialEq, Deserialize)]
pub enum Exchange {
    Ok { token: String, meta: Metadata },
    Err(String),
}

impl Exchange {
    /// The successor and its metadata.
    pub fn ok(self) -> (String, Metadata) {
        match self {
            Self::Ok { token, meta } => (token, meta),
            Self::Err(why) => panic!("not exchanged: {why}"),
        }
    }
}

pub fn metadata(text: &str) -> Metadata {
    serde_json::from_str(text).expect("an object")
}

impl Server {
    /// A request with a body that says it is JSON.
    pub async fn json_text(&self, method: Method, path: &str, body: impl Into<String>) -> Answer {
        let request = self.request(method, path).body(body.into());
        answer(request.header("content-type", "application/json")).await
    }

    /// A new one-time token with that metadata.
    pub async fn issue(&self, meta: &str) -> String {
        let body = format!(r#"{{"meta":{meta}}}"#);
        let told = self.json_text(Method::POST, "/token", body).await;
        assert_eq!(told.status, 200, "{}", told.body);
        let kind = told.header("content-type");
        assert_eq!(kind, Some("text/plain; charset=utf-8"));
        assert_eq!(told.header("cache-control"), Some("no-store"));
        told.body
    }

    /// Exchanges a token, with metadata to merge.
    pub async fn exchange_with(&self, token: &str, meta: &str) -> Exchange {
        let body = format!(r#"{{"token":"{token}","meta":{meta}}}"#);
        exchanged(&self.json_text(Method::PUT, "/token", body).await)
    }

    /// Exchanges a token.
    pub async fn turn_in(&self, token: &str) -> Exchange {
        exchanged(&self.put("/token", json!({ "token": token })).await)
    }

    /// Deletes a token, which must be accepted.
    pub async fn drop_token(&self, token: &str) {
        let body = json!({ "token": token }).to_string();
        let told = self.json_text(Method::DELETE, "/token", body).await;
        assert_eq!((told.status, told.body.as_str()), (202, ""));
    }

    pub async fn pass_one_time(&self, by: Duration) {
        let pool = PoolName::of_flow(Flow::OneTime);
        self.fixture.pass(&pool, by).await;
    }
}

fn exchanged(told: &Answer) -> Exchange {
    assert_eq!(told.status, 200, "{}", told.body);
    assert_eq!(told.header("content-type"), Some("application/json"));
    assert_eq!(told.header("cache-control"), Some("no-store"));
    // Not as a `Value`, which has no number such as 1e400.
    serde_json::from_str(&told.body).expect("an exchange")
}

pub fn invalid() -> Exchange {
    Exchange::Err("InvalidToken".to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_exchanged_for_its_successor_once() {
    let server = Server::start().await;
    let first = server.issue(r#"{"user":"ann"}"#).await;
    assert!(first.len() > 43 && first.bytes().all(|b| b.is_ascii_graphic()));
    let (second, meta) = server.turn_in(&first).await.ok();
    assert_eq!(meta, metadata(r#"{"user":"ann"}"#));
    let (third, _) = server.turn_in(&second).await.ok();
    assert!(first != second && second != third);
    assert_eq!(server.turn_in(&first).await, invalid());
    server.turn_in(&third).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_asked_for_again_for_a_minute() {
    let server = Server::start().await;
    let first = server.issue(r#"{"n":0}"#).await;
    let told = server.exchange_with(&first, r#"{"n":1}"#).await;
    let again = server.exchange_with(&first, r#"{"n":2}"#).await;
    assert_eq!(again, told, "the retry's own metadata is ignored");
    server
        .pass_one_time(ROTATION_RETRY_DEFAULT - Duration::from_secs(1))
        .await;
    assert_eq!(
        server.exchange_with(&first, r#"{"n":3}"#).await,
        told,
        "nobody used the successor"
    );
    server.pass_one_time(Duration::from_millis(1_200)).await;
    assert_eq!(server.turn_in(&first).await, invalid());
    let (_, meta) = server.turn_in(&told.ok().0).await.ok();
    assert_eq!(meta, metadata(r#"{"n":1}"#), "nothing was revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_hangs_up_before_the_answer_is_not_stranded() {
    let server = Server::start().await;
    for _ in 0..20 {
        let first = server.issue("{}").await;
        let body = json!({ "token": first }).to_string();
        let head = "PUT /token HTTP/1.1\r\nhost: x\r\ncontent-type: application/json";
        let request = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let mut stream = TcpStream::connect(server.address).expect("it listens");
        stream.write_all(request.as_bytes()).expect("it reads");
        drop(stream);
        // Whether the first call ran, runs now, or never does.
        let (second, _) = server.turn_in(&first).await.ok();
        server.turn_in(&second).await.ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_parallel_exchanges_give_one_successor() {
    let server = Server::start().await;
    let first = server.issue("{}").await;
    let calls = (0..100).map(|n| {
        let (server, first) = (&server, &first);
        async move {
            server
                .exchange_with(first, &format!(r#"{{"n":{n}}}"#))
                .await
        }
    });
    let told = futures_util::future::join_all(calls).await;
    assert!(told.iter().all(|it| *it == told[0]), "{told:?}");
    let (successor, meta) = server
        .turn_in(&told.into_iter().next().expect("one").ok().0)
        .await
        .ok();
    assert_eq!(meta.len(), 1);
    server.turn_in(&successor).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_comes_back_byte_for_byte() {
    let server = Server::start().await;
    let thousand: Vec<_> = (0..1_000).map(|n| format!(r#""m{n}":{n}.0"#)).collect();
    let thousand = format!("{{{}}}", thousand.join(","));
    // As many as 64 KiB can have: names of 3 and 4 bytes, values of one.
    let most: Vec<_> = (0..7_300).map(|n| format!(r#""{n:x}":1"#)).collect();
    let most = format!("{{{}}}", most.join(","));
    let deep = format!(
        r#"{{"deep":{}1{}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    for meta in [
        "{}",
        r#"{"big":12345678901234567890,"huge":1e400,"tiny":-1E-999,"minus":-0.0,"precise":0.10000000000000000001}"#,
        r#"{"o":{},"a":[],"n":null,"t":true,"s":"","z":"\u0000"}"#,
        r#"{"nested":{"a":[1, 2.0,{"b" :  [ ] }],"a":"twice"}}"#,
        "{\"spaces\":{\n\t\"a\" : [ 1 ,\r\n 2 ] }}",
        r#"{"ünï":"é\u00e9 \ud83d\ude00 😀","lone":"\ud800"}"#,
        r#"{"":"empty","\"":"quote","\n":"newline","\u0000":"nul","\\":"backslash"," ":"space"}"#,
        &thousand,
        &most,
        &deep,
    ] {
        let first = server.issue(meta).await;
        let (second, told) = server.turn_in(&first).await.ok();
        assert_eq!(told, metadata(meta), "{meta}");
        let (_, told) = server.exchange_with(&second, meta).await.ok();
        assert_eq!(told, metadata(meta), "{meta}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_merged_shallowly_and_null_is_a_value() {
    let server = Server::start().await;
    let token = server.issue(r#"{"a":1,"b":{"x":1,"y":2}}"#).await;
    let (token, told) = server
        .exchange_with(&token, r#"{"b":{"z":3},"c":null}"#)
        .await
        .ok();
    assert_eq!(told, metadata(r#"{"a":1,"b":{"z":3},"c":null}"#));
    let (token, told) = server.exchange_with(&token, r#"{"a":null}"#).await.ok();
    assert_eq!(told, metadata(r#"{"a":null,"b":{"z":3},"c":null}"#));
    // None given, and none in what is given, both leave what is there.
    let (token, kept) = server.turn_in(&token).await.ok();
    assert_eq!(kept, told);
    let (_, kept) = server.exchange_with(&token, "{}").await.ok();
    assert_eq!(kept, told);
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_grows_past_64_kib_is_refused_and_the_token_stays_good() {
    let server = Server::start().await;
    let of = |name: &str, bytes: usize| format!(r#"{{"{name}":"{}"}}"#, "x".repeat(bytes - 8));
    let token = server.issue(&of("a", METADATA_BYTES_MAX)).await;
    for meta in [r#"{"b":1}"#.to_owned(), of("b", METADATA_BYTES_MAX + 1)] {
        let body = format!(r#"{{"token":"{token}","meta":{meta}}}"#);
        let refused = server.json_text(Method::PUT, "/token", body).await;
        refused.problem("payload-too-large", 413);
    }
    let (_, told) = server.exchange_with(&token, r#"{"a":"","b":1}"#).await.ok();
    assert_eq!(told, metadata(r#"{"a":"","b":1}"#));
    let body = format!(r#"{{"meta":{}}}"#, of("a", METADATA_BYTES_MAX + 1));
    let refused = server.json_text(Method::POST, "/token", body).await;
    refused.problem("payload-too-large", 413);
    let body = format!(r#"{{"meta":{}}}"#, of("a", 1 << 20));
    let refused = server.json_text(Method::POST, "/token", body).await;
    refused.problem("payload-too-large", 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lives_for_2_hours_and_each_exchange_begins_them_anew() {
    let server = Server::start().await;
    let (idle, used) = (server.issue("{}").await, server.issue("{}").await);
    server.pass_one_time(HOUR).await;
    let (used, _) = server.turn_in(&used).await.ok();
    server.pass_one_time(HOUR + Duration::from_secs(1)).await;
    assert_eq!(server.turn_in(&idle).await, invalid());
    let (used, _) = server.turn_in(&used).await.ok();
    server
        .pass_one_time(2 * HOUR + Duration::from_secs(1))
        .await;
    assert_eq!(server.turn_in(&used).await, invalid());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_never_given_out_is_invalid() {
    let server = Server::start().await;
    let good = server.issue("{}").await;
    let (said, signature) = good.rsplit_once('.').expect("a signature");
    let (start, _) = said.rsplit_once('.').expect("a number");
    let long = "x".repeat(100_000);
    for bad in [
        "",
        ".",
        "....",
        "a b",
        "é",
        said,
        signature,
        &good[1..],
        &format!("{good}A"),
        &format!(" {good}"),
        &format!("{start}.2.{signature}"),
        &long,
        &format!("{good}{long}"),
    ] {
        assert_eq!(server.turn_in(bad).await, invalid(), "{bad}");
        server.drop_token(bad).await;
    }
    server.turn_in(&good).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_token_is_dead_whichever_of_its_line_was_named() {
    let server = Server::start().await;
    let first = server.issue(r#"{"a":1}"#).await;
    let (second, _) = server.turn_in(&first).await.ok();
    let other = server.issue("{}").await;
    server.drop_token(&first).await;
    for dead in [&first, &second] {
        assert_eq!(server.turn_in(dead).await, invalid());
        server.drop_token(dead).await;
    }
    server.turn_in(&other).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_must_be_an_object() {
    let server = Server::start().await;
    let token = server.issue("{}").await;
    for meta in ["null", "[]", "1", "\"{}\"", "true"] {
        let body = format!(r#"{{"meta":{meta}}}"#);
        let refused = server.json_text(Method::POST, "/token", body).await;
        refused.problem("invalid-metadata", 422);
        let body = format!(r#"{{"token":"{token}","meta":{meta}}}"#);
        let refused = server.json_text(Method::PUT, "/token", body).await;
        refused.problem("invalid-metadata", 422);
    }
    for body in ["{}", r#"{"metadata":{}}"#, r#"{"Meta":{}}"#] {
        let refused = server.json_text(Method::POST, "/token", body).await;
        refused.problem("invalid-metadata", 422);
    }
    server.turn_in(&token).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_a_body_is_named_and_changes_nothing() {
    let server = Server::start().await;
    let token = server.issue("{}").await;
    let twice = format!(r#"{{"token":"{token}","token":"{token}"}}"#);
    let twice_in = format!(r#"{{"token":"{token}","meta":{{"a":1,"a":2}}}}"#);
    for (method, body, fields) in [
        (Method::POST, r#"{"meta":{},"meta":{}}"#, vec!["meta"]),
        (Method::POST, r#"{"meta":{},"x":1,"x":2}"#, vec!["x"]),
        (Method::POST, r#"{"meta":{"a":1,"a":2}}"#, vec!["meta"]),
        (Method::POST, r#"{"meta":{"\ud800":1}}"#, vec!["meta"]),
        (Method::POST, r#"{"meta":{"a":01}}"#, vec![]),
        (Method::POST, r#"{"meta":{"#, vec![]),
        (Method::POST, "[]", vec![]),
        (Method::POST, "7", vec![]),
        (Method::PUT, &twice, vec!["token"]),
        (Method::PUT, &twice_in, vec!["meta"]),
        (Method::PUT, "", vec!["token"]),
        (Method::PUT, "{}", vec!["token"]),
        (Method::PUT, r#"{"token":7}"#, vec!["token"]),
        (Method::PUT, r#"{"token":null}"#, vec!["token"]),
        (Method::PUT, r#"{"token":["a"]}"#, vec!["token"]),
        (Method::PUT, "[]", vec![]),
        (Method::PUT, "{", vec![]),
        (Method::DELETE, "", vec!["token"]),
        (Method::DELETE, "{}", vec!["token"]),
        (Method::DELETE, r#"{"token":7}"#, vec!["token"]),
        (Method::DELETE, "nonsense", vec![]),
    ] {
        let refused = server.json_text(method.clone(), "/token", body).await;
        assert_eq!(named(&refused), fields, "{method} {body}");
    }
    server.turn_in(&token).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_members_are_ignored_and_a_form_may_carry_an_object() {
    let server = Server::start().await;
    for kind in [
        "application/x-www-form-urlencoded",
        "text/plain",
        "application/json",
    ] {
        let body = r#" {"ttl":5,"meta":{"a":1},"token":7} "#;
        let request = server.request(Method::POST, "/token").body(body);
        let told = answer(request.header("content-type", kind)).await;
        assert_eq!(told.status, 200, "{kind}: {}", told.body);
        let request = json!({"token": told.body, "ttl": 5});
        let refused = answer(
            server
                .request(Method::PUT, "/token")
                .header("content-type", "text/plain")
                .body(request.to_string()),
        );
        refused.await.problem("unsupported-media-type", 415);
        let (token, meta) = exchanged(&server.put("/token", request).await).ok();
        assert_eq!(meta, metadata(r#"{"a":1}"#));
        let refused = answer(
            server
                .request(Method::DELETE, "/token")
                .body(format!(r#"{{"token":"{token}"}}"#)),
        );
        refused.await.problem("unsupported-media-type", 415);
        server.turn_in(&token).await.ok();
    }
    // Malformed, and not said to be JSON: no object, so the other flow's.
    let told = answer(server.request(Method::POST, "/token").body(r#"{"meta":"#)).await;
    assert_eq!(told.json(200)["message"], "Token created");
}
