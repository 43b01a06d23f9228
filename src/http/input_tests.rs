use actix_web::middleware::from_fn;
use actix_web::test::{TestRequest, call_service, init_service, read_body_json};
use actix_web::{App, HttpResponse, web};

use super::*;
use crate::http::observe::observe;

/// Status and problem of a request to a route that reads an empty object under a pool.
async fn answer(request: TestRequest) -> (u16, Value) {
    async fn handler(
        _: PoolPath,
        _: NoQuery,
        _: IdempotencyHeader,
        body: JsonBody,
    ) -> Result<HttpResponse, Problem> {
        body.0.finish(Some(()))?;
        Ok(HttpResponse::Ok().json(()))
    }
    async fn put(_: NewPoolPath) -> HttpResponse {
        HttpResponse::Ok().json(())
    }
    let app = init_service(
        App::new()
            .wrap(from_fn(observe))
            .route("/empty", web::post().to(handler))
            .route("/pools/{pool}", web::post().to(handler))
            .route("/pools/{pool}", web::put().to(put)),
    )
    .await;
    let response = call_service(&app, request.to_request()).await;
    let status = response.status().as_u16();
    assert!(response.headers().contains_key("x-request-id"));
    (status, read_body_json(response).await)
}

fn post() -> TestRequest {
    TestRequest::post().uri("/empty")
}

fn json(body: &'static str) -> TestRequest {
    post()
        .insert_header(("content-type", "application/json"))
        .set_payload(body)
}

#[actix_web::test]
async fn an_empty_body_is_an_empty_object_whatever_its_type() {
    assert_eq!(answer(post()).await.0, 200);
    let form = post().insert_header(("content-type", "application/x-www-form-urlencoded"));
    assert_eq!(answer(form).await.0, 200);
}

#[actix_web::test]
async fn only_json_is_taken() {
    for good in [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/merge-patch+json",
    ] {
        let request = post()
            .insert_header(("content-type", good))
            .set_payload("{}");
        assert_eq!(answer(request).await.0, 200, "{good}");
    }
    for bad in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "text/json",
        "application/jsonp",
    ] {
        let request = post()
            .insert_header(("content-type", bad))
            .set_payload("{}");
        let (status, body) = answer(request).await;
        assert_eq!(status, 415, "{bad}");
        assert_eq!(body["type"], "/problems/unsupported-media-type");
    }
    assert_eq!(answer(post().set_payload("{}")).await.0, 415);
    let compressed = json("{}").insert_header(("content-encoding", "gzip"));
    assert_eq!(answer(compressed).await.0, 415);
}

#[actix_web::test]
async fn malformed_json_is_told_by_line_and_column() {
    let (status, body) = answer(json("{\n  \"count\": }")).await;
    assert_eq!(status, 400);
    let detail = body["detail"].as_str().expect("text");
    assert!(detail.ends_with("line 2 column 12"), "{detail}");
    for bad in ["[]", "1", "null", "\"{}\"", "{} {}", "\u{0}", " "] {
        assert_eq!(answer(json(bad)).await.0, 400, "{bad}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(
        answer(
            post()
                .set_payload(deep)
                .insert_header(("content-type", "application/json"))
        )
        .await
        .0,
        400
    );
}

#[actix_web::test]
async fn an_unknown_member_or_parameter_is_refused() {
    let (status, body) = answer(json(r#"{"lifetme": 3}"#)).await;
    assert_eq!(
        (status, &body["errors"][0]["field"]),
        (400, &"lifetme".into())
    );
    let (status, body) = answer(post().uri("/empty?lifetime=3")).await;
    assert_eq!(
        (status, &body["errors"][0]["field"]),
        (400, &"lifetime".into())
    );
}

#[actix_web::test]
async fn a_body_over_the_limit_is_refused() {
    let fits = format!("{{}}{}", " ".repeat(BODY_BYTES_MAX - 2));
    let request = |body: String| json("").set_payload(body);
    assert_eq!(answer(request(fits.clone())).await.0, 200);
    let (status, body) = answer(request(fits + " ")).await;
    assert_eq!(status, 413);
    assert_eq!(body["type"], "/problems/payload-too-large");
    // Before a byte of it has come.
    let announced = json("").insert_header(("content-length", "1048577"));
    assert_eq!(answer(announced).await.0, 413);
}

#[actix_web::test]
async fn a_pool_outside_the_pattern_is_not_found_by_verbs_and_refused_by_put() {
    for name in [
        "_session", "Default", "-a", "a%2Fb", "%zz", "%ff", "a%00", "%25",
    ] {
        let uri = format!("/pools/{name}");
        let (status, body) = answer(TestRequest::post().uri(&uri)).await;
        assert_eq!(status, 404, "{name}");
        assert_eq!(body["type"], "/problems/pool-not-found", "{name}");
        let (status, body) = answer(TestRequest::put().uri(&uri)).await;
        assert_eq!(
            (status, &body["errors"][0]["field"]),
            (400, &"pool".into()),
            "{name}"
        );
    }
    assert_eq!(
        answer(TestRequest::post().uri("/pools/seats-1")).await.0,
        200
    );
}

#[actix_web::test]
async fn a_bad_idempotency_key_is_named() {
    let with = |value: &[u8]| {
        let value = header::HeaderValue::from_bytes(value).expect("a header value");
        post().insert_header(("idempotency-key", value))
    };
    assert_eq!(answer(with(b"order 66")).await.0, 200);
    let long = vec![b'a'; 129];
    for bad in [b"".as_slice(), b"\xe9", b"a\tb", &long] {
        let (status, body) = answer(with(bad)).await;
        assert_eq!(status, 400, "{bad:?}");
        assert_eq!(body["errors"][0]["field"], "Idempotency-Key");
    }
    let twice = with(b"a").append_header(("idempotency-key", "b"));
    assert_eq!(answer(twice).await.0, 400);
}
