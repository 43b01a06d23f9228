//! The outermost middleware: gives each request an id, renders problems, and leaves one log line and one
//! measurement per request; and the innermost, which catches panics. What stands between them (`cors`) adds its
//! headers to every answer, and refuses requests as handlers do.
//!
//! No line shows a token: it has the route's pattern instead of the path, and no query.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use actix_cors::CorsError;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpResponse, web};
use futures_util::FutureExt;
use tracing::field::display;

use super::cors;
use super::problem::{Problem, Slug};
use super::trace::{is_routine, set_traceresponse, span_of};
use crate::metrics::Metrics;
use crate::traces::{RequestSpan, within};

/// Most characters of a caller's request id: a UUID has 36, a trace id 55.
const REQUEST_ID_CHARS_MAX: usize = 128;
/// The header of the request id, both ways.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The route of a path that this service does not know.
const UNMATCHED: &str = "unmatched";
/// What the log and the metric say of a caller who left before the answer, as nginx does.
const STATUS_CALLER_LEFT: u16 = 499;

/// The id of a request, in its extensions for whoever logs about it.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// The caller's id if it is sane, else a new one. An id that could break a log line is not sane.
fn request_id(headers: &HeaderMap) -> RequestId {
    let sane = |id: &&str| {
        (1..=REQUEST_ID_CHARS_MAX).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    let given = headers.get(X_REQUEST_ID).and_then(|id| id.to_str().ok());
    RequestId(
        given
            .filter(sane)
            .map_or_else(|| uuid::Uuid::new_v4().to_string(), ToOwned::to_owned),
    )
}

/// Methods come from callers; labels come from this set.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "TRACE" => "TRACE",
        "CONNECT" => "CONNECT",
        _ => "OTHER",
    }
}

/// Makes the series of every kind of problem, before there are any: the first of its kind would show in no rate.
pub fn count_problems_from_zero(metrics: &Metrics) {
    for slug in Slug::ALL {
        metrics.http_problems.with_label_values(&[slug.as_str()]);
    }
}

/// What is known of a request while it runs. Dropped unfinished, its caller has left: that too is
/// told, or a replica that answers nobody in time would look idle.
struct Watch {
    route: String,
    method: &'static str,
    /// A probe or a scrape, answered well, is worth no line.
    routine: bool,
    id: String,
    started: Instant,
    metrics: Option<web::Data<Metrics>>,
    span: Option<RequestSpan>,
    finished: bool,
}

impl Watch {
    fn finish(mut self, status: StatusCode, slug: Option<Slug>, cause: Option<&str>) {
        self.finished = true;
        self.record(status.as_u16(), slug, cause);
    }

    fn record(&self, status: u16, slug: Option<Slug>, cause: Option<&str>) {
        if let Some(span) = &self.span {
            span.end(status, slug.map(Slug::as_str));
        }
        if let (Some(slug), Some(metrics)) = (slug, &self.metrics) {
            let kind = slug.as_str();
            metrics.http_problems.with_label_values(&[kind]).inc();
        }
        let (route, method, request_id) = (self.route.as_str(), self.method, self.id.as_str());
        // A field that is none is not there.
        let (trace_id, span_id) = self.span.as_ref().map(RequestSpan::ids).unzip();
        let (trace_id, span_id) = (trace_id.map(display), span_id.map(display));
        let elapsed = self.started.elapsed();
        // Three digits behind the point; the rest is noise.
        let duration_ms = (elapsed.as_secs_f64() * 1e6).round() / 1e3;
        if let Some(metrics) = &self.metrics {
            metrics
                .http_request_duration
                .with_label_values(&[route, method, status.to_string().as_str()])
                .observe(elapsed.as_secs_f64());
        }
        // The macros of `tracing` take no level at run time.
        macro_rules! line {
            ($level:ident $(, $cause:ident)?) => {
                tracing::$level!(
                    route,
                    method,
                    status,
                    duration_ms,
                    request_id,
                    trace_id,
                    span_id,
                    $($cause,)?
                    "request"
                )
            };
        }
        if status >= 500 {
            let cause = cause.unwrap_or("none given");
            line!(warn, cause);
        } else if self.routine {
            line!(debug);
        } else {
            line!(info);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.finished {
            self.record(STATUS_CALLER_LEFT, None, None);
        }
    }
}

/// The outermost middleware; see the module's documentation.
///
/// # Errors
/// Those of the wrapped service, as rendered problems.
pub async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let id = request_id(request.headers());
    let watch = Watch {
        route: request
            .match_pattern()
            .unwrap_or_else(|| UNMATCHED.to_owned()),
        method: method_label(request.method()),
        routine: is_routine(&request),
        id: id.0.clone(),
        started: Instant::now(),
        metrics: request.app_data::<web::Data<Metrics>>().cloned(),
        span: span_of(&request, method_label(request.method())),
        finished: false,
    };
    request.extensions_mut().insert(id);
    match within(watch.span.as_ref(), next.call(request)).await {
        Ok(response) => Ok(tell(response, watch)),
        Err(error) => Err(tell_without_request(&error, watch)),
    }
}

