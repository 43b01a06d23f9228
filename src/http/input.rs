//! What handlers take from a request: the pool in its path, its body, its query, its headers. Each
//! is an extractor whose failure is a [`Problem`].

use std::fmt;
use std::future::{Ready, ready};
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use bytes::{Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt, StreamExt};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::fields::Fields;
use super::problem::{Problem, Slug};
use crate::token::{IdempotencyKey, Invalid, PoolName};

/// Most bytes of a body. An import of 10,000 values of up to 100 bytes fits, or of 250 of the longest.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Longest time for a body to arrive. The server limits only the time for the head; without this a
/// client that sends a byte now and then keeps a connection for ever.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// The header that makes a retry find the first call's result.
const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// The pool that a verb acts on: the one in the path, or `default` for `/tokens/*`. A name that no
/// pool can have is simply not found.
pub struct PoolPath(pub PoolName);

impl FromRequest for PoolPath {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let pool = pool_in_path(request).map_err(|_| Problem::pool_not_found());
        ready(pool.map(Self))
    }
}

/// The pool that PUT names: one outside the pattern is a mistake, since it can never be made.
pub struct NewPoolPath(pub PoolName);

impl FromRequest for NewPoolPath {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let pool = pool_in_path(request).map_err(|invalid| Problem::field("pool", invalid));
        ready(pool.map(Self))
    }
}

/// The router leaves invalid percent-encoding as it is, and `%` is in no pool's name.
fn pool_in_path(request: &HttpRequest) -> Result<PoolName, Invalid> {
    match request.match_info().get("pool") {
        Some(name) => PoolName::parse(name),
        None => Ok(PoolName::default_pool()),
    }
}

/// The query's parameters.
pub struct Query(pub Fields);

impl FromRequest for Query {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Self(Fields::from_query(request.query_string()))))
    }
}

/// No query: an option put there instead of into the body would be ignored without a word.
pub struct NoQuery;

impl FromRequest for NoQuery {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Fields::from_query(request.query_string()).finish(Some(Self)))
    }
}

/// The request's `Idempotency-Key`, if it has one.
pub struct IdempotencyHeader(pub Option<IdempotencyKey>);

impl FromRequest for IdempotencyHeader {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(idempotency_key(request).map(Self))
    }
}

fn idempotency_key(request: &HttpRequest) -> Result<Option<IdempotencyKey>, Problem> {
    let mut given = request.headers().get_all(IDEMPOTENCY_KEY);
    let Some(value) = given.next() else {
        return Ok(None);
    };
    if given.next().is_some() {
        return Err(Problem::field(IDEMPOTENCY_KEY, "is given more than once"));
    }
    // What is not ASCII text fails in the same way as an empty key.
    IdempotencyKey::parse(value.to_str().unwrap_or_default())
        .map(Some)
        .map_err(|invalid| Problem::field(IDEMPOTENCY_KEY, invalid))
}

/// A body that is a JSON object. An empty one counts as `{}` whatever its content type, so that a
/// missing member is told by name.
pub struct JsonBody(pub Fields);

impl FromRequest for JsonBody {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = read_body(request, payload.take());
        let media = check_media(request);
        async move {
            let body = body.await?;
            if body.is_empty() {
                return Ok(Self(Fields::default()));
            }
            media?;
            parse_object(&body).map(Self)
        }
        .boxed_local()
    }
}

fn too_large() -> Problem {
    Problem::new(
        Slug::PayloadTooLarge,
        format!("the body is over {BODY_BYTES_MAX} bytes; send a long list in several requests"),
    )
}

/// The whole body, refused as soon as it is known to be too large.
pub(super) fn read_body(
    request: &HttpRequest,
    mut payload: Payload,
) -> impl Future<Output = Result<Bytes, Problem>> + 'static {
    let declared_bytes = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    async move {
        if declared_bytes.is_some_and(|bytes| bytes > BODY_BYTES_MAX as u64) {
            return Err(too_large());
        }
        let read = async {
            let mut body = BytesMut::new();
            while let Some(chunk) = payload.next().await {
                let chunk = chunk.map_err(|error| unreadable(&error))?;
                if body.len() + chunk.len() > BODY_BYTES_MAX {
                    return Err(too_large());
                }
                body.extend_from_slice(&chunk);
            }
            Ok(body.freeze())
        };
        let late = Problem::new(Slug::RequestTimeout, "the body did not arrive in time");
        tokio::time::timeout(BODY_TIME_MAX, read)
            .await
            .unwrap_or(Err(late))
    }
}

fn unreadable(error: &PayloadError) -> Problem {
    if matches!(error, PayloadError::Overflow) {
        return too_large();
    }
    Problem::new(
        Slug::InvalidRequest,
        "the body could not be read to its end",
    )
}

/// Whether the body says that it is `application/json` or `application/*+json`, with or without parameters.
pub(super) fn says_json(request: &HttpRequest) -> bool {
    let media = request.content_type().to_ascii_lowercase();
    media == "application/json" || (media.starts_with("application/") && media.ends_with("+json"))
}

/// That the body says it is JSON, and that it is not compressed.
pub(super) fn check_media(request: &HttpRequest) -> Result<(), Problem> {
    let json = says_json(request);
    let plain = request
        .headers()
        .get_all(header::CONTENT_ENCODING)
        .all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    match (json, plain) {
        (true, true) => Ok(()),
        (false, _) => Err(Problem::new(
            Slug::UnsupportedMediaType,
            "a body must have Content-Type: application/json",
        )),
        (true, false) => Err(Problem::new(
            Slug::UnsupportedMediaType,
            "a body must not be compressed",
        )),
    }
}

/// The members of a body, and the names of those given twice: a mistake, since readers differ in which
/// of the two they take, and what a proxy has checked may not be what we would act on.
#[derive(Default)]
struct Members {
    values: Map<String, Value>,
    twice: Vec<String>,
}

impl<'de> Visitor<'de> for Members {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if self.values.contains_key(&name) {
                self.twice.push(name.clone());
            }
            self.values.insert(name, value);
        }
        Ok(self)
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(body: D) -> Result<Self, D::Error> {
        body.deserialize_map(Self::default())
    }
}

pub(crate) fn parse_object(body: &[u8]) -> Result<Fields, Problem> {
    match serde_json::from_slice::<Members>(body) {
        Ok(Members { values, twice }) => {
            let mut fields = Fields::new(values);
            for name in twice {
                fields.refuse(&name, "is given more than once");
            }
            Ok(fields)
        }
        Err(error) => Err(no_object(&error)),
    }
}

/// Why a body could not be read as an object whose members may have any value.
pub(super) fn no_object(error: &serde_json::Error) -> Problem {
    let detail = if error.is_data() {
        // Any value of a member will do, so the type that is wrong is the body's own.
        "the body must be a JSON object".to_owned()
    } else {
        // The parser names what it expected and where, never what it found.
        format!("the body is not valid JSON: {error}")
    };
    Problem::new(Slug::InvalidRequest, detail)
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;
