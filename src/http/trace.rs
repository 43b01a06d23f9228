//! Which requests have a span, and how their callers find it.

use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::web;

use crate::traces::{RequestSpan, Traces};

/// Where a caller finds its request's trace, while there are traces. W3C's name for that; `traceparent` says whose child
/// a request is, and says nothing in an answer.
pub const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");
/// What machines ask every few seconds, each time for the same answer: a trace of that tells nothing, nor does a line in
/// the log.
const ROUTINE: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// Whether it is a probe or a scrape. `OPTIONS /` and `OPTIONS *` are default checks of HAProxy.
pub fn is_routine(request: &ServiceRequest) -> bool {
    let route = request.match_pattern();
    let check = request.method() == Method::OPTIONS && matches!(request.path(), "/" | "*");
    check || route.is_some_and(|route| ROUTINE.contains(&route.as_str()))
}

/// The span of a request, while there are traces.
pub fn span_of(request: &ServiceRequest, method: &'static str) -> Option<RequestSpan> {
    let traces = request.app_data::<web::Data<Traces>>()?;
    if !traces.on() {
        return None;
    }
    if is_routine(request) {
        return None;
    }
    let route = request.match_pattern();
    let headers = request.headers();
    let header = |name: &'static str| headers.get_all(name).map(|it| it.to_str().ok());
    traces.request(method, route.as_deref(), header)
}

/// Tells the caller of it.
pub fn set_traceresponse(headers: &mut HeaderMap, span: Option<&RequestSpan>) {
    let value = span.map(RequestSpan::traceresponse);
    if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
        headers.insert(TRACERESPONSE, value);
    }
}
