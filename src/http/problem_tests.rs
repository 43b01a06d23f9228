use actix_web::body::to_bytes;
use actix_web::test::{TestRequest, call_and_read_body, call_service, init_service, read_body};
use actix_web::{App, web};
use serde_json::json;

use super::*;

async fn body(problem: &Problem) -> (HttpResponse, Value) {
    let response = problem.respond("r-1");
    let bytes = to_bytes(problem.respond("r-1").into_body())
        .await
        .expect("a body");
    (response, serde_json::from_slice(&bytes).expect("JSON"))
}

#[actix_web::test]
async fn a_problem_has_the_members_of_the_contract() {
    let problem = Problem::new(Slug::PoolFull, "no room for 3 more")
        .with_member("max_tokens", 10)
        .with_member("total", 8);
    let (response, body) = body(&problem).await;
    assert_eq!(response.status(), 409);
    let kind = response.headers().get(header::CONTENT_TYPE);
    assert!(kind.is_some_and(|it| it == "application/problem+json"));
    assert_eq!(
        body,
        json!({
            "type": "/problems/pool-full", "title": "The pool is full", "status": 409,
            "detail": "no room for 3 more", "request_id": "r-1",
            "statusCode": 409, "message": "no room for 3 more", "max_tokens": 10, "total": 8,
        })
    );
}

#[actix_web::test]
async fn field_errors_are_listed() {
    let (_, body) = body(&Problem::field("count", "is missing")).await;
    assert_eq!(body["detail"], "count: is missing");
    assert_eq!(
        body["errors"],
        json!([{"field": "count", "detail": "is missing"}])
    );
}

#[actix_web::test]
async fn a_5xx_keeps_its_cause_to_itself() {
    let cases = [
        (
            StoreError::Unavailable("redis-7.local".into()),
            "store-unavailable",
            503,
        ),
        (
            StoreError::OutcomeUnknown("redis-7.local".into()),
            "outcome-unknown",
            503,
        ),
        (
            StoreError::Protocol("redis-7.local".into()),
            "internal",
            500,
        ),
    ];
    for (error, slug, status) in cases {
        let retry = matches!(error, StoreError::Unavailable(_));
        let problem = Problem::from(error);
        let (response, body) = body(&problem).await;
        assert_eq!(response.status(), status);
        assert_eq!(body["type"], format!("/problems/{slug}"));
        assert!(!body.to_string().contains("redis-7.local"), "{body}");
        assert!(problem.cause().is_some_and(|it| it.contains("redis-7")));
        let retry_after = response.headers().get(header::RETRY_AFTER);
        assert_eq!(retry_after.is_some_and(|it| it == "1"), retry);
    }
}

#[test]
fn retry_after_is_rounded_up_and_at_least_one() {
    let cases = [
        (0, 1),
        (1, 1),
        (999, 1),
        (1_000, 1),
        (1_001, 2),
        (60_000, 60),
    ];
    for (ms, seconds) in cases {
        assert_eq!(retry_after_s(ms), seconds, "{ms} ms");
    }
}

#[actix_web::test]
async fn every_slug_has_its_page_and_no_other_does() {
    let app = init_service(
        App::new()
            .route("/problems", web::get().to(list_problems))
            .route("/problems/{slug}", web::get().to(show_problem)),
    )
    .await;
    let list = TestRequest::get().uri("/problems").to_request();
    let list = call_and_read_body(&app, list).await;
    let list = String::from_utf8(list.to_vec()).expect("UTF-8");
    for slug in Slug::ALL {
        let uri = format!("/problems/{}", slug.as_str());
        assert!(list.contains(&uri), "{uri} is not listed");
        assert_eq!(Slug::find(slug.as_str()), Some(*slug));
        assert_eq!(slug.page().matches('`').count() % 2, 0, "{uri}: unclosed `");
        assert!(!slug.page().contains(['<', '&']), "{uri}: markup");
        let request = TestRequest::get().uri(&uri).to_request();
        let response = call_service(&app, request).await;
        assert_eq!(response.status(), 200, "{uri}");
        let page = read_body(response).await;
        let page = String::from_utf8(page.to_vec()).expect("UTF-8");
        assert!(page.contains(slug.title()), "{uri}");
    }
    let request = TestRequest::get().uri("/problems/nope").to_request();
    assert_eq!(call_service(&app, request).await.status(), 404);
}
