//! The HTTP contract, against the real server on a port of its own.
//!
//! Reading order: this file (the server and its answers), then a file per part of the contract.

mod abandoned;
mod access_tokens;
pub mod ann;
mod cors;
mod document;
mod errors;
mod flows;
mod foreign;
mod idempotency;
mod identity;
mod listing;
mod logins;
mod long_tokens;
mod metrics;
mod mistakes;
mod oauth;
mod one_time;
mod one_time_keys;
mod outage;
mod outside;
mod pages;
mod pool;
mod revocation;
pub mod rotation;
mod sessions;
mod standard_client;
mod system;
mod temporary;
mod temporary_mistakes;
mod unified;
mod waiting;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokend::flows::Flows;
use tokend::http::problem::Slug;
use tokend::http::system::ShuttingDown;
use tokend::server::{self, App};

pub use self::flows::{flows, flows_of, flows_with};
use crate::harness::Fixture;
pub use crate::support::http_client;

/// Longest that an answer may take before the test gives up: no timing assertion.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// The real server on the data set of a fixture, stopped when dropped.
pub struct Server {
    pub fixture: Fixture,
    pub address: SocketAddr,
    pub shutting_down: ShuttingDown,
    http: reqwest::Client,
    handle: actix_web::dev::ServerHandle,
    thread: Option<JoinHandle<()>>,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Server {
    /// On a new data set of the shared Redis.
    pub async fn start() -> Self {
        Self::on(Fixture::new().await).await
    }

    /// On a data set that is there already.
    pub async fn on(fixture: Fixture) -> Self {
        Self::with(fixture, flows()).await
    }

    /// The same, with these variables set.
    pub async fn with_settings(fixture: Fixture, settings: &[(&str, &str)]) -> Self {
        Self::with(fixture, flows_with(settings)).await
    }

    /// The same with other settings and keys of the flows.
    pub async fn with(fixture: Fixture, flows: Flows) -> Self {
        Self::with_flows(fixture, |_| flows).await
    }

    /// The same with flows that may depend on where it listens.
    pub async fn with_flows(fixture: Fixture, flows: impl FnOnce(SocketAddr) -> Flows) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shutting_down = ShuttingDown::default();
        let app = App {
            traces: tokend::traces::Traces::default(),
            store: fixture.store.clone(),
            flows: Arc::new(flows(address)),
            metrics: fixture.metrics.clone(),
            shutting_down: shutting_down.clone(),
        };
        let (sender, receiver) = tokio::sync::oneshot::channel();
        // The server in a runtime of its own: it ends with its thread, not with the test's runtime.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let server = server::start(listener, app, 1).expect("it starts");
                assert!(sender.send(server.handle()).is_ok(), "the test waits");
                server.await.expect("it runs");
            });
        });
        Self {
            fixture,
            address,
            shutting_down,
            http: http_client(),
            handle: receiver.await.expect("it started"),
            thread: Some(thread),
        }
    }

    /// A server whose pool `seats` has that policy and those tokens.
    pub async fn with_seats(policy: Value, tokens: &[&str]) -> Self {
        let server = Self::start().await;
        let made = server.put("/v1/pools/seats", policy).await;
        assert_eq!(made.status, 201, "{}", made.body);
        if !tokens.is_empty() {
            let path = "/v1/pools/seats/generate";
            let added = server.post(path, json!({ "tokens": tokens })).await;
            assert_eq!(added.status, 201, "{}", added.body);
        }
        server
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.address);
        self.http.request(method, url).timeout(ANSWER_TIME_MAX)
    }

    pub async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        answer(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        answer(self.request(Method::PUT, path).json(&body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        answer(self.request(Method::DELETE, path)).await
    }

    /// Sends bytes that no HTTP client would, and reads what comes back: one answer, or all until the server
    /// closes.
    pub fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        let patience = Some(ANSWER_TIME_MAX);
        stream.set_read_timeout(patience).expect("a timeout");
        stream.set_write_timeout(patience).expect("a timeout");
        // It may answer and close before all is written: what it says is what counts.
        let _ = stream.write_all(bytes);
        let mut told = Vec::new();
        let mut buffer = [0; 4_096];
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            told.extend(&buffer[..read]);
            if is_whole(&String::from_utf8_lossy(&told)) {
                break;
            }
        }
        String::from_utf8_lossy(&told).into_owned()
    }

    /// A verb on pool `seats`.
    pub async fn seats(&self, verb: &str, body: Value) -> Answer {
        self.post(&format!("/v1/pools/seats/{verb}"), body).await
    }

    /// An assign from `seats` that must succeed.
    pub async fn grant(&self) -> Value {
        self.seats("assign", json!({})).await.json(200)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The request to stop is sent by the call itself; the future only waits for its end.
        drop(self.handle.stop(false));
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the server ended badly");
        }
    }
}

/// Whether the text is an answer as long as its head says.
fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    length.is_some_and(|length| length.parse() == Ok(body.len()))
}

