//! The one format of errors: RFC 9457, plus `statusCode` and `message` for clients of older
//! services. Also the pages that a problem's `type` points to.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::page::{html, marked_up};
pub use super::slugs::Slug;
use crate::flows::FlowOff;
use crate::token::{State, StoreError};

/// `Retry-After` of `store-unavailable`, in seconds: the client reconnects within one.
const STORE_RETRY_AFTER_S: u64 = 1;

/// One field of a request that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The member, parameter or header, as the caller spelt it.
    pub field: String,
    /// What it must be.
    pub detail: String,
}

/// An answer that is not a success. Handlers return it; `observe` renders it with the request id.
#[derive(Debug, Clone)]
pub struct Problem {
    slug: Slug,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<Box<str>>,
}

/// The wire form.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    #[serde(rename = "statusCode")]
    status_code: u16,
    message: &'a str,
    #[serde(flatten)]
    members: &'a Map<String, Value>,
}

impl Problem {
    /// A problem of that kind; `detail` says what is special about this occurrence. It must not
    /// hold anything secret, and for a 5xx it must be a fixed text.
    #[must_use]
    pub fn new(slug: Slug, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            slug,
            detail: detail.into(),
            errors: Vec::new(),
            members: Map::new(),
            headers: Vec::new(),
            cause: None,
        }
    }

    /// `invalid-request`, naming the fields.
    #[must_use]
    pub fn fields(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [] => "the request is not valid".to_owned(),
            [only] => format!("{}: {}", only.field, only.detail),
            [first, rest @ ..] => format!(
                "{}: {} (and {} more, see errors)",
                first.field,
                first.detail,
                rest.len()
            ),
        };
        Self {
            errors,
            ..Self::new(Slug::InvalidRequest, detail)
        }
    }

    /// `invalid-request`, naming one field.
    #[must_use]
    pub fn field(field: &str, detail: impl fmt::Display) -> Self {
        Self::fields(vec![FieldError {
            field: field.to_owned(),
            detail: detail.to_string(),
        }])
    }

    /// `pool-not-found`.
    #[must_use]
    pub fn pool_not_found() -> Self {
        Self::new(Slug::PoolNotFound, "there is no such pool")
    }

    /// `token-not-found`.
    #[must_use]
    pub fn token_not_found() -> Self {
        Self::new(Slug::TokenNotFound, "the pool has no such token")
    }

    /// `not-held`, for a token in that state.
    #[must_use]
    pub fn not_held(state: State) -> Self {
        Self::new(
            Slug::NotHeld,
            format!("the token is {}, not held", state.as_str()),
        )
    }

    /// `lease-lost`.
    #[must_use]
    pub fn lease_lost() -> Self {
        Self::new(Slug::LeaseLost, "the lease has ended")
    }

    /// `idempotency-mismatch`.
    #[must_use]
    pub fn idempotency_mismatch() -> Self {
        Self::new(
            Slug::IdempotencyMismatch,
            "the Idempotency-Key was used for another request",
        )
    }

    /// `flow-off`, naming the variable that would turn it on.
    #[must_use]
    pub fn flow_off(off: FlowOff) -> Self {
        let detail = format!("this needs {}, which is not set", off.told());
        Self::new(Slug::FlowOff, detail.clone()).caused_by(detail)
    }

    /// `flow-full`; the log names the variable that is the limit.
    #[must_use]
    pub fn flow_full(variable: &str) -> Self {
        let detail = "as many tokens of this kind are alive as there may be";
        Self::new(Slug::FlowFull, detail).caused_by(format!("{variable} is reached"))
    }

    /// `internal`; the cause goes to the log alone.
    #[must_use]
    pub fn internal(cause: impl Into<String>) -> Self {
        Self::new(Slug::Internal, "an internal error").caused_by(cause)
    }

    /// What the log says about it, and the caller never sees.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into().into_boxed_str());
        self
    }

    /// Adds a member of its own to the body.
    #[must_use]
    pub fn with_member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds `Retry-After` for something that can happen in `ms` milliseconds.
    #[must_use]
    pub fn with_retry_after_ms(self, ms: u64) -> Self {
        self.with_header(header::RETRY_AFTER, retry_after_s(ms).into())
    }

    /// Which kind it is.
    #[must_use]
    pub fn slug(&self) -> Slug {
        self.slug
    }

    /// The fields that are not as they must be.
    #[must_use]
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// For the log.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The answer as the caller sees it.
    #[must_use]
    pub fn respond(&self, request_id: &str) -> HttpResponse {
        let status = self.slug.status();
        let mut response = HttpResponse::build(status);
        response.content_type("application/problem+json");
        for header in &self.headers {
            response.insert_header(header.clone());
        }
        response.json(Body {
            kind: format!("/problems/{}", self.slug.as_str()),
            title: self.slug.title(),
            status: status.as_u16(),
            detail: &self.detail,
            request_id,
            errors: &self.errors,
            status_code: status.as_u16(),
            message: &self.detail,
            members: &self.members,
        })
    }

    /// What an error of the framework itself means. Its text is not passed on.
    #[must_use]
    pub fn from_framework(error: &actix_web::Error) -> Self {
        let slug = match error.as_response_error().status_code() {
            StatusCode::NOT_FOUND => Slug::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Slug::MethodNotAllowed,
            StatusCode::REQUEST_TIMEOUT => Slug::RequestTimeout,
            StatusCode::PAYLOAD_TOO_LARGE => Slug::PayloadTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Slug::UnsupportedMediaType,
            status if status.is_client_error() => Slug::InvalidRequest,
            _ => return Self::internal(error.to_string()),
        };
        Self::new(slug, "the request could not be read")
    }
}

