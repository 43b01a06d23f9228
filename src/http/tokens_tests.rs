use actix_web::body::to_bytes;
use actix_web::http::header;
use serde_json::{Value, json};

use super::*;

fn fields(value: Value) -> Fields {
    match value {
        Value::Object(members) => Fields::new(members),
        other => panic!("not an object: {other}"),
    }
}

/// The fields that a problem names.
fn named<T>(result: Result<T, Problem>) -> Vec<String> {
    let problem = result.err().expect("a problem");
    assert_eq!(problem.slug(), Slug::InvalidRequest);
    problem.errors().iter().map(|e| e.field.clone()).collect()
}

async fn json_of(response: HttpResponse) -> Value {
    let bytes = to_bytes(response.into_body()).await.expect("a body");
    serde_json::from_slice(&bytes).expect("JSON")
}

#[test]
fn generate_takes_a_count_or_values() {
    let made = generate_request(fields(json!({"count": 10_000})), None).expect("valid");
    assert!(matches!(made.tokens, NewTokens::Generate(10_000)));
    let made = generate_request(fields(json!({"tokens": ["a", "b"]})), None).expect("valid");
    assert!(matches!(made.tokens, NewTokens::Import(tokens) if tokens.len() == 2));

    assert_eq!(named(generate_request(fields(json!({})), None)), ["count"]);
    let both = json!({"tokens": ["a"], "count": 1});
    assert_eq!(named(generate_request(fields(both), None)), ["tokens"]);
    for count in [
        json!("10"),
        json!(0),
        json!(10_001),
        json!(1e9),
        json!(null),
    ] {
        let asked = fields(json!({"count": count}));
        assert_eq!(named(generate_request(asked, None)), ["count"]);
    }
}

#[test]
fn assign_needs_nothing_and_refuses_what_it_does_not_know() {
    let (asked, wait) = assign_request(Fields::default(), None).expect("valid");
    assert!(wait.is_zero());
    assert!(asked.holder.is_none() && asked.lifetime_ms.is_none() && asked.token.is_none());
    let given = json!({"holder": "pod-1", "lifetime": 1.5, "token": "seat-1"});
    let (asked, _) = assign_request(fields(given), None).expect("valid");
    assert_eq!(asked.lifetime_ms, Some(1_500));
    let wrong = json!({"holder": "", "lifetime": 0, "token": 7, "fence": 3});
    assert_eq!(
        named(assign_request(fields(wrong), None)),
        ["holder", "lifetime", "token", "fence"]
    );
}

#[test]
fn assign_waits_for_any_token_but_not_for_one() {
    for (given, ms) in [(json!(0), 0), (json!(0.25), 250), (json!(60), 60_000)] {
        let asked = fields(json!({"wait_seconds": given}));
        let (_, wait) = assign_request(asked, None).expect("valid");
        assert_eq!(wait, Duration::from_millis(ms), "{given}");
    }
    for bad in [
        json!(-1),
        json!(60.001),
        json!("5"),
        json!(null),
        json!(true),
    ] {
        let asked = fields(json!({"wait_seconds": bad}));
        assert_eq!(named(assign_request(asked, None)), ["wait_seconds"]);
    }
    let named_token = fields(json!({"wait_seconds": 1, "token": "seat-1"}));
    assert_eq!(named(assign_request(named_token, None)), ["wait_seconds"]);
    let at_once = fields(json!({"wait_seconds": 0, "token": "seat-1"}));
    assert!(assign_request(at_once, None).is_ok());
}

#[test]
fn keep_alive_needs_a_token() {
    let asked = keep_alive_request(fields(json!({"token": "a", "fence": 7, "lifetime": 30})));
    let asked = asked.expect("valid");
    assert_eq!(asked.fence.map(Fence::get), Some(7));
    assert_eq!(asked.lifetime_ms, Some(30_000));
    assert_eq!(
        named(keep_alive_request(fields(json!({"fence": 0})))),
        ["token", "fence"]
    );
}

#[test]
fn delete_takes_its_token_from_one_place() {
    let from = |query: &str, body: Value| delete_request(Fields::from_query(query), fields(body));
    assert_eq!(from("token=a", json!({})).expect("valid").as_str(), "a");
    let in_body = from("", json!({"token": "b"})).expect("valid");
    assert_eq!(in_body.as_str(), "b");
    assert_eq!(named(from("", json!({}))), ["token"]);
    assert_eq!(named(from("token=a", json!({"token": "a"}))), ["token"]);
    assert_eq!(named(from("tokn=a", json!({}))), ["tokn"]);
    assert_eq!(named(from("token=", json!({}))), ["token"]);
}

#[actix_web::test]
async fn a_grant_is_told_with_both_clocks() {
    let grant = |holder| Grant {
        token: TokenValue::parse("seat-1").expect("valid"),
        fence: Fence::parse(7).expect("valid"),
        expires_at_ms: 1_700_000_000_007,
        expires_in_ms: 59_998,
        holder,
    };
    let mut told = json!({
        "token": "seat-1", "fence": 7,
        "expires_at": "2023-11-14T22:13:20.007Z", "expires_in": 59.998,
    });
    assert_eq!(json_of(granted(grant(None))).await, told);
    told["holder"] = json!("pod-1");
    let holder = Holder::parse("pod-1").expect("valid");
    assert_eq!(json_of(granted(grant(Some(holder)))).await, told);
}

#[test]
fn an_empty_pool_gives_no_hint_of_when() {
    let hint = |ms| {
        let response = none_available(ms).respond("r");
        let hint = response.headers().get(header::RETRY_AFTER);
        hint.map(|it| it.to_str().expect("text").to_owned())
    };
    assert_eq!(hint(Some(1_001)).as_deref(), Some("2"));
    assert_eq!(hint(None), None);
}

#[test]
fn a_full_pool_says_what_is_full() {
    let told = full_detail(3, 10, 8);
    assert_eq!(
        told,
        "the pool has 8 of at most 10 tokens; nothing was added"
    );
    let told = full_detail(2, 10, 8);
    assert!(told.contains("one of its shards has its share"), "{told}");
}
