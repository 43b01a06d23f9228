//! Every kind of wrong body, as tables: what is sent, and which field the answer names.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Answer, Server, answer};
use crate::harness::PARTITIONS;

async fn raw(server: &Server, method: Method, path: &str, body: &[u8]) -> Answer {
    let request = server.request(method, path).body(body.to_vec());
    answer(request.header("content-type", "application/json")).await
}

/// The fields that the answer names.
pub fn named(answer: &Answer) -> Vec<String> {
    let body = answer.problem("invalid-request", 400);
    let errors = body["errors"].as_array().cloned().unwrap_or_default();
    let fields = errors.iter().map(|it| it["field"].as_str().expect("text"));
    fields.map(ToOwned::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_is_a_json_integer_from_1_to_10000() {
    let server = Server::with_seats(json!({}), &[]).await;
    let wrong = [
        "\"10\"",
        "\"0x10\"",
        "\"ten\"",
        "\"\"",
        "0.5",
        "10.0",
        "1e1",
        "1e9",
        "-1",
        "-0",
        "0",
        "10001",
        "99999999999999999999",
        "-99999999999999999999",
        "null",
        "true",
        "[]",
        "[10]",
        "{}",
    ];
    for count in wrong {
        let body = format!(r#"{{"count": {count}}}"#);
        for path in ["/v1/pools/seats/generate", "/tokens/generate"] {
            let refused = raw(&server, Method::POST, path, body.as_bytes()).await;
            assert_eq!(named(&refused), ["count"], "{count}");
        }
    }
    // No JSON at all: told as such, since there is no member to name.
    for count in [
        "0x10", "1e400", "-1e400", "010", "+1", ".5", "1.", "NaN", "Infinity", "10n", "",
    ] {
        let body = format!(r#"{{"count": {count}}}"#);
        let refused = raw(&server, Method::POST, "/tokens/generate", body.as_bytes()).await;
        assert!(named(&refused).is_empty(), "{count}");
    }
    assert_eq!(named(&server.seats("generate", json!({})).await), ["count"]);
    for pool in ["seats", "default"] {
        let shown = server.get(&format!("/v1/pools/{pool}")).await.json(200);
        assert_eq!(shown["total"], 0, "nothing was added");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn imported_values_are_checked_one_by_one() {
    let server = Server::with_seats(json!({}), &[]).await;
    let cases = [
        (json!({"tokens": []}), "tokens"),
        (json!({"tokens": "a"}), "tokens"),
        (json!({"tokens": null}), "tokens"),
        (json!({"tokens": {"0": "a"}}), "tokens"),
        (json!({"tokens": vec!["a"; 10_001]}), "tokens"),
        (json!({"tokens": ["a", 7]}), "tokens[1]"),
        (json!({"tokens": ["a", null]}), "tokens[1]"),
        (json!({"tokens": ["", "a"]}), "tokens[0]"),
        (json!({"tokens": ["a\nb"]}), "tokens[0]"),
        (json!({"tokens": ["a\u{7f}"]}), "tokens[0]"),
        (json!({"tokens": ["a\u{85}"]}), "tokens[0]"),
        (json!({"tokens": ["a".repeat(4097)]}), "tokens[0]"),
        (json!({"tokens": ["é".repeat(2049)]}), "tokens[0]"),
        (json!({"tokens": ["a", "b "]}), "tokens[1]"),
        (json!({"tokens": ["a", "\u{200b}b"]}), "tokens[1]"),
        (json!({"tokens": ["\u{feff}a"]}), "tokens[0]"),
        (json!({"tokens": ["a"], "count": 1}), "tokens"),
        (json!({"tokens": ["a"], "cuont": 1}), "cuont"),
    ];
    for (body, field) in cases {
        let refused = server.seats("generate", body.clone()).await;
        assert_eq!(named(&refused), [field], "{body}");
    }
    let shown = server.get("/v1/pools/seats").await.json(200);
    assert_eq!(shown["total"], 0, "nothing was added");
}

/// Wrong values by member, for all verbs that take it.
fn wrong_members() -> Vec<(&'static str, Vec<&'static str>, Vec<Value>)> {
    let token = vec![
        json!(7),
        json!(null),
        json!(["a"]),
        json!({}),
        json!(true),
        json!(""),
        json!("a\tb"),
        json!("a".repeat(4097)),
    ];
    let mut holder = token.clone();
    holder.extend(["pod-1 ", " pod-1", "pod\u{200b}1", "pod\u{ad}1"].map(|label| json!(label)));
    holder.push(json!("a".repeat(257)));
    let fence = vec![
        json!(0),
        json!(-1),
        json!((1_u64 << 53) + 1),
        json!("7"),
        json!(1.0),
        json!(1.5),
        json!(null),
        json!(1e300),
    ];
    let lifetime = vec![
        json!(0),
        json!(0.5),
        json!(-1),
        json!(1e9),
        json!(1e300),
        json!(2_592_000.001),
        json!("60"),
        json!("1m"),
        json!(null),
        json!([60]),
    ];
    vec![
        (
            "token",
            vec!["assign", "keep-alive", "unblock", "delete", "inspect"],
            token,
        ),
        ("holder", vec!["assign"], holder),
        ("fence", vec!["keep-alive", "unblock"], fence),
        ("lifetime", vec!["assign", "keep-alive"], lifetime),
        (
            "unknwon",
            vec!["assign", "keep-alive", "unblock", "delete", "inspect"],
            vec![json!(1)],
        ),
        ("fence", vec!["assign", "inspect", "delete"], vec![json!(7)]),
        (
            "holder",
            vec!["keep-alive", "unblock", "inspect"],
            vec![json!("pod-1")],
        ),
        ("lifetime", vec!["unblock", "inspect"], vec![json!(60)]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_a_verb_is_of_its_type_and_range() {
    let server = Server::with_seats(json!({}), &["a"]).await;
    for (member, verbs, values) in wrong_members() {
        for verb in verbs {
            for value in &values {
                let mut body = json!({"token": "a"});
                body[member] = value.clone();
                let refused = server.seats(verb, body).await;
                assert_eq!(named(&refused), [member], "{verb} {value}");
            }
        }
    }
    for verb in ["keep-alive", "unblock", "inspect", "delete"] {
        let missing = server.seats(verb, json!({})).await;
        assert_eq!(named(&missing), ["token"], "{verb}");
        let empty = server.request(Method::POST, &format!("/v1/pools/seats/{verb}"));
        assert_eq!(named(&answer(empty).await), ["token"], "{verb}");
    }
    let all = server
        .seats(
            "keep-alive",
            json!({"token": 1, "fence": 0, "lifetime": 0, "x": 1}),
        )
        .await;
    assert_eq!(
        named(&all),
        ["token", "fence", "lifetime", "x"],
        "all at once"
    );
    let seen = server
        .seats("inspect", json!({"token": "a"}))
        .await
        .json(200);
    assert_eq!(
        seen,
        json!({"token": "a", "state": "free", "fence": 0}),
        "nothing was done"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_field_is_of_its_type_and_range() {
    let server = Server::with_seats(json!({}), &[]).await;
    let durations = [
        json!(0.5),
        json!(-1),
        json!(2_592_001),
        json!("60"),
        json!(null),
        json!(1e300),
    ];
    let mut cases = vec![
        ("lifetime", json!(0)),
        ("shards", json!(1_025)),
        ("shards", json!(0)),
        ("shards", json!("1")),
        ("lifetme", json!(60)),
        ("name", json!("seats")),
        ("free", json!(0)),
    ];
    for field in ["lifetime", "idle_limit", "cooldown", "max_hold"] {
        cases.extend(durations.iter().map(|value| (field, value.clone())));
    }
    let limits = [
        json!(0),
        json!(-1),
        json!(1.5),
        json!("10"),
        json!(100_000_001),
        json!(null),
    ];
    cases.extend(limits.map(|value| ("max_tokens", value)));
    cases
        .extend([json!("keep"), json!(""), json!(null), json!(1)].map(|value| ("on_lapse", value)));
    for (field, value) in cases {
        for path in ["/v1/pools/seats", "/v1/pools/new"] {
            let refused = server.put(path, json!({ field: value.clone() })).await;
            assert_eq!(named(&refused), [field], "{value}");
        }
    }
    server
        .get("/v1/pools/new")
        .await
        .problem("pool-not-found", 404);
    let shown = server.get("/v1/pools/seats").await.json(200);
    assert_eq!(shown["lifetime"], 60, "nothing was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_one_json_object_without_doubles() {
    let server = Server::with_seats(json!({}), &["a"]).await;
    let bodies: [&[u8]; 16] = [
        b"{",
        b"{}}",
        b"{} x",
        b"{}{}",
        b"[]",
        b"\"a\"",
        b"7",
        b"null",
        b"{'token': 'a'}",
        b"{\"token\": \"a\",}",
        b"{\"token\" \"a\"}",
        b"\xff\xfe{}",
        b"{\"token\": \"\xff\"}",
        b"{\"token\": \"\\ud800\"}",
        b"{\"token\": \"a\", \"token\": \"b\"}",
        b"{\"token\": \"a\", \"\\u0074oken\": \"a\"}",
    ];
    let deep = "[".repeat(100_000);
    for body in bodies.into_iter().chain([deep.as_bytes()]) {
        for path in ["assign", "inspect"].map(|verb| format!("/v1/pools/seats/{verb}")) {
            let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
            let refused = raw(&server, Method::POST, &path, body).await;
            assert_eq!(refused.status, 400, "{path} {shown}: {}", refused.body);
        }
    }
    let path = "/tokens/generate";
    let refused = raw(
        &server,
        Method::POST,
        path,
        br#"{"count": 1, "count": 10000}"#,
    )
    .await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    let seen = server
        .seats("inspect", json!({"token": "a"}))
        .await
        .json(200);
    assert_eq!(seen["state"], "free", "nothing was done");
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_fit_the_partitions_and_the_cap_and_stay() {
    let server = Server::start().await;
    let many = server
        .put("/v1/pools/seats", json!({"shards": PARTITIONS + 1}))
        .await;
    assert_eq!(named(&many), ["shards"]);
    let few = server
        .put("/v1/pools/seats", json!({"shards": 2, "max_tokens": 1}))
        .await;
    assert_eq!(named(&few), ["max_tokens"]);
    server
        .put("/v1/pools/seats", json!({"shards": 2}))
        .await
        .json(201);
    let other = server.put("/v1/pools/seats", json!({"shards": 1})).await;
    assert_eq!(named(&other), ["shards"]);
    let lowered = server
        .put("/v1/pools/seats", json!({"max_tokens": 1}))
        .await;
    assert_eq!(named(&lowered), ["max_tokens"]);
    server
        .put("/v1/pools/seats", json!({"shards": 2, "max_tokens": 2}))
        .await
        .json(200);
}
