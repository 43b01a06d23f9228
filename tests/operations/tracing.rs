//! Traces: a real `tokend serve` exports to a collector that the test runs.

mod collector;
mod context;
mod failures;
mod secrets;

use std::process::Command;

use futures_util::future::join_all;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};

use self::collector::{Collector, Seen};
use crate::support::{Directory, OwnRedis, Tokend, eventually_some, http_client, program, skip};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A service, its Redis and its collector.
struct Stage {
    redis: OwnRedis,
    /// Kept: the service runs in it.
    _directory: Directory,
    collector: Collector,
    service: Tokend,
}

impl Stage {
    /// Exporting every 20 ms, with these settings besides.
    async fn start(test: &str, settings: &[(&str, &str)]) -> Option<Self> {
        Self::with_dotenv(test, "", settings).await
    }

    /// The same, with this `.env`.
    async fn with_dotenv(test: &str, dotenv: &str, settings: &[(&str, &str)]) -> Option<Self> {
        let Some(redis) = OwnRedis::start(&[]).await else {
            skip(test, "no redis-server here");
            return None;
        };
        let (directory, collector) = (Directory::new(), Collector::start());
        std::fs::write(directory.path().join(".env"), dotenv).expect("written");
        let own = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
            ("SHUTDOWN_DELAY", "0"),
        ];
        let settings = [&own, settings].concat();
        let service = Tokend::on(&redis, &directory, &settings).await;
        Some(Self {
            redis,
            _directory: directory,
            collector,
            service,
        })
    }

    fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.service.url);
        http_client().post(url).json(body)
    }

    async fn generate(&self, count: usize) {
        let answer = self
            .post("/tokens/generate", &json!({"count": count}))
            .send()
            .await;
        assert_eq!(answer.expect("an answer").status(), 201);
    }

    /// The span of the request that this is the answer to.
    async fn span_of(&self, answer: &reqwest::Response) -> Seen {
        let told = traceresponse(answer);
        let id = told.split('-').nth(2).expect("a span");
        let is = |span: &Seen| span.id == id;
        self.collector.find("the request's span", is).await
    }

    /// Stops it in order: then all that it had to tell has been told.
    async fn stop(&mut self) {
        self.service.process.stop("TERM").await;
    }

    /// The log line of the request with that id.
    async fn line(&self, request_id: &str) -> Value {
        eventually_some("the request is logged", async || {
            let lines = self.service.process.log().into_iter();
            let mut lines = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
            lines.find(|line| {
                line["fields"]["request_id"] == request_id || line["request_id"] == request_id
            })
        })
        .await
    }
}

