//! Which pages of other origins may call this service from a browser: `CORS_ORIGINS`. Without it no answer says
//! anything about origins, and a browser lets none in.

use actix_cors::{Cors, CorsError};
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderName};
use actix_web::middleware::Condition;

use super::observe::X_REQUEST_ID;
use super::problem::Problem;
use super::trace::TRACERESPONSE;
use crate::config::CorsOrigins;

/// For how long a browser need not ask again, seconds: the settings change with a restart, and browsers cap it
/// at two hours or more.
const PREFLIGHT_AGE_S: usize = 3_600;
/// What an answer is rebuilt with: see `observe`.
pub const ANSWER_HEADERS: [HeaderName; 3] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::VARY,
];

/// The middleware, off where no origin is configured. No credentials: this service has no cookies, and a page
/// sends its token in a header of its own accord.
#[must_use]
pub fn cors(origins: &CorsOrigins) -> Condition<Cors> {
    let rules = Cors::default()
        .allowed_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::DELETE,
        ])
        .allowed_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("user"),
            X_REQUEST_ID,
            HeaderName::from_static("traceparent"),
            HeaderName::from_static("tracestate"),
        ])
        // The three of common use, and the two that the later drafts made of them.
        .expose_headers([
            X_REQUEST_ID,
            TRACERESPONSE,
            header::RETRY_AFTER,
            HeaderName::from_static("ratelimit"),
            HeaderName::from_static("ratelimit-policy"),
            HeaderName::from_static("ratelimit-limit"),
            HeaderName::from_static("ratelimit-remaining"),
            HeaderName::from_static("ratelimit-reset"),
        ])
        .max_age(PREFLIGHT_AGE_S);
    match origins {
        CorsOrigins::Any => Condition::new(true, rules.allow_any_origin().send_wildcard()),
        CorsOrigins::Only(origins) => {
            let allow = |rules: Cors, origin: &String| rules.allowed_origin(origin);
            Condition::new(!origins.is_empty(), origins.iter().fold(rules, allow))
        }
    }
}

/// What a preflight that was refused is told.
#[must_use]
pub fn refusal(error: &CorsError) -> Problem {
    match error {
        CorsError::MissingOrigin | CorsError::OriginNotAllowed => {
            Problem::field("Origin", "is none whose pages may call this service")
        }
        CorsError::MissingRequestMethod
        | CorsError::BadRequestMethod
        | CorsError::MethodNotAllowed => Problem::field(
            "Access-Control-Request-Method",
            "must be GET, HEAD, POST, PUT or DELETE",
        ),
        _ => Problem::field(
            "Access-Control-Request-Headers",
            "names a header that pages may not send",
        ),
    }
}
