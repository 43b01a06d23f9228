//! `CORS_ORIGINS`: what browsers are told, and that nobody else is told anything new.

use std::collections::BTreeSet;

use reqwest::{Method, RequestBuilder};
use serde_json::json;

use super::mistakes::named;
use super::{Answer, Server, answer};
use crate::harness::{Fixture, OwnRedis, eventually, skip};

const OURS: &str = "https://app.example.com";
const OTHER: &str = "http://localhost:8080";
const FOREIGN: &str = "https://evil.example.com";

async fn server(origins: &str) -> Server {
    Server::with_settings(Fixture::new().await, &[("CORS_ORIGINS", origins)]).await
}

fn from(request: RequestBuilder, origin: &str) -> RequestBuilder {
    request.header("origin", origin)
}

fn preflight(server: &Server, path: &str, origin: &str, method: &str) -> RequestBuilder {
    from(server.request(Method::OPTIONS, path), origin)
        .header("access-control-request-method", method)
}

fn allowed_origin(answer: &Answer) -> Option<&str> {
    answer.header("access-control-allow-origin")
}

/// A header that is a list, as a set in lower case.
fn list(answer: &Answer, name: &str) -> BTreeSet<String> {
    let names = answer.header(name).unwrap_or_default().split(',');
    let names = names.map(|name| name.trim().to_ascii_lowercase());
    names.filter(|name| !name.is_empty()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn cors_headers(answer: &Answer) -> Vec<&str> {
    let names = answer
        .headers
        .keys()
        .map(reqwest::header::HeaderName::as_str);
    names
        .filter(|name| name.starts_with("access-control-") || *name == "vary")
        .collect()
}

/// Requests for every kind of answer, each with its status.
fn requests(server: &Server) -> Vec<(RequestBuilder, u16)> {
    let request = |method, path| server.request(method, path);
    let post = |path, body| server.request(Method::POST, path).json(&body);
    vec![
        (request(Method::GET, "/livez"), 200),
        (request(Method::HEAD, "/livez"), 200),
        (request(Method::POST, "/app/token"), 200),
        (post("/tokens/generate", json!({"count": 1})), 201),
        (request(Method::DELETE, "/v1/pools/nope"), 404),
        (request(Method::GET, "/nope"), 404),
        (post("/tokens/generate", json!({"count": 0})), 400),
        (request(Method::GET, "/tokens/assign"), 405),
        (request(Method::OPTIONS, "/livez"), 204),
        (
            request(Method::POST, "/tokens/assign").body(" ".repeat((1 << 20) + 1)),
            413,
        ),
        (request(Method::POST, "/tokens/inspect").body("a"), 415),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn without_origins_nothing_is_said_about_them() {
    let server = Server::start().await;
    for (request, status) in requests(&server) {
        let told = answer(from(request, OURS)).await;
        assert_eq!(told.status, status);
        assert_eq!(cors_headers(&told), Vec::<&str>::new(), "{status}");
    }
    for path in ["/app/token", "/nope"] {
        let told = answer(preflight(&server, path, OURS, "POST")).await;
        let expected = if path == "/nope" { 404 } else { 204 };
        assert_eq!(told.status, expected, "{path}");
        assert_eq!(cors_headers(&told), Vec::<&str>::new(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_to_an_allowed_origin_says_so() {
    let server = server(&format!("{OURS},{OTHER}")).await;
    for origin in [OURS, OTHER] {
        for (request, status) in requests(&server) {
            // `answer` looks at the request id, and at the form of a problem.
            let told = answer(from(request, origin)).await;
            assert_eq!(told.status, status, "{}", told.body);
            assert_eq!(allowed_origin(&told), Some(origin), "{status}");
            let exposed = list(&told, "access-control-expose-headers");
            let all = [
                "x-request-id",
                "traceresponse",
                "retry-after",
                "ratelimit",
                "ratelimit-policy",
                "ratelimit-limit",
                "ratelimit-remaining",
                "ratelimit-reset",
            ];
            assert_eq!(exposed, set(&all), "{status}");
            assert!(list(&told, "vary").contains("origin"), "{status}");
            let credentials = told.header("access-control-allow-credentials");
            assert_eq!(credentials, None, "{status}");
        }
    }
    let refused = answer(from(server.request(Method::GET, "/tokens/assign"), OURS)).await;
    assert_eq!(
        refused.header("allow"),
        Some("POST, OPTIONS"),
        "what was there stays"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_origin_and_none_get_the_answer_without_permission() {
    let server = server(OURS).await;
    let strangers = [
        FOREIGN,
        "null",
        "*",
        "",
        "https://app.example.com.evil.example.com",
        "https://app.example.com:8443",
        "http://app.example.com",
        "https://APP.example.com",
    ];
    for (n, (_, status)) in requests(&server).into_iter().enumerate() {
        for origin in strangers {
            let (request, _) = requests(&server).swap_remove(n);
            let told = answer(from(request, origin)).await;
            assert_eq!(told.status, status, "{origin}");
            assert_eq!(allowed_origin(&told), None, "{origin}");
        }
        let (request, _) = requests(&server).swap_remove(n);
        let told = answer(request).await;
        assert_eq!((told.status, allowed_origin(&told)), (status, None));
        assert!(list(&told, "vary").contains("origin"), "for caches");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_of_an_allowed_origin_is_answered() {
    let server = server(OURS).await;
    let headers = "authorization, Content-Type, IDEMPOTENCY-KEY, x-request-id, traceparent, user";
    for (path, method) in [
        ("/tokens/assign", "POST"),
        ("/v1/pools/seats", "PUT"),
        ("/tokens/delete", "DELETE"),
        ("/app/valid/a", "GET"),
        ("/nope", "HEAD"),
    ] {
        let request = preflight(&server, path, OURS, method);
        let told = answer(request.header("access-control-request-headers", headers)).await;
        assert_eq!((told.status, told.body.as_str()), (200, ""), "{path}");
        assert_eq!(allowed_origin(&told), Some(OURS));
        let methods = list(&told, "access-control-allow-methods");
        assert_eq!(methods, set(&["get", "head", "post", "put", "delete"]));
        let allowed = list(&told, "access-control-allow-headers");
        assert_eq!(
            allowed,
            set(&[
                "authorization",
                "content-type",
                "idempotency-key",
                "x-request-id",
                "traceparent",
                "tracestate",
                "user"
            ])
        );
        assert_eq!(told.header("access-control-max-age"), Some("3600"));
        assert_eq!(told.header("access-control-allow-credentials"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_that_is_refused_says_why() {
    let server = server(OURS).await;
    let path = "/tokens/assign";
    let method = "Access-Control-Request-Method";
    let headers = "Access-Control-Request-Headers";
    for origin in [FOREIGN, "null", "https://app.example.com."] {
        let refused = answer(preflight(&server, path, origin, "POST")).await;
        assert_eq!(named(&refused), ["Origin"], "{origin}");
        assert_eq!(allowed_origin(&refused), None);
    }
    let no_origin = server.request(Method::OPTIONS, path).header(method, "POST");
    assert_eq!(named(&answer(no_origin).await), ["Origin"]);
    for wrong in ["PATCH", "TRACE", "BREW", "post"] {
        let refused = answer(preflight(&server, path, OURS, wrong)).await;
        assert_eq!(named(&refused), [method], "{wrong}");
    }
    for wrong in ["cookie", "content-type, x-other", "a b"] {
        let request = preflight(&server, path, OURS, "POST").header(headers, wrong);
        assert_eq!(named(&answer(request).await), [headers], "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_star_lets_in_any_origin_without_credentials() {
    let server = server("*").await;
    for origin in [OURS, FOREIGN, "null"] {
        for (request, status) in requests(&server) {
            let told = answer(from(request, origin)).await;
            assert_eq!((told.status, allowed_origin(&told)), (status, Some("*")));
            assert_eq!(told.header("access-control-allow-credentials"), None);
        }
        let told = answer(preflight(&server, "/app/token", origin, "POST")).await;
        assert_eq!((told.status, allowed_origin(&told)), (200, Some("*")));
        assert_eq!(told.header("access-control-allow-credentials"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn preflights_are_measured_and_have_the_request_id_that_was_given() {
    let server = server(OURS).await;
    for (origin, status) in [(OURS, 200), (FOREIGN, 400)] {
        let request = preflight(&server, "/app/valid/s3cret", origin, "GET");
        let told = answer(request.header("x-request-id", "r7")).await;
        assert_eq!(told.status, status);
        assert_eq!(told.header("x-request-id"), Some("r7"));
    }
    let metrics = server.get("/metrics").await.body;
    for status in [200, 400] {
        let line = format!(
            r#"_count{{method="OPTIONS",route="/app/valid/{{token:.*}}",status="{status}"}} 1"#
        );
        assert!(metrics.contains(&line), "{line}");
    }
    assert!(!metrics.contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_told_to_pages_too() {
    let Some(mut redis) = OwnRedis::start(&[]).await else {
        skip("an_outage_is_told_to_pages_too", "no redis-server");
        return;
    };
    let fixture = Fixture::on(&redis.url).await;
    let server = Server::with_settings(fixture, &[("CORS_ORIGINS", OURS)]).await;
    redis.kill().await;
    eventually("the connection is known to be gone", async || {
        let request = from(server.request(Method::POST, "/app/token"), OURS);
        let refused = answer(request).await;
        assert_eq!(allowed_origin(&refused), Some(OURS), "{}", refused.body);
        refused.problem_kind() == "store-unavailable" && refused.retry_after_s() == 1
    })
    .await;
}
