//! A collector that these tests run: it takes OTLP over HTTP, and keeps what it is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use actix_web::http::header::HeaderValue;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use prost::Message as _;

use crate::support::eventually_some;

/// A span as a reader sees it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub name: String,
    pub trace: String,
    pub id: String,
    /// Empty for a root.
    pub parent: String,
    /// W3C's `tracestate`.
    pub state: String,
    pub kind: SpanKind,
    pub failed: bool,
    pub attributes: BTreeMap<String, String>,
    /// The spans linked to.
    pub links: Vec<String>,
}

impl Seen {
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// Asserts that these are among its attributes.
    pub fn has(&self, attributes: &[(&str, &str)]) {
        for (name, value) in attributes {
            assert_eq!(self.attribute(name), *value, "{name}");
        }
    }
}

/// All that came in.
#[derive(Default)]
struct Received {
    spans: Vec<Seen>,
    resource: BTreeMap<String, String>,
    /// Path and headers of each request.
    heads: Vec<String>,
    /// All that was sent, in Rust's notation: what is in no field that these tests know is in here.
    text: String,
    /// Attributes that a span has twice, or lacks since there were too many: no span may.
    misshapen: Vec<String>,
}

pub struct Collector {
    pub url: String,
    status: Arc<AtomicU16>,
    received: Arc<Mutex<Received>>,
}

type State = (Arc<AtomicU16>, Arc<Mutex<Received>>);

async fn take(request: HttpRequest, body: web::Bytes, state: web::Data<State>) -> HttpResponse {
    let (status, received) = state.get_ref();
    let status = status.load(Ordering::Relaxed);
    let mut received = received.lock().expect("unpoisoned");
    received
        .heads
        .push(format!("{} {:?}", request.path(), request.headers()));
    if status == 200 {
        let encoding = request.headers().get("content-encoding");
        let body = match encoding.map(HeaderValue::as_bytes) {
            Some(b"gzip") => unzipped(&body),
            _ => body.to_vec(),
        };
        let sent = ExportTraceServiceRequest::decode(&body[..]).expect("OTLP");
        received.text.push_str(&format!("{sent:?}"));
        for resource in sent.resource_spans {
            let of_service = resource.resource.map(|it| it.attributes);
            received.resource = texts(of_service.unwrap_or_default());
            let spans = resource.scope_spans.into_iter().flat_map(|it| it.spans);
            for span in spans {
                received.misshapen.extend(misshapen(&span));
                received.spans.push(seen(span));
            }
        }
    }
    let status = actix_web::http::StatusCode::from_u16(status).expect("a status");
    HttpResponse::build(status).finish()
}

fn unzipped(body: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut decoder = flate2::read::GzDecoder::new(body);
    decoder.read_to_end(&mut all).expect("gzip");
    all
}

/// Readers keep one of several attributes with the same name, so `Seen` would not show it.
fn misshapen(span: &Span) -> Option<String> {
    let names: BTreeSet<_> = span.attributes.iter().map(|it| &it.key).collect();
    let whole = names.len() == span.attributes.len() && span.dropped_attributes_count == 0;
    (!whole).then(|| format!("{span:?}"))
}

fn seen(span: Span) -> Seen {
    Seen {
        kind: span.kind(),
        name: span.name,
        state: span.trace_state,
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        failed: span.status.is_some_and(|it| it.code() == StatusCode::Error),
        attributes: texts(span.attributes),
        links: span.links.iter().map(|link| hex(&link.span_id)).collect(),
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|it| it.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    let all = attributes.into_iter().map(|it| (it.key, text(it.value)));
    all.collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Collector {
    pub fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a free port"))
    }

    pub fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("bound");
        let status = Arc::new(AtomicU16::new(200));
        let received = Arc::new(Mutex::new(Received::default()));
        let state: web::Data<State> = web::Data::new((status.clone(), received.clone()));
        let routes = move || {
            let take = web::to(take);
            App::new().app_data(state.clone()).default_service(take)
        };
        let server = HttpServer::new(routes)
            .workers(1)
            .disable_signals()
            .listen(listener)
            .expect("it listens")
            .run();
        tokio::spawn(server);
        Self {
            url: format!("http://{address}"),
            status,
            received,
        }
    }

    /// What it answers from now on.
    pub fn answer(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    pub fn spans(&self) -> Vec<Seen> {
        let received = self.received.lock().expect("unpoisoned");
        assert_eq!(received.misshapen, Vec::<String>::new());
        received.spans.clone()
    }

    pub fn resource(&self) -> BTreeMap<String, String> {
        self.received.lock().expect("unpoisoned").resource.clone()
    }

    pub fn heads(&self) -> Vec<String> {
        self.received.lock().expect("unpoisoned").heads.clone()
    }

    pub fn text(&self) -> String {
        self.received.lock().expect("unpoisoned").text.clone()
    }

    /// The first span that is so, once it is here.
    pub async fn find(&self, what: &str, is: impl Fn(&Seen) -> bool) -> Seen {
        eventually_some(what, async || self.spans().into_iter().find(&is)).await
    }
}
