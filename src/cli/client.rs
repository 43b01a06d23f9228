//! The HTTP contract of the pools as Rust functions: one per verb, typed answers, typed errors.
//!
//! Tokens travel in bodies only, never in a URL, so that no proxy's log shows one.

use std::fmt;
use std::sync::Once;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;
use serde_json::Number;

pub use super::address::{ServiceUrl, parse_url};
use super::duration;
use super::error::{CallError, Failure, Problem};
pub use super::wire::{
    Added, Answer, AssignRequest, Grant, PolicyFields, Pool, Pools, TokenRequest, TokenState,
};
use crate::token::{IdempotencyKey, PoolName};
use crate::version::VERSION;

/// A service that is up accepts at once; 2 s allow for one lost SYN.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The service answers within 2 s even when its store is gone; the rest is for the network.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// An import call carries up to 1 MiB, perhaps over a slow line.
const IMPORT_TIMEOUT: Duration = Duration::from_mins(1);

/// Says which cryptography reqwest's TLS uses; it wants to know even where nothing is encrypted.
pub(crate) fn install_tls() {
    static TLS: Once = Once::new();
    TLS.call_once(|| {
        // An error means that a provider is installed already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// How we ask anybody at that host.
pub(crate) fn builder_for(host: Option<&str>) -> reqwest::ClientBuilder {
    install_tls();
    let builder = reqwest::Client::builder()
        .user_agent(format!("tokend/{VERSION}"))
        // A redirected POST would become a GET: say so instead of asking another question.
        .redirect(reqwest::redirect::Policy::none());
    if host.is_some_and(is_loopback) {
        // No proxy can reach our own loopback.
        builder.no_proxy()
    } else {
        builder
    }
}

/// A connection pool to one service. Clones share it. Debug does not show the address, which may carry a password.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// # Errors
    /// When the TLS set-up of this machine is unusable.
    #[allow(clippy::needless_pass_by_value)] // The client keeps the URL, in another form.
    pub fn new(base: Url) -> Result<Self, Failure> {
        let builder = builder_for(base.host_str())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .default_headers(trace_context(|name| std::env::var(name).ok()));
        let http = builder.build().map_err(|error| {
            let why = root_cause(&error);
            Failure::usage(format!("cannot set up HTTP: {why}"))
        })?;
        let base = base.as_str().trim_end_matches('/').to_owned();
        Ok(Self { http, base })
    }

    /// Whether the service says that it is ready for work.
    pub async fn is_ready(&self) -> bool {
        let sent = self.request(Method::GET, "/readyz").send().await;
        sent.is_ok_and(|response| response.status().is_success())
    }

    /// # Errors
    /// See [`CallError`]; so for all below.
    pub async fn list_pools(&self) -> Result<Answer<Pools>, CallError> {
        call(self.request(Method::GET, "/v1/pools")).await
    }

    /// # Errors
    /// See [`CallError`].
    pub async fn show_pool(&self, pool: &PoolName) -> Result<Answer<Pool>, CallError> {
        call(self.request(Method::GET, &pool_path(pool, ""))).await
    }

    /// Creates the pool, or changes the fields given.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn put_pool(
        &self,
        pool: &PoolName,
        fields: &PolicyFields,
    ) -> Result<Answer<Pool>, CallError> {
        call(self.request(Method::PUT, &pool_path(pool, "")).json(fields)).await
    }

    /// Deletes the pool and its tokens.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn delete_pool(&self, pool: &PoolName) -> Result<(), CallError> {
        let request = self.request(Method::DELETE, &pool_path(pool, ""));
        answered(request).await.map(|_body| ())
    }

    /// Adds `count` new tokens.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn generate(&self, pool: &PoolName, count: u32) -> Result<Answer<Added>, CallError> {
        let body = serde_json::json!({ "count": count });
        call(self.post(pool, "/generate").json(&body)).await
    }

    /// Adds the user's own tokens; the body is `{"tokens": […]}`, made by the import.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn import(&self, pool: &PoolName, body: String) -> Result<Answer<Added>, CallError> {
        let request = self
            .post(pool, "/generate")
            .timeout(IMPORT_TIMEOUT)
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        call(request).await
    }

    /// Leases a token. With a key, a retry finds the same grant.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn assign(
        &self,
        pool: &PoolName,
        body: &AssignRequest,
        key: Option<&IdempotencyKey>,
    ) -> Result<Answer<Grant>, CallError> {
        let wait = body.wait_seconds.as_ref().and_then(Number::as_f64);
        let wait = duration::from_seconds(wait.unwrap_or_default());
        let request = self.post(pool, "/assign").json(body);
        let mut request = request.timeout(REQUEST_TIMEOUT + wait);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key.as_str());
        }
        call(request).await
    }

    /// Extends a lease; `timeout` is for the whole request.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn keep_alive(
        &self,
        pool: &PoolName,
        body: &TokenRequest,
        timeout: Duration,
    ) -> Result<Answer<TokenState>, CallError> {
        call(self.post(pool, "/keep-alive").json(body).timeout(timeout)).await
    }

    /// Gives a token back.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn unblock(
        &self,
        pool: &PoolName,
        body: &TokenRequest,
    ) -> Result<Answer<TokenState>, CallError> {
        call(self.post(pool, "/unblock").json(body)).await
    }

    /// Deletes a token.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn delete(
        &self,
        pool: &PoolName,
        body: &TokenRequest,
    ) -> Result<Answer<TokenState>, CallError> {
        call(self.post(pool, "/delete").json(body)).await
    }

    /// Shows where a token stands.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn inspect(
        &self,
        pool: &PoolName,
        body: &TokenRequest,
    ) -> Result<Answer<TokenState>, CallError> {
        call(self.post(pool, "/inspect").json(body)).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    fn post(&self, pool: &PoolName, verb: &str) -> RequestBuilder {
        self.request(Method::POST, &pool_path(pool, verb))
    }
}

