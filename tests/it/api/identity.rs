//! No name comes in two spellings that look the same: tokens, holders, keys and pools.

use reqwest::Method;
use serde_json::{Value, json};

use super::mistakes::named;
use super::{Answer, Server, answer};

/// What the answer says of the field.
fn told(answer: &Answer, field: &str) -> String {
    let body = answer.problem("invalid-request", 400);
    let errors = body["errors"].as_array().cloned().unwrap_or_default();
    let error = errors.into_iter().find(|error| error["field"] == field);
    let error = error.unwrap_or_else(|| panic!("no {field} in {body}"));
    error["detail"].as_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_looks_like_another_is_refused_by_its_index_and_code_point() {
    let server = Server::with_seats(json!({}), &["seat-1"]).await;
    for (value, rule) in [
        ("seat-1 ", "end with the white space U+0020"),
        (" seat-1", "begin with the white space U+0020"),
        ("seat-1\u{a0}", "end with the white space U+00A0"),
        ("seat-1\u{200b}", "contain the invisible character U+200B"),
        ("seat\u{ad}-1", "contain the invisible character U+00AD"),
        ("\u{feff}seat-1", "contain the invisible character U+FEFF"),
        ("\u{202e}seat-1", "contain the invisible character U+202E"),
    ] {
        let refused = server
            .seats("generate", json!({"tokens": ["a", value]}))
            .await;
        let why = told(&refused, "tokens[1]");
        assert_eq!(why, format!("a token must not {rule}"));
        assert!(!refused.body.contains(value), "no value is repeated");
        // As a name it is one that the pool does not have.
        let absent = server.seats("inspect", json!({ "token": value })).await;
        absent.problem("token-not-found", 404);
    }
    let shown = server.get("/v1/pools/seats").await.json(200);
    assert_eq!(shown["total"], 1, "nothing was added");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_forms_of_one_value_are_one_token() {
    let server = Server::with_seats(json!({}), &[]).await;
    let (composed, decomposed) = ("Caf\u{e9}", "Cafe\u{301}");
    let both = json!({"tokens": [decomposed, composed]});
    let added = server.seats("generate", both).await.json(201);
    assert_eq!(added, json!({"tokens": [composed], "existing": 1}));
    let grant = server.grant().await;
    assert_eq!(grant["token"], composed);
    let named = json!({"token": decomposed, "fence": grant["fence"]});
    let done = server.seats("unblock", named).await.json(200);
    assert_eq!(done["token"], decomposed, "named as the caller names it");
    let deleted = server
        .delete("/v1/pools/seats/delete?token=Cafe%CC%81")
        .await;
    deleted.json(200);
    let shown = server.get("/v1/pools/seats").await.json(200);
    assert_eq!(shown["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_is_a_label_without_anything_unseen() {
    let server = Server::with_seats(json!({}), &["a"]).await;
    for (label, rule) in [
        ("pod-1 ", "end with the white space U+0020"),
        ("pod\u{200b}-1", "contain the invisible character U+200B"),
    ] {
        for body in [
            json!({"holder": label}),
            json!({"holder": label, "wait_seconds": 1}),
        ] {
            let refused = server.seats("assign", body).await;
            assert_eq!(
                told(&refused, "holder"),
                format!("a holder must not {rule}")
            );
        }
    }
    let body = json!({"holder": "Jose\u{301}"});
    let grant = server.seats("assign", body).await.json(200);
    assert_eq!(grant["holder"], "Jos\u{e9}");
}

async fn keyed(server: &Server, key: &[u8]) -> Answer {
    let path = "/v1/pools/seats/assign";
    let key = reqwest::header::HeaderValue::from_bytes(key).expect("HTTP takes it");
    let request = server.request(Method::POST, path);
    answer(request.header("Idempotency-Key", key).json(&json!({}))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_keys_that_look_the_same_name_two_operations() {
    let server = Server::with_seats(json!({}), &["a", "b", "c"]).await;
    let first = keyed(&server, b"key 1").await.json(200);
    // HTTP drops white space around a header's value.
    for same in [" key 1", "key 1 ", "\tkey 1\t"] {
        let again = keyed(&server, same.as_bytes()).await.json(200);
        assert_eq!(again["fence"], first["fence"], "{same:?}");
    }
    for refused in [
        "key\u{a0}1",
        "key\u{200b}1",
        "cl\u{e9}",
        "cle\u{301}",
        "key\t1",
    ] {
        let refused = keyed(&server, refused.as_bytes()).await;
        assert_eq!(named(&refused), ["Idempotency-Key"]);
    }
    assert_eq!(named(&keyed(&server, b"cl\xe9").await), ["Idempotency-Key"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_has_one_name() {
    let server = Server::with_seats(json!({}), &["a"]).await;
    let escaped = server.get("/v1/pools/%73eats").await.json(200);
    assert_eq!(escaped["name"], "seats");
    for other in [
        "seats%0A",
        "seats%20",
        "%20seats",
        "SEATS",
        "seats%E2%80%8B",
        "seats%C2%AD",
        "%2573eats",
        "seats%00",
        "%EF%BB%BFseats",
    ] {
        let path = format!("/v1/pools/{other}");
        let absent = server.get(&path).await;
        assert_eq!(absent.status, 404, "{other}: {}", absent.body);
        let refused = server.put(&path, json!({})).await;
        assert_eq!(named(&refused), ["pool"], "{other}");
    }
    let pools = server.get("/v1/pools").await.json(200);
    let names: Vec<&Value> = pools["pools"].as_array().expect("a list").iter().collect();
    assert_eq!(names.len(), 2, "default and seats: {pools}");
}
