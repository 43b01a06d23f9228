//! The rows of the contract's table "System", and the request id.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::{Server, answer};
use crate::harness::{eventually, pool};

#[tokio::test(flavor = "multi_thread")]
async fn it_is_alive_and_ready_and_says_when_it_is_going_away() {
    let server = Server::start().await;
    let alive = server.get("/livez").await;
    assert_eq!(alive.json(200), json!({"status": "alive"}));
    let ready = server.get("/readyz").await;
    let checks = json!({"redis": true, "scripts": true, "not_shutting_down": true});
    assert_eq!(
        ready.json(200),
        json!({"status": "ready", "checks": checks})
    );
    for path in ["/livez", "/readyz", "/metrics"] {
        let head = answer(server.request(Method::HEAD, path)).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
    }
    server.shutting_down.begin();
    let going = server.get("/readyz").await.problem("not-ready", 503);
    let checks = json!({"redis": true, "scripts": true, "not_shutting_down": false});
    assert_eq!(going["checks"], checks);
    assert_eq!(server.get("/livez").await.status, 200);
    let still = server.post("/tokens/generate", json!({"count": 1})).await;
    assert_eq!(still.status, 201, "what comes nevertheless is served");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checks_that_load_balancers_make_unasked_find_it_alive() {
    let server = Server::start().await;
    for (check, allow) in [
        // HAProxy's default, and what its manual shows beside it.
        ("OPTIONS / HTTP/1.0\r\n\r\n", "GET, HEAD, OPTIONS"),
        (
            "OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            "GET, HEAD, POST, PUT, DELETE, OPTIONS",
        ),
    ] {
        let told = server.exchange(check.as_bytes());
        let head: Vec<&str> = told.lines().collect();
        assert!(head[0].ends_with(" 204 No Content"), "{told}");
        let allow = format!("allow: {allow}");
        assert!(head.contains(&allow.as_str()), "{told}");
    }
    let other = server.exchange(b"OPTIONS /nope HTTP/1.0\r\n\r\n");
    assert!(other.contains(" 404 "), "{other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_found_with_a_slash_behind_it_and_a_verb_is_not() {
    let server = Server::with_seats(json!({}), &["seat-1"]).await;
    for path in [
        "/docs",
        "/docs/swagger-ui.css",
        "/redoc",
        "/reference",
        "/openapi.json",
        "/livez",
        "/problems",
        "/problems/pool-full",
        "/.well-known/oauth-authorization-server",
        "/v1/pools",
        "/v1/pools/seats",
    ] {
        let plain = server.get(path).await;
        let slashed = server.get(&format!("{path}/")).await;
        assert_eq!((plain.status, slashed.status), (200, 200), "{path}");
        assert_eq!(plain.body, slashed.body, "{path}");
        let head = answer(server.request(Method::HEAD, &format!("{path}/"))).await;
        assert_eq!(head.status, 200, "{path}");
    }
    let held = server.get("/v1/pools/seats/tokens/?state=held").await;
    assert_eq!(held.json(200), json!({"tokens": []}), "the query stays");
    for (method, path) in [
        (Method::POST, "/tokens/assign/"),
        (Method::GET, "/tokens/assign/"),
        (Method::OPTIONS, "/tokens/assign/"),
        (Method::POST, "/v1/pools/seats/assign/"),
        (Method::DELETE, "/v1/pools/seats/"),
        // `Allow` would name PUT and DELETE, which are refused here.
        (Method::OPTIONS, "/v1/pools/seats/"),
        (Method::PUT, "/v1/pools/other/"),
        (Method::POST, "/token/"),
        (Method::GET, "/docs//"),
    ] {
        let refused = answer(server.request(method, path)).await;
        refused.problem("not-found", 404);
    }
    let seats = server.get("/v1/pools/seats/").await.json(200);
    assert_eq!((&seats["free"], &seats["total"]), (&json!(1), &json!(1)));
    server.shutting_down.begin();
    server.get("/readyz/").await.problem("not-ready", 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_is_echoed_or_made() {
    let server = Server::start().await;
    for path in [
        "/livez",
        "/nope",
        "/v1/pools",
        "/v1/pools/nope",
        "/tokens/assign",
    ] {
        let with = |id: &str| answer(server.request(Method::GET, path).header("x-request-id", id));
        let echoed = with("trace.7-B_9").await;
        assert_eq!(echoed.header("x-request-id"), Some("trace.7-B_9"), "{path}");
        let too_long = "x".repeat(129);
        for bad in ["", "a b", "a\"b", "a,b", &too_long] {
            let made = with(bad).await;
            let id = made.header("x-request-id").expect("an id");
            assert!(
                uuid::Uuid::parse_str(id).is_ok(),
                "{path}: {bad:?} became {id}"
            );
        }
    }
    let ids: BTreeSet<_> = [server.get("/livez").await, server.get("/livez").await]
        .iter()
        .map(|it| it.header("x-request-id").expect("an id").to_owned())
        .collect();
    assert_eq!(ids.len(), 2, "each request has its own");
}

/// The contract's metrics with their labels; `tokend_store_errors_total` has its test in `outage.rs`.
const METRICS: &[(&str, &[&str])] = &[
    (
        "tokend_http_request_duration_seconds",
        &["route", "method", "status"],
    ),
    ("tokend_transitions_total", &["pool", "verb", "outcome"]),
    ("tokend_pool_tokens", &["pool", "state"]),
    ("tokend_release_lag_seconds", &["pool"]),
    ("tokend_sweeps_total", &["trigger"]),
    ("tokend_batch_size", &["verb"]),
    ("tokend_store_call_duration_seconds", &["script"]),
    ("tokend_build_info", &["version", "revision"]),
];

/// The label names of a metric's samples, without the histogram's own.
fn labels_of(text: &str, metric: &str) -> BTreeSet<String> {
    let samples = text.lines().filter(|line| line.starts_with(metric));
    let labels = samples.filter_map(|line| line.split_once('{')?.1.rsplit_once('}'));
    labels
        .flat_map(|(labels, _)| labels.split("\",").map(|label| label.split('=').next()))
        .flatten()
        .filter(|name| *name != "le")
        .map(ToOwned::to_owned)
        .collect()
}

/// `/metrics` after calls of many kinds, each with something secret in it.
async fn scrape_after_traffic() -> String {
    let server = Server::with_seats(json!({"lifetime": 1}), &["secret-seat"]).await;
    let named = json!({"token": "secret-seat"});
    let held = json!({"token": "secret-seat", "holder": "secret-holder"});
    server.seats("assign", held.clone()).await.json(200);
    server.seats("assign", held).await.problem("not-free", 409);
    server.seats("inspect", named.clone()).await.json(200);
    server
        .fixture
        .pass(&pool("seats"), Duration::from_secs(2))
        .await;
    let lag = server
        .fixture
        .metrics
        .release_lag
        .with_label_values(&["seats"]);
    eventually("the lapse is measured", async || {
        lag.get_sample_count() == 1
    })
    .await;
    server
        .get("/tokens/secret-path")
        .await
        .problem("not-found", 404);
    server
        .get("/v1/pools/secret-pool")
        .await
        .problem("pool-not-found", 404);
    let brew = Method::from_bytes(b"SECRET").expect("a method");
    answer(server.request(brew, "/livez"))
        .await
        .problem("method-not-allowed", 405);
    server
        .delete("/v1/pools/seats/delete?token=secret-seat")
        .await
        .json(200);

    let scraped = server.get("/metrics").await;
    let kind = scraped.header("content-type").expect("a type");
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    scraped.body
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_of_traffic_and_never_of_tokens_or_holders() {
    let text = scrape_after_traffic().await;
    assert!(!text.to_lowercase().contains("secret"), "{text}");
    for (metric, labels) in METRICS {
        assert!(text.contains(&format!("# HELP {metric} ")), "{metric}");
        let expected: BTreeSet<_> = labels.iter().map(|it| (*it).to_owned()).collect();
        let found = labels_of(&text, metric);
        assert!(found == expected, "{metric}: {found:?}");
    }
    for sample in [
        r#"tokend_transitions_total{outcome="granted",pool="seats",verb="assign"} 1"#,
        r#"tokend_transitions_total{outcome="not_free",pool="seats",verb="assign"} 1"#,
        r#"tokend_transitions_total{outcome="lapsed",pool="seats",verb="settle"} 1"#,
        r#"tokend_release_lag_seconds_count{pool="seats"} 1"#,
        r#"tokend_pool_tokens{pool="default",state="free"} 0"#,
        r#"tokend_pool_tokens{pool="seats",state="held"} 0"#,
        r#"method="POST",route="/v1/pools/{pool}/assign",status="200""#,
        r#"method="POST",route="/v1/pools/{pool}/assign",status="409""#,
        r#"method="GET",route="unmatched",status="404""#,
        r#"method="OTHER",route="/livez",status="405""#,
        r#"tokend_build_info{revision=""#,
    ] {
        assert!(text.contains(sample), "{sample} is not in\n{text}");
    }
    let triggers = text
        .lines()
        .filter(|it| it.starts_with("tokend_sweeps_total"));
    for line in triggers {
        assert!(
            line.contains(r#""event""#) || line.contains(r#""timer""#),
            "{line}"
        );
    }
}