fn traceresponse(answer: &reqwest::Response) -> String {
    let header = answer
        .headers()
        .get("traceresponse")
        .expect("traceresponse");
    header.to_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_on_with_its_callers_trace_and_its_call_is_its_child() {
    let test = "a_request_goes_on_with_its_callers_trace_and_its_call_is_its_child";
    let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "team=licences");
    let Some(stage) = Stage::start(test, &[attributes]).await else {
        return;
    };
    stage.generate(1).await;
    let request = stage.post("/tokens/assign", &json!({}));
    let request = request.header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
    let answer = request
        .header("x-request-id", "r7")
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200);
    let told = traceresponse(&answer);

    let served = stage
        .collector
        .find("the request's span", |it| it.parent == PARENT)
        .await;
    assert_eq!(
        (served.name.as_str(), served.kind),
        ("POST /tokens/assign", SpanKind::Server)
    );
    assert_eq!(served.trace, TRACE);
    assert!(!served.failed);
    served.has(&[
        ("http.request.method", "POST"),
        ("http.route", "/tokens/assign"),
        ("http.response.status_code", "200"),
        ("tokend.pool", "default"),
    ]);
    assert_eq!(told, format!("00-{TRACE}-{}-01", served.id));
    let line = stage.line("r7").await.to_string();
    assert!(line.contains(TRACE) && line.contains(&served.id), "{line}");

    let call = stage
        .collector
        .find("its call's span", |it| it.parent == served.id)
        .await;
    assert_eq!(
        (call.name.as_str(), call.kind),
        ("assign", SpanKind::Client)
    );
    let port = stage.redis.port.to_string();
    call.has(&[
        ("db.system.name", "redis"),
        ("db.stored_procedure.name", "assign"),
        ("tokend.batch.size", "1"),
        ("server.address", "127.0.0.1"),
        ("server.port", &port),
    ]);
    assert!(
        call.attribute("tokend.partition").parse::<u32>().is_ok(),
        "{call:?}"
    );
    assert!(call.links.is_empty() && call.trace == TRACE, "{call:?}");
    let resource = stage.collector.resource();
    let told = |name: &str| resource.get(name).map_or("", String::as_str);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        (told("service.name"), told("service.version")),
        ("tokend", version)
    );
    assert_eq!(told("team"), "licences");
    assert_ne!(told("service.instance.id"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_linked_with_all_its_requests() {
    let test = "a_batch_is_linked_with_all_its_requests";
    let Some(stage) = Stage::start(test, &[]).await else {
        return;
    };
    stage.generate(500).await;
    // While Redis holds writes back, one assign is under way and the others queue.
    let batch = eventually_some("several requests go in one call", async || {
        let paused = stage
            .redis
            .command(&["CLIENT", "PAUSE", "300", "WRITE"])
            .await;
        paused.expect("Redis pauses");
        let body = json!({});
        let calls = (0..6).map(|_| stage.post("/tokens/assign", &body).send());
        let answers = join_all(calls).await.into_iter();
        let answers: Vec<_> = answers.map(|it| it.expect("an answer")).collect();
        assert!(answers.iter().all(|it| it.status() == 200));
        let last = answers.iter().map(traceresponse).collect::<Vec<_>>();
        // The calls end before their requests: once these are here, so are those.
        for told in last {
            let id = told.split('-').nth(2).expect("a span").to_owned();
            stage
                .collector
                .find("a request's span", |it| it.id == id)
                .await;
        }
        let spans = stage.collector.spans().into_iter();
        let mut calls = spans.filter(|it| it.name == "assign");
        calls.find(|it| it.attribute("tokend.batch.size") != "1")
    })
    .await;
    assert_eq!(batch.kind, SpanKind::Client);
    let size: usize = batch
        .attribute("tokend.batch.size")
        .parse()
        .expect("a number");
    assert_eq!(batch.links.len(), size, "{batch:?}");
    let spans = stage.collector.spans();
    let requests: Vec<&Seen> = batch
        .links
        .iter()
        .map(|id| {
            spans
                .iter()
                .find(|it| it.id == *id)
                .expect("a request's span")
        })
        .collect();
    let traces: std::collections::BTreeSet<_> = requests.iter().map(|it| &it.trace).collect();
    assert_eq!(traces.len(), size, "each is another request: {requests:?}");
    for request in &requests {
        assert_eq!(request.name, "POST /tokens/assign");
        // One of them is its parent, and from the others it can be found too.
        let parent = batch.parent == request.id && batch.trace == request.trace;
        assert!(
            parent != (request.links == [batch.id.clone()]),
            "{request:?} {batch:?}"
        );
    }
    assert!(batch.links.contains(&batch.parent), "{batch:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_its_caller_left_is_given_back_in_its_trace() {
    let test = "a_grant_that_its_caller_left_is_given_back_in_its_trace";
    let Some(stage) = Stage::start(test, &[]).await else {
        return;
    };
    stage.generate(500).await;
    eventually_some("a grant is given back", async || {
        let paused = stage.redis.command(&["CLIENT", "PAUSE", "300", "WRITE"]);
        paused.await.expect("Redis pauses");
        let patience = std::time::Duration::from_millis(100);
        let left = stage.post("/tokens/assign", &json!({})).timeout(patience);
        left.send().await.err()?;
        // Answered when the pause is over.
        stage.generate(1).await;
        let spans = stage.collector.spans();
        let mut back = spans.iter().filter(|it| it.name == "unblock");
        let status = "http.response.status_code";
        back.find(|back| {
            let mut others = spans.iter().filter(|it| it.trace == back.trace);
            others.any(|it| it.attribute(status) == "499" && it.id == back.parent)
        })
        .cloned()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_has_its_pool_once_and_keeps_its_result() {
    let test = "a_request_that_waits_has_its_pool_once_and_keeps_its_result";
    let Some(stage) = Stage::start(test, &[]).await else {
        return;
    };
    stage.generate(1).await;
    let taken = stage.post("/tokens/assign", &json!({})).send().await;
    assert_eq!(taken.expect("an answer").status(), 200);
    let waits = stage.post("/tokens/assign", &json!({"wait_seconds": 1}));
    let answer = waits.send().await.expect("an answer");
    let status = answer.status().as_u16().to_string();
    // That no attribute is there twice, the collector sees to.
    let served = stage.span_of(&answer).await;
    served.has(&[
        ("tokend.pool", "default"),
        ("http.response.status_code", &status),
    ]);
    let spans = stage.collector.spans();
    let calls = spans.iter().filter(|it| it.parent == served.id).count();
    assert!(calls > 1, "{spans:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_keeps_no_trace_is_respected_and_probes_have_none() {
    let test = "a_caller_who_keeps_no_trace_is_respected_and_probes_have_none";
    let Some(mut stage) = Stage::start(test, &[]).await else {
        return;
    };
    let request = stage.post("/tokens/assign", &json!({}));
    let request = request.header("traceparent", format!("00-{TRACE}-{PARENT}-00"));
    let answer = request
        .header("x-request-id", "r8")
        .send()
        .await
        .expect("an answer");
    let told = traceresponse(&answer);
    assert!(
        told.starts_with(&format!("00-{TRACE}-")) && told.ends_with("-00"),
        "{told}"
    );
    assert!(stage.line("r8").await.to_string().contains(TRACE));
    for path in ["/livez", "/readyz", "/metrics"] {
        let url = format!("{}{path}", stage.service.url);
        let answer = http_client().get(url).send().await.expect("an answer");
        assert!(!answer.headers().contains_key("traceresponse"), "{path}");
    }
    stage.generate(1).await;
    stage.stop().await;
    let spans = stage.collector.spans();
    let names: Vec<_> = spans.iter().map(|it| it.name.as_str()).collect();
    assert!(names.contains(&"POST /tokens/generate"), "{names:?}");
    assert!(spans.iter().all(|it| it.trace != TRACE), "{spans:?}");
    // Nor those that waited for it to be ready; nor a sweep that found nothing.
    let others = names.iter().filter(|it| !it.contains("generate"));
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_settles_something_is_a_trace_of_its_own() {
    let test = "a_sweep_that_settles_something_is_a_trace_of_its_own";
    let Some(stage) = Stage::start(test, &[]).await else {
        return;
    };
    stage.generate(1).await;
    let held = stage
        .post("/tokens/assign", &json!({"lifetime": 1}))
        .send()
        .await;
    assert_eq!(held.expect("an answer").status(), 200);
    let sweep = stage
        .collector
        .find("a sweep", |it| it.name == "sweep")
        .await;
    assert_eq!((sweep.parent.as_str(), sweep.kind), ("", SpanKind::Client));
    assert_ne!(sweep.attribute("tokend.sweep.entries"), "0");
    assert!(["event", "timer"].contains(&sweep.attribute("tokend.sweep.trigger")));
    let others = stage.collector.spans();
    let same = others.iter().filter(|it| it.trace == sweep.trace).count();
    assert_eq!(same, 1, "{others:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_carries_the_trace_of_its_environment_on() {
    let test = "the_command_line_carries_the_trace_of_its_environment_on";
    let Some(stage) = Stage::start(test, &[]).await else {
        return;
    };
    stage.generate(1).await;
    let context = format!("00-{TRACE}-{PARENT}-01");
    let url = stage.service.url.clone();
    let given = context.clone();
    let leased = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(program());
        command
            .args(["lease", "default", "--", "sh", "-c", "echo $TRACEPARENT"])
            .env("TOKEND_URL", url)
            .env("TRACEPARENT", given);
        command.output().expect("tokend lease runs")
    });
    let leased = leased.await.expect("it ends");
    assert_eq!(
        String::from_utf8_lossy(&leased.stdout).trim(),
        context,
        "{leased:?}"
    );
    for verb in ["assign", "unblock"] {
        let name = format!("POST /v1/pools/{{pool}}/{verb}");
        let served = stage.collector.find(verb, |it| it.name == name).await;
        assert_eq!(
            (served.trace.as_str(), served.parent.as_str()),
            (TRACE, PARENT),
            "{verb}"
        );
    }
}