/// Whole seconds, rounded up, at least 1: a caller that comes back then is never early, and never
/// spins.
fn retry_after_s(ms: u64) -> u64 {
    ms.div_ceil(1_000).max(1)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.slug.as_str(), self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.slug.status()
    }

    /// Without a body: `observe` makes the real answer, and rendering it twice would cost every
    /// poll of an empty pool.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.slug.status())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let cause = error.to_string();
        match error {
            StoreError::Unavailable(_) => Self::new(
                Slug::StoreUnavailable,
                "the store is unavailable; nothing was done",
            )
            .with_retry_after_ms(STORE_RETRY_AFTER_S * 1_000)
            .caused_by(cause),
            StoreError::OutcomeUnknown(_) => Self::new(
                Slug::OutcomeUnknown,
                "the store did not answer; retry with the same Idempotency-Key, or an exchange or a refresh within ROTATION_RETRY",
            )
            .caused_by(cause),
            StoreError::Protocol(_) => Self::internal(cause),
        }
    }
}

/// `GET /problems`: every kind, with a link to its page.
pub async fn list_problems() -> HttpResponse {
    let mut rows = String::from("<h1>Problems</h1>\n<ul>\n");
    for slug in Slug::ALL {
        let (name, title, status) = (slug.as_str(), slug.title(), slug.status().as_u16());
        let _ = writeln!(
            rows,
            "<li><a href=\"/problems/{name}\"><code>{name}</code></a> ({status}): {title}</li>"
        );
    }
    rows.push_str("</ul>\n");
    html("Problems", &rows)
}

/// `GET /problems/{slug}`: the page that a problem's `type` points to.
///
/// # Errors
/// `not-found` for an unknown slug.
pub async fn show_problem(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let asked = request.match_info().get("slug").unwrap_or_default();
    let slug = Slug::find(asked)
        .ok_or_else(|| Problem::new(Slug::NotFound, "there is no such kind of problem"))?;
    let (name, title, status) = (slug.as_str(), slug.title(), slug.status());
    let content = format!(
        "<p><a href=\"/problems\">Problems</a></p>\n<h1>{title}</h1>\n\
         <p><code>{name}</code>, HTTP status {status}</p>\n<p>{}</p>\n",
        marked_up(slug.page())
    );
    Ok(html(title, &content))
}

#[cfg(test)]
#[path = "problem_tests.rs"]
mod tests;