/// Whoever ran us may have put the trace that it works in into the environment, and we go on with it
/// (<https://opentelemetry.io/docs/specs/otel/context/env-carriers/>). COMMAND of `tokend lease` inherits both variables.
fn trace_context(variable: impl Fn(&str) -> Option<String>) -> HeaderMap {
    let carried = [("TRACEPARENT", "traceparent"), ("TRACESTATE", "tracestate")];
    let headers = carried.into_iter().filter_map(|(name, header)| {
        let given = variable(name).filter(|given| !given.is_empty())?;
        // What can't be a header is not worth failing for: the service looks at what is in it.
        let value = HeaderValue::from_str(&given).ok()?;
        Some((HeaderName::from_static(header), value))
    });
    headers.collect()
}

/// A pool's name needs no escaping: its characters are all safe in a path.
fn pool_path(pool: &PoolName, verb: &str) -> String {
    format!("/v1/pools/{pool}{verb}")
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_matches(['[', ']']);
    host == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

async fn call<T: DeserializeOwned>(request: RequestBuilder) -> Result<Answer<T>, CallError> {
    let (status, body) = answered(request).await?;
    match serde_json::from_str(&body) {
        // JSON has no raw line breaks inside texts, so this leaves it the same JSON.
        Ok(value) => Ok(Answer {
            value,
            json: body.trim().replace(['\r', '\n'], " "),
        }),
        Err(_) => Err(CallError::Strange {
            status,
            why: "the answer is not the one expected".to_owned(),
        }),
    }
}

/// The status and body of a success.
async fn answered(request: RequestBuilder) -> Result<(u16, String), CallError> {
    let response = request.send().await.map_err(|error| transport(&error))?;
    let status = response.status();
    let retry_after = retry_after(&response);
    let body = response.text().await.map_err(|error| transport(&error))?;
    if status.is_success() {
        return Ok((status.as_u16(), body));
    }
    match serde_json::from_str::<Problem>(&body) {
        Ok(problem) if !problem.kind.is_empty() => Err(CallError::Refused(Problem {
            // The status line decides; a proxy may have changed it.
            status: status.as_u16(),
            retry_after,
            ..problem
        })),
        _ => Err(CallError::Strange {
            status: status.as_u16(),
            why: "not an answer of tokend".to_owned(),
        }),
    }
}

/// Whole seconds; the form with a date is not in the contract.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

pub(crate) fn transport(error: &reqwest::Error) -> CallError {
    let why = root_cause(error);
    if error.is_connect() || error.is_builder() {
        CallError::NotSent(why)
    } else if error.is_timeout() {
        CallError::NoAnswer("timed out".to_owned())
    } else {
        CallError::NoAnswer(why)
    }
}

/// The innermost cause: the outer ones name the URL, which may carry a password.
pub(crate) fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if cause.is::<reqwest::Error>() {
        return if error.is_timeout() {
            "timed out"
        } else {
            "HTTP failed"
        }
        .to_owned();
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_in_the_url_is_kept_and_slashes_are_not_doubled() {
        let client = Client::new(parse_url("http://localhost:1/prefix/").unwrap()).unwrap();
        let request = client.request(Method::GET, "/v1/pools").build().unwrap();
        assert_eq!(request.url().as_str(), "http://localhost:1/prefix/v1/pools");
    }

    #[test]
    fn the_trace_in_the_environment_is_carried_on() {
        let headers = trace_context(|name| match name {
            "TRACEPARENT" => Some("00-1-2-01".to_owned()),
            _ => Some(String::new()),
        });
        assert_eq!(headers.len(), 1);
        assert_eq!(headers["traceparent"], "00-1-2-01");
        assert!(trace_context(|_| None).is_empty());
        assert!(trace_context(|_| Some("a\nb".to_owned())).is_empty());
    }

    #[test]
    fn what_is_not_given_is_not_sent() {
        let body = serde_json::to_string(&TokenRequest::plain("a")).unwrap();
        assert_eq!(body, r#"{"token":"a"}"#);
        let empty = serde_json::to_string(&AssignRequest::default()).unwrap();
        assert_eq!(empty, "{}");
    }

    #[test]
    fn loopback_is_recognised() {
        for host in ["localhost", "127.0.0.1", "127.8.8.8", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        assert!(!is_loopback("example.com"));
    }
}
