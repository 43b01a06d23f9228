//! What a collector that is not there, or refuses, does to the service: nothing but lost spans.

use std::net::TcpListener;

use serde_json::json;

use super::Stage;
use super::collector::{Collector, Seen};
use crate::support::{Directory, Process, eventually, free_port, tokend};

/// The sum of `tokend_spans_dropped_total` over these series.
async fn dropped(stage: &Stage, reason: &str) -> f64 {
    let text = stage.service.metrics().await;
    let series = format!("tokend_spans_dropped_total{{reason=\"{reason}\"}} ");
    let mut values = text.lines().filter_map(|line| line.strip_prefix(&series));
    let value = values.next().expect("the series is there from the start");
    value.parse().expect("a number")
}

fn lines(stage: &Stage, part: &str) -> usize {
    let log = stage.service.process.log();
    log.iter().filter(|line| line.contains(part)).count()
}

const LOST: &str = "traces: spans are lost";
const AGAIN: &str = "takes spans again";

#[tokio::test(flavor = "multi_thread")]
async fn off_means_that_nothing_is_sent_or_said() {
    let test = "off_means_that_nothing_is_sent_or_said";
    let Some(mut stage) = Stage::start(test, &[("OTEL_SDK_DISABLED", "true")]).await else {
        return;
    };
    let request = stage.post("/tokens/generate", &json!({"count": 1}));
    let request = request.header("x-request-id", "r9");
    let trace = format!("00-{}-{}-01", super::TRACE, super::PARENT);
    let answer = request.header("traceparent", trace).send().await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), 201);
    assert!(!answer.headers().contains_key("traceresponse"));
    assert!(!stage.line("r9").await.to_string().contains("trace_id"));
    stage.stop().await;
    assert_eq!(stage.collector.heads(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_is_sent_when_the_service_stops() {
    let test = "what_is_queued_is_sent_when_the_service_stops";
    let Some(mut stage) = Stage::start(test, &[("OTEL_BSP_SCHEDULE_DELAY", "60000")]).await else {
        return;
    };
    stage.generate(1).await;
    assert!(stage.collector.spans().is_empty());
    stage.stop().await;
    let names: Vec<_> = stage
        .collector
        .spans()
        .into_iter()
        .map(|it| it.name)
        .collect();
    assert!(
        names.contains(&"POST /tokens/generate".to_owned()),
        "{names:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_refuses_costs_counted_spans_and_one_line() {
    let test = "a_collector_that_refuses_costs_counted_spans_and_one_line";
    let Some(stage) = Stage::start(test, &[]).await else {
        return;
    };
    stage.collector.answer(400);
    for round in 1..=3 {
        let before = dropped(&stage, "export").await;
        stage.generate(1).await;
        eventually("spans are dropped", async || {
            dropped(&stage, "export").await > before
        })
        .await;
        assert_eq!(lines(&stage, LOST), 1, "round {round}");
    }
    stage.collector.answer(200);
    stage.generate(1).await;
    eventually("it is told", async || lines(&stage, AGAIN) == 1).await;
    assert!(!stage.collector.spans().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_holds_up_nobody_and_the_queue_is_bounded() {
    let test = "a_collector_that_is_away_holds_up_nobody_and_the_queue_is_bounded";
    // A port that is taken, and on which nobody answers: connections wait in its backlog.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("http://{}", silent.local_addr().expect("bound"));
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "10"),
    ];
    let Some(mut stage) = Stage::start(test, &settings).await else {
        return;
    };
    for _ in 0..30 {
        stage.generate(1).await; // and is answered 201
    }
    assert!(dropped(&stage, "queue").await >= 20.0);
    // At the first that did not fit, and not for a minute after that.
    assert_eq!(lines(&stage, "the queue of 10 spans is full"), 1);
    // The stop is an orderly one: within its limits, with exit code 0.
    stage.stop().await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_comes_later_is_found() {
    let test = "a_collector_that_comes_later_is_found";
    let address = format!("127.0.0.1:{}", free_port());
    let endpoint = format!("http://{address}");
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
    let Some(stage) = Stage::start(test, &settings).await else {
        return;
    };
    stage.generate(1).await;
    eventually("spans are dropped", async || {
        dropped(&stage, "export").await > 0.0
    })
    .await;
    let why = format!("{endpoint}: Connection refused");
    eventually("it is told why", async || lines(&stage, &why) == 1).await;
    let listener = TcpListener::bind(&address).expect("a port of ours");
    let collector = Collector::on(listener);
    stage.generate(1).await;
    collector
        .find("a span", |it| it.name == "POST /tokens/generate")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_compressed_and_given_up_as_the_settings_say() {
    let test = "batches_are_compressed_and_given_up_as_the_settings_say";
    let settings = [
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=for-all"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-key=for-traces"),
    ];
    let Some(stage) = Stage::start(test, &settings).await else {
        return;
    };
    stage.generate(1).await;
    let is = |span: &Seen| span.name == "POST /tokens/generate";
    stage.collector.find("a span", is).await;
    let heads = stage.collector.heads().concat();
    for (part, there) in [("gzip", true), ("for-traces", true), ("for-all", false)] {
        assert_eq!(heads.contains(part), there, "{part}: {heads}");
    }

    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("http://{}", silent.local_addr().expect("bound"));
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "50"),
    ];
    let Some(stage) = Stage::start(test, &settings).await else {
        return;
    };
    stage.generate(1).await;
    let why = format!("{endpoint}: operation timed out");
    eventually("it is given up", async || lines(&stage, &why) == 1).await;
}

/// The SDK reads the process's environment by itself; what counts are the settings, and those alone.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_environment_says_behind_the_settings_has_no_effect() {
    let test = "what_the_environment_says_behind_the_settings_has_no_effect";
    let dotenv = "OTEL_EXPORTER_OTLP_TRACES_HEADERS=x-team=a%20b\n\
                  OTEL_EXPORTER_OTLP_TRACES_COMPRESSION=none\n";
    let settings = [
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "x-other=s3cret,content-encoding=x",
        ),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "1"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "0"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"),
        ("OTEL_BSP_SCHEDULE_DELAY", "60000"),
    ];
    let Some(mut stage) = Stage::with_dotenv(test, dotenv, &settings).await else {
        return;
    };
    stage.generate(1).await;
    stage.generate(1).await;
    stage.stop().await;
    let spans = stage.collector.spans(); // each with all its attributes
    let requests = spans.iter().filter(|it| it.name.contains("generate"));
    assert!(requests.count() >= 2, "{spans:?}");
    let heads = stage.collector.heads();
    assert_eq!(heads.len(), 1, "{heads:?}");
    assert!(heads[0].contains("a b"), "{heads:?}");
    for other in ["s3cret", "gzip", "content-encoding"] {
        assert!(!heads[0].contains(other), "{other}: {heads:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protocol_that_is_not_spoken_ends_the_start() {
    let directory = Directory::new();
    let mut command = tokend(&directory);
    command
        .args(["serve", "--port", "0"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .env("OTEL_EXPORTER_OTLP_HEADERS", "s3cret");
    let mut process = Process::start(&mut command);
    assert_eq!(process.until_ended().await.code(), Some(78));
    eventually("all mistakes are told", async || {
        let told = process.log().concat();
        told.contains("OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf")
            && told.contains("OTEL_EXPORTER_OTLP_HEADERS must be headers")
    })
    .await;
    assert!(!process.log().concat().contains("s3cret"));
}