/// Sends it and reads the answer. It must be what the OpenAPI document says, and whatever is not a success a
/// problem of the contract's form.
pub async fn answer(request: RequestBuilder) -> Answer {
    let (client, request) = request.build_split();
    let request = request.expect("a request");
    let (method, path) = (request.method().clone(), request.url().path().to_owned());
    let response = client.execute(request).await.expect("an answer");
    let answer = Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.text().await.expect("a body"),
    };
    let id = answer.header("x-request-id").expect("a request id");
    assert!(!id.is_empty());
    if answer.status >= 400 && !answer.body.is_empty() {
        answer.assert_well_formed_problem();
    }
    document::check(&document::Seen {
        method: method.as_str(),
        path: &path,
        status: answer.status,
        content_type: answer.header("content-type"),
        body: &answer.body,
    });
    answer
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.get(name)?;
        Some(value.to_str().expect("ASCII"))
    }

    /// The body, after a look at the status.
    pub fn json(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        let kind = self.header("content-type");
        assert_eq!(kind, Some("application/json"), "{}", self.body);
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// The body with what no test can know made known: times, new tokens, fences.
    pub fn shape(&self, status: u16) -> Value {
        shape(self.json(status))
    }

    /// A problem, after a look at its kind and status.
    pub fn problem(&self, slug: &str, status: u16) -> Value {
        let told = (self.status, self.problem_kind());
        assert_eq!(told, (status, slug.to_owned()), "{}", self.body);
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// The last segment of a problem's type.
    pub fn problem_kind(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        let kind = body["type"].as_str().unwrap_or_default();
        kind.trim_start_matches("/problems/").to_owned()
    }

    /// `Retry-After`, which must be whole seconds and at least 1.
    pub fn retry_after_s(&self) -> u64 {
        let told = self.header("retry-after").expect("Retry-After");
        let seconds = told.parse().expect("whole seconds");
        assert!(seconds >= 1, "{told}");
        seconds
    }

    /// The members of RFC 9457 and of the older format, and nothing that is not documented.
    fn assert_well_formed_problem(&self) {
        let told = &self.body;
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{told}"
        );
        let body: Value = serde_json::from_str(told).expect("JSON");
        let slug = body["type"].as_str().expect("a type");
        let slug = slug.strip_prefix("/problems/").expect("one of ours");
        let slug = Slug::find(slug).expect("in the table");
        assert_eq!(body["title"], slug.title());
        assert_eq!(body["status"], self.status);
        assert_eq!(slug.status().as_u16(), self.status);
        assert_eq!(body["statusCode"], body["status"]);
        assert!(body["detail"].as_str().is_some_and(|it| !it.is_empty()));
        assert_eq!(body["message"], body["detail"]);
        assert_eq!(body["request_id"].as_str(), self.header("x-request-id"));
        let errors = body.get("errors").map(|it| it.as_array().expect("a list"));
        for error in errors.into_iter().flatten() {
            let error = error.as_object().expect("an object");
            let names: Vec<_> = error.keys().collect();
            assert_eq!(names, ["detail", "field"], "{told}");
            assert!(error.values().all(Value::is_string), "{told}");
        }
        let known = [
            "type",
            "title",
            "status",
            "detail",
            "request_id",
            "errors",
            "statusCode",
            "message",
        ];
        let own = [
            "max_tokens",
            "total",
            "checks",
            "error",
            "error_description",
        ];
        for member in body.as_object().expect("an object").keys() {
            let member = member.as_str();
            assert!(known.contains(&member) || own.contains(&member), "{told}");
        }
    }
}

/// Replaces RFC 3339 times with milliseconds by `<time>`, UUIDs by `<uuid>`, fences by `<fence>`.
fn shape(value: Value) -> Value {
    match value {
        Value::String(text) if is_time(&text) => json!("<time>"),
        Value::String(text) if uuid::Uuid::parse_str(&text).is_ok() => json!("<uuid>"),
        // A fence is at least the time in microseconds.
        Value::Number(number) if number.as_u64().is_some_and(|it| it > 1 << 50) => json!("<fence>"),
        Value::Array(values) => values.into_iter().map(shape).collect(),
        Value::Object(members) => members.into_iter().map(|(k, v)| (k, shape(v))).collect(),
        other => other,
    }
}

/// `2026-01-31T23:59:59.999Z`, and nothing else.
fn is_time(text: &str) -> bool {
    let digits: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    digits == "0000-00-00T00:00:00.000Z" && humantime::parse_rfc3339(text).is_ok()
}

#[test]
fn the_shape_of_an_answer_hides_only_what_no_test_can_know() {
    let told = shape(json!({
        "expires_at": "2023-11-14T22:13:20.007Z", "fence": 1_700_000_000_000_000_u64,
        "tokens": ["3f0e7a39-91f0-4a8e-9d50-0e6c7a2f2d41", "seat-1"], "expires_in": 60,
        "short": "2023-11-14T22:13:20Z",
    }));
    let expected = json!({
        "expires_at": "<time>", "fence": "<fence>", "tokens": ["<uuid>", "seat-1"],
        "expires_in": 60, "short": "2023-11-14T22:13:20Z",
    });
    assert_eq!(told, expected);
}