/// The innermost middleware: a panic is an answer like others to all that stand around it.
///
/// # Errors
/// Those of the wrapped service, and a problem for its panics.
pub async fn catch_panics<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    // Nothing of a request that panicked is used again.
    AssertUnwindSafe(async move { next.call(request).await })
        .catch_unwind()
        .await
        // The panic hook has printed the message; it may quote data, so it is not repeated here.
        .unwrap_or_else(|_| Err(Problem::internal("a handler panicked").into()))
}

/// A problem that a handler or an extractor of ours answered, or what another's error means.
fn problem_of(error: &Error) -> Cow<'_, Problem> {
    if let Some(problem) = error.as_error::<Problem>() {
        return Cow::Borrowed(problem);
    }
    Cow::Owned(match error.as_error::<CorsError>() {
        Some(refused) => cors::refusal(refused),
        None => Problem::from_framework(error),
    })
}

/// The problem as an answer, with what `cors` has put on the one that it takes the place of.
fn rendered(problem: &Problem, id: &str, replaced: &HeaderMap) -> HttpResponse {
    let mut response = problem.respond(id);
    for name in cors::ANSWER_HEADERS {
        if let Some(value) = replaced.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

/// What tells the caller how to find this request again.
fn set_ids(headers: &mut HeaderMap, watch: &Watch) {
    // An id is made of header characters: see `request_id`.
    if let Ok(value) = HeaderValue::from_str(&watch.id) {
        headers.insert(X_REQUEST_ID, value);
    }
    set_traceresponse(headers, watch.span.as_ref());
}

/// Ends a request that was answered, be it with a problem.
fn tell(response: ServiceResponse<impl MessageBody + 'static>, watch: Watch) -> ServiceResponse {
    let problem = response.response().error().map(problem_of);
    let told = problem
        .as_ref()
        .map(|it| rendered(it, &watch.id, response.headers()));
    let slug = problem.as_ref().map(|it| it.slug());
    let cause = problem.and_then(|it| it.cause().map(ToOwned::to_owned));
    let mut response = match told {
        Some(told) => response.into_response(told),
        None => response.map_into_boxed_body(),
    };
    set_ids(response.headers_mut(), &watch);
    watch.finish(response.status(), slug, cause.as_deref());
    response
}

/// Ends a request whose response could not be made along with the request it belongs to.
fn tell_without_request(error: &Error, watch: Watch) -> Error {
    let problem = problem_of(error);
    let mut response = rendered(&problem, &watch.id, error.error_response().headers());
    set_ids(response.headers_mut(), &watch);
    watch.finish(response.status(), Some(problem.slug()), problem.cause());
    InternalError::from_response(problem.to_string(), response).into()
}

#[cfg(test)]
mod tests {
    use actix_web::App;
    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, init_service, read_body_json, try_call_service};
    use serde_json::Value;

    use super::*;
    use crate::config::CorsOrigins;

    /// The answer of a small app whose routes fail in every way, and what it measured.
    async fn answer(request: TestRequest) -> (HttpResponse, String) {
        async fn panics() -> HttpResponse {
            panic!("secret-token")
        }
        async fn problem() -> Result<HttpResponse, Problem> {
            Err(Problem::new(Slug::StoreUnavailable, "away").caused_by("secret-host"))
        }
        async fn framework(_: web::Json<Value>) -> HttpResponse {
            HttpResponse::Ok().finish()
        }
        let metrics = web::Data::new(Metrics::new());
        let app = init_service(
            App::new()
                .app_data(metrics.clone())
                .wrap(from_fn(catch_panics))
                .wrap(cors::cors(&CorsOrigins::Any))
                .wrap(from_fn(observe))
                .route("/ok/{token}", web::to(HttpResponse::Ok))
                .route("/panic", web::to(panics))
                .route("/problem", web::to(problem))
                .route("/framework", web::post().to(framework)),
        )
        .await;
        let response = match try_call_service(&app, request.to_request()).await {
            Ok(response) => response.into_parts().1,
            Err(error) => error.error_response(),
        };
        (response, metrics.render())
    }

    fn id_of(response: &HttpResponse) -> String {
        let id = response.headers().get(X_REQUEST_ID).expect("an id");
        id.to_str().expect("text").to_owned()
    }

    async fn json_of(response: HttpResponse) -> Value {
        let request = TestRequest::default().to_http_request();
        read_body_json(ServiceResponse::new(request, response)).await
    }

    #[actix_web::test]
    async fn a_sane_request_id_is_kept_and_another_replaced() {
        let with = |id: &str| TestRequest::with_uri("/ok/x").insert_header(("x-request-id", id));
        let (response, _) = answer(with("a.B-9_")).await;
        assert_eq!(id_of(&response), "a.B-9_");
        for bad in ["", "a b", "a\"b", &"x".repeat(129)] {
            let (response, _) = answer(with(bad)).await;
            let id = id_of(&response);
            assert!(uuid::Uuid::parse_str(&id).is_ok(), "{bad} -> {id}");
        }
    }

    #[actix_web::test]
    async fn a_problem_tells_the_request_id_and_hides_its_cause() {
        let request = TestRequest::with_uri("/problem").insert_header(("x-request-id", "r7"));
        let (response, _) = answer(request).await;
        assert_eq!(response.status(), 503);
        assert_eq!(id_of(&response), "r7");
        let body = json_of(response).await;
        assert_eq!(body["request_id"], "r7");
        assert!(!body.to_string().contains("secret"), "{body}");
    }

    #[actix_web::test]
    async fn a_panic_is_an_internal_problem() {
        let (response, metrics) = answer(TestRequest::with_uri("/panic")).await;
        assert_eq!(response.status(), 500);
        assert!(response.headers().contains_key("x-request-id"));
        let body = json_of(response).await;
        assert_eq!(body["type"], "/problems/internal");
        assert!(!body.to_string().contains("secret"), "{body}");
        assert!(metrics.contains(r#"route="/panic",status="500""#));
    }

    #[actix_web::test]
    async fn every_answer_says_who_may_read_it() {
        for path in ["/ok/x", "/nope", "/problem", "/panic", "/framework"] {
            let request = TestRequest::with_uri(path).insert_header(("origin", "https://a.test"));
            let (response, _) = answer(request).await;
            let headers = response.headers();
            let told = headers.get("access-control-allow-origin");
            assert!(told.is_some_and(|it| it == "*"), "{path}: {told:?}");
            for name in ["access-control-expose-headers", "vary", "x-request-id"] {
                assert_eq!(headers.get_all(name).count(), 1, "{path}: {name}");
            }
        }
    }

    #[actix_web::test]
    async fn an_error_of_the_framework_is_a_problem_too() {
        let request = TestRequest::post()
            .uri("/framework")
            .insert_header(("content-type", "application/json"))
            .set_payload("{");
        let (response, _) = answer(request).await;
        assert_eq!(response.status(), 400);
        assert_eq!(json_of(response).await["type"], "/problems/invalid-request");
    }

    #[actix_web::test]
    async fn labels_are_patterns_and_known_methods() {
        let (_, metrics) = answer(TestRequest::with_uri("/ok/seat-1?token=seat-2")).await;
        assert!(metrics.contains(r#"method="GET",route="/ok/{token}",status="200""#));
        assert!(!metrics.contains("seat-"));
        let brew = Method::from_bytes(b"BREW").expect("a method");
        let (_, metrics) = answer(TestRequest::with_uri("/seat-1").method(brew)).await;
        assert!(metrics.contains(r#"method="OTHER",route="unmatched""#));
        assert!(!metrics.contains("seat-"));
    }

    #[actix_web::test]
    async fn a_caller_who_left_is_measured() {
        let metrics = web::Data::new(Metrics::new());
        let app = init_service(
            App::new()
                .app_data(metrics.clone())
                .wrap(from_fn(observe))
                .route("/slow", web::to(std::future::pending::<HttpResponse>)),
        )
        .await;
        let request = TestRequest::with_uri("/slow").to_request();
        let mut call = Box::pin(try_call_service(&app, request));
        assert!(futures_util::poll!(&mut call).is_pending());
        drop(call);
        let told = metrics.render();
        assert!(told.contains(r#"method="GET",route="/slow",status="499""#));
    }
}
